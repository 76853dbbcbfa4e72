//! The node's side: renewing in time, confirming applied revocations, and releasing the lease.

use std::time::Duration;

use conclave_lease::LeaseGrant;
use conclave_proto::cluster::v1 as pb;
use openraft::async_runtime::WatchReceiver as _;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Leases, lock};
use crate::{
    peers::{ChannelKind, PeerClient},
    service::is_removed,
    types::NodeId,
};

/// Renewals in the length of one lease: several may fail before it lapses (docs/design/serve-leases.md: every 400 ms of
/// 2 s).
pub(super) const RENEWALS: u32 = 5;
/// The time limit of one request.
const QUESTION: Duration = Duration::from_millis(300);
/// The pause after a request that failed.
const RETRY: Duration = Duration::from_millis(25);
/// The longest time for which the release may delay the end of a process.
const RELEASE_LIMIT: Duration = Duration::from_millis(200);

impl Leases {
    /// Runs until the task is dropped.
    pub(super) async fn keep_renewing(self) {
        let mut metrics = self.shared.leader.raft().metrics();
        loop {
            let begun = Instant::now();
            let asked = metrics.borrow_watched().current_leader;
            let renewed = match asked {
                Some(leader) => self.renew(leader).await.is_some(),
                None => false,
            };
            let next = if renewed { begun + self.renewal_period() } else { Instant::now() + RETRY };
            // A new leader is asked at once: it does not know this node yet.
            while Instant::now() < next {
                tokio::select! {
                    () = sleep_until(next) => {}
                    changed = metrics.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        if metrics.borrow_watched().current_leader != asked {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Sends one renewal. Returns `None` if it was not answered, or if the reply is not accepted.
    async fn renew(&self, leader: NodeId) -> Option<()> {
        let nonce = u64::from_be_bytes(self.shared.runtime.entropy.bytes());
        lock(&self.shared.holder).ask(nonce, self.now());
        let Ok(answer) = timeout(QUESTION, self.ask(leader)).await else {
            self.forget(leader);
            return None;
        };
        let grant = answer?;
        let pending = lock(&self.shared.holder).granted(nonce, grant, self.now())?;
        let view = self.shared.leader.view();
        timeout(QUESTION, view.reach(pending.index())).await.ok()??;
        // Under the holder's lock, as the release is: a lease is not in force after the leader has been told that there
        // is none.
        let mut holder = lock(&self.shared.holder);
        let lease = holder.activate(pending, view.load().index())?;
        self.shared.in_force.store(Some(std::sync::Arc::new(lease)));
        Some(())
    }

    async fn ask(&self, leader: NodeId) -> Option<LeaseGrant> {
        let applied = self.shared.leader.view().load().index();
        if leader == self.node() {
            return self.grant(leader, self.shared.process, applied).await.ok();
        }
        let request = pb::RenewRequest {
            envelope: Some(self.shared.peers.identity.envelope(leader)),
            process: self.shared.process,
            applied_index: applied,
        };
        let reply = self.client(leader)?.renew(request).await.inspect_err(|status| {
            if is_removed(status) {
                self.shared.peers.identity.mark_removed();
            }
        });
        let reply = reply.ok()?.into_inner();
        Some(LeaseGrant { index: reply.index, length: Duration::from_millis(reply.length_ms.into()) })
    }

    /// Confirms to the leader each revocation that has been applied here and is seen by this node's checks. Plain
    /// writes are not confirmed, because no barrier waits for them. If a confirmation is lost, the next renewal carries
    /// it.
    pub(super) async fn keep_confirming(self) {
        let view = self.shared.leader.view().clone();
        let mut revoked = view.revoked();
        while revoked.changed().await.is_ok() {
            let applied = view.load().index();
            let Some(leader) = self.shared.leader.leader_id() else { continue };
            if leader == self.node() {
                self.confirm(leader, applied);
                continue;
            }
            let Some(mut client) = self.client(leader) else { continue };
            let envelope = Some(self.shared.peers.identity.envelope(leader));
            let request = pb::ConfirmRequest { envelope, applied_index: applied };
            let _ = timeout(QUESTION, client.confirm(request)).await;
        }
    }

    /// Stops serving in this process, and releases the lease at the leader. Revocations then need not wait for this
    /// node.
    pub(crate) async fn stop(&self) {
        {
            let mut holder = lock(&self.shared.holder);
            holder.stop();
            self.shared.in_force.store(None);
        }
        match self.shared.leader.leader_id() {
            Some(leader) if leader == self.node() => self.released(leader, self.shared.process),
            Some(leader) => {
                let Some(mut client) = self.client(leader) else { return };
                let envelope = Some(self.shared.peers.identity.envelope(leader));
                let request = pb::ReleaseRequest { envelope, process: self.shared.process };
                let _ = timeout(RELEASE_LIMIT, client.release(request)).await;
            }
            None => {}
        }
    }

    fn forget(&self, leader: NodeId) {
        let members = self.shared.peers.identity.members();
        if let Some((_, member)) = members.into_iter().find(|(id, _)| *id == leader) {
            self.shared.peers.forget(Some(leader), &member.cluster_addr, ChannelKind::Lease);
        }
    }

    fn client(&self, leader: NodeId) -> Option<PeerClient> {
        let members = self.shared.peers.identity.members();
        let (_, member) = members.into_iter().find(|(id, _)| *id == leader)?;
        self.shared.peers.client(Some(leader), &member.cluster_addr, ChannelKind::Lease).ok()
    }
}
