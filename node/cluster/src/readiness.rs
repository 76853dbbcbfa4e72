//! Readiness of this node, and the reasons if it is not ready: the one source of `/healthz/ready`, `cluster status` and
//! the metrics.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use conclave_proto::cluster::v1 as pb;

use super::{
    disk::{self, DiskWatch},
    leader::Leader,
    lease::Leases,
    peers::Peers,
    settings::SharedSettings,
};

/// The sources of readiness. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Readiness {
    pub leader: Leader,
    pub leases: Leases,
    pub peers: Arc<Peers>,
    /// True once this node has seen everything that was acknowledged before it started.
    pub caught_up: Arc<AtomicBool>,
    pub settings: Arc<SharedSettings>,
    pub disk: Arc<DiskWatch>,
}

impl Readiness {
    /// The reasons why this node cannot serve, the gravest first. Empty if it can.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let caught_up = self.caught_up.load(Ordering::Acquire);
        let catching_up = || "no leader has confirmed yet that this node is up to date".to_owned();
        let no_lease = || "this node holds no serve lease: no leader has confirmed it lately".to_owned();
        let hung = || format!("the disk of the log has not answered for {} s", disk::LIMIT.as_secs());
        let contact = self.leader.contact(&self.peers.identity);
        let is_cut_off = contact.is_err();
        let mut reasons: Vec<String> = contact.err().into_iter().collect();
        reasons.extend(self.leader.readiness().err().filter(|_| !is_cut_off));
        reasons.extend((!caught_up && !is_cut_off).then(catching_up));
        reasons.extend(self.disk.is_hung().then(hung));
        reasons.extend(self.leader.clock().trouble().filter(|_| !is_cut_off).map(|it| it.to_string()));
        reasons.extend((!is_cut_off && caught_up && !self.leases.can_serve()).then(no_lease));
        reasons.extend(self.settings.blocking().iter().map(ToString::to_string));
        reasons
    }

    /// This node's status, including its leases and the reasons why it is not ready.
    pub(crate) async fn status(&self, with_digest: bool) -> pb::NodeStatus {
        let reasons = self.reasons();
        let millis = |left: std::time::Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let holders = self.leases.holders().into_iter();
        let mut status = self.leader.status(with_digest).await;
        if self.leader.contact(&self.peers.identity).is_err() {
            // Raft still names a leader that ended long ago, and a leader without quorum still reports itself as
            // leader.
            status.leader_id = 0;
            if status.role == "leader" {
                status.role = "leader without quorum".into();
            }
        }
        pb::NodeStatus {
            lease_holders: holders
                .map(|(node_id, left)| pb::LeaseHolder { node_id, left_ms: millis(left) })
                .collect(),
            lease_left_ms: millis(self.leases.left()),
            ready: reasons.is_empty(),
            reasons,
            settings: self.settings.listed(),
            ..status
        }
    }
}
