//! Actions of a node that is out of contact with its cluster: it logs this once a minute, finds members that have
//! moved, checks if it has been removed, and announces its own address.

use std::{sync::Arc, time::Duration};

use conclave_proto::cluster::v1 as pb;
use tokio::time::{Instant, sleep, timeout};

use super::{
    leader::Leader,
    membership::Membership,
    peers::{ChannelKind, Peers},
    service::is_removed,
    types::{Member, NodeId},
};

/// The interval between two checks of contact.
const PERIOD: Duration = Duration::from_secs(1);
/// The time without contact before anything is done about it: longer than an election.
const WAIT_LIMIT: Duration = Duration::from_secs(3);
/// The time limit of one request.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// The interval at which a lasting loss is logged again.
const REMIND: Duration = Duration::from_mins(1);

/// The part of the configuration that this task uses.
pub(crate) struct ContactSettings {
    /// This node as its members should know it.
    pub own: Member,
    /// Possible addresses of members, whatever the log says: the configured peers.
    pub hints: Vec<String>,
}

struct Watch {
    leader: Leader,
    peers: Arc<Peers>,
    membership: Membership,
    place: ContactSettings,
    lost_since: Option<Instant>,
    said_at: Option<Instant>,
}

/// Runs until the task is dropped. Must be called inside the consensus runtime.
pub(crate) async fn run(leader: Leader, peers: Arc<Peers>, membership: Membership, place: ContactSettings) {
    let mut watch = Watch { leader, peers, membership, place, lost_since: None, said_at: None };
    loop {
        watch.round().await;
        sleep(PERIOD).await;
    }
}

impl Watch {
    async fn round(&mut self) {
        let lost = self.leader.contact(&self.peers.identity).err();
        match lost {
            Some(why) => {
                let since = *self.lost_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= WAIT_LIMIT {
                    self.find_moved_members().await;
                    self.ask_whether_removed().await;
                    self.report(&why, since);
                }
            }
            None => {
                if let Some(since) = self.lost_since.take()
                    && self.said_at.take().is_some()
                {
                    tracing::info!(
                        "in contact with the cluster again, after {} s",
                        since.elapsed().as_secs()
                    );
                }
            }
        }
        self.announce().await;
    }

    /// Logs one line when the loss begins, and one a minute while it lasts.
    fn report(&mut self, why: &str, since: Instant) {
        if self.said_at.is_some_and(|at| at.elapsed() < REMIND) {
            return;
        }
        self.said_at = Some(Instant::now());
        let seconds = since.elapsed().as_secs();
        let others: Vec<String> = self.others().iter().map(|(id, member)| self.named(*id, member)).collect();
        tracing::warn!(
            "no quorum for {seconds} s: {why}; writes and sign-ins fail here. The other members: {}",
            others.join(", ")
        );
    }

    fn named(&self, node: NodeId, member: &Member) -> String {
        let addr = self.peers.address_of(node, &member.cluster_addr);
        format!("node {node} at {addr}")
    }

    fn others(&self) -> Vec<(NodeId, Member)> {
        let own = self.peers.identity.node;
        self.members().into_iter().filter(|(id, _)| *id != own).collect()
    }

    fn members(&self) -> Vec<(NodeId, Member)> {
        self.leader.members()
    }

    /// Greets every node that answers at the configured addresses. A member is recognised by its identity, whatever its
    /// address.
    async fn find_moved_members(&self) {
        let members = self.members();
        let strange =
            self.place.hints.iter().filter(|addr| members.iter().all(|(_, it)| it.cluster_addr != **addr));
        for addr in strange {
            let Some(hello) = self.greet(addr).await else { continue };
            let found = members.iter().find(|(id, member)| {
                *id == hello.node_id
                    && *id != self.peers.identity.node
                    && member.incarnation[..] == hello.incarnation[..]
            });
            if let Some((id, _)) = found
                && self.peers.learn_address(*id, addr)
            {
                tracing::info!(peer.id = *id, "node {id} answers at {addr}");
            }
        }
    }

    async fn greet(&self, addr: &str) -> Option<pb::HelloReply> {
        let identity = &self.peers.identity;
        let lineage = identity.lineage()?;
        let mut client = self.peers.client(None, addr, ChannelKind::Control).ok()?;
        let request = pb::HelloRequest {
            from: identity.node,
            incarnation: identity.incarnation.to_vec(),
            cluster_id: lineage.cluster.to_vec(),
            epoch: lineage.epoch,
        };
        let hello = timeout(ANSWER_LIMIT, client.hello(request)).await.ok()?.ok()?.into_inner();
        (hello.cluster_id == lineage.cluster && hello.epoch == lineage.epoch).then_some(hello)
    }

    /// Asks members if this node was removed. A removed node hears from no leader any more. Only a leader that a quorum
    /// follows knows for certain that the node was removed.
    async fn ask_whether_removed(&self) {
        for (id, member) in self.others() {
            let Ok(mut client) = self.peers.client(Some(id), &member.cluster_addr, ChannelKind::Control)
            else {
                continue;
            };
            let envelope = Some(self.peers.identity.envelope(id));
            let asking = client.read_index(pb::ReadIndexRequest { envelope });
            if let Ok(Err(status)) = timeout(ANSWER_LIMIT, asking).await
                && is_removed(&status)
            {
                self.peers.identity.mark_removed();
            }
        }
    }

    /// Announces this node's address to the others, as long as its log has another one.
    async fn announce(&self) {
        let own = self.peers.identity.node;
        let members = self.members();
        let Some((_, known)) = members.iter().find(|(id, _)| *id == own) else { return };
        let now = &self.place.own;
        if known.cluster_addr == now.cluster_addr && known.api_url == now.api_url {
            return;
        }
        if self.leader.is_leader() {
            // Put off to the next round when another change is under way.
            let _ = self.membership.readdress(own, &now.cluster_addr, &now.api_url).await;
            return;
        }
        for (id, member) in self.others() {
            let Ok(mut client) = self.peers.client(Some(id), &member.cluster_addr, ChannelKind::Control)
            else {
                continue;
            };
            let request = pb::AnnounceRequest {
                envelope: Some(self.peers.identity.envelope(id)),
                cluster_addr: now.cluster_addr.clone(),
                api_url: now.api_url.clone(),
            };
            let _ = timeout(ANSWER_LIMIT, client.announce(request)).await;
        }
    }
}
