//! The identity of this node, and the admission of messages. Every message names cluster, lineage, sender and
//! incarnation.

use std::{
    sync::{OnceLock, PoisonError, RwLock},
    time::Duration,
};

use conclave_proto::cluster::v1 as pb;
use tokio::{sync::watch, time::Instant};

use super::{
    rt,
    types::{Member, NodeId},
};

/// The cluster id and lineage epoch (docs/design/restore.md). Messages from another lineage are rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The cluster's uuid.
    pub cluster: [u8; 16],
    /// Raised by each restore.
    pub epoch: u64,
}

/// The reason why a message was rejected. The text is also sent to the sender, so that both sides log it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum EnvelopeRejected {
    #[error("the message has no envelope")]
    Anonymous,
    #[error("this node has not joined its cluster yet")]
    NotReady,
    #[error(
        "the sender belongs to another cluster or lineage; it must be given an empty data directory to join this one"
    )]
    ForeignLineage,
    #[error("this is node {here}, not node {meant}: the peer addresses of the sender are mixed up")]
    WrongAddress { here: NodeId, meant: NodeId },
    #[error(
        "node {node} has another data directory than the cluster knows; a wiped or copied disk cannot come back under the \
         same number: bring back its directory, or replace the member"
    )]
    OtherIncarnation { node: NodeId },
}

/// This node as the others see it, and the members it knows.
#[derive(Debug)]
pub(crate) struct NodeIdentity {
    pub node: NodeId,
    pub incarnation: [u8; 16],
    lineage: OnceLock<Lineage>,
    members: RwLock<Vec<(NodeId, Member)>>,
    /// The time at which a leader's message was last accepted here.
    heard_at: RwLock<Option<Instant>>,
    /// True once a leader has reported that this node is not a member any more.
    removed: watch::Sender<bool>,
}

impl NodeIdentity {
    pub(crate) fn new(node: NodeId, incarnation: [u8; 16], lineage: Option<Lineage>) -> Self {
        let known = OnceLock::new();
        if let Some(lineage) = lineage {
            // A new cell is empty: this cannot fail.
            let _ = known.set(lineage);
        }
        Self {
            node,
            incarnation,
            lineage: known,
            members: RwLock::default(),
            heard_at: RwLock::default(),
            removed: watch::Sender::new(false),
        }
    }

    /// The lineage, once this node has one.
    pub(crate) fn lineage(&self) -> Option<Lineage> {
        self.lineage.get().copied()
    }

    /// Sets the lineage at bootstrap; a second call keeps the first.
    pub(crate) fn join(&self, lineage: Lineage) {
        let _ = self.lineage.set(lineage);
    }

    /// Records that a leader's message was accepted just now.
    pub(crate) fn heard_leader(&self) {
        match self.heard_at.write() {
            Ok(mut at) => *at = Some(Instant::now()),
            Err(poisoned) => *poisoned.into_inner() = Some(Instant::now()),
        }
    }

    /// True if a leader's message was accepted here within this time.
    pub(crate) fn heard_leader_within(&self, limit: Duration) -> bool {
        let at = match self.heard_at.read() {
            Ok(at) => *at,
            Err(poisoned) => *poisoned.into_inner(),
        };
        at.is_some_and(|at| at.elapsed() <= limit)
    }

    /// Records that a leader with a quorum has removed this node.
    pub(crate) fn mark_removed(&self) {
        self.removed.send_replace(true);
    }

    /// Returns when this node has been removed.
    pub(crate) async fn removed(&self) {
        // The sender lives as long as this borrow.
        let _ = self.removed.subscribe().wait_for(|removed| *removed).await;
    }

    /// Remembers the members of the configuration in force.
    pub(crate) fn learn_members(&self, members: Vec<(NodeId, Member)>) {
        match self.members.write() {
            Ok(mut known) => *known = members,
            Err(poisoned) => *poisoned.into_inner() = members,
        }
    }

    /// The address of this member in the configuration in force.
    pub(crate) fn address_of(&self, node: NodeId) -> Option<String> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.iter().find(|(id, _)| *id == node).map(|(_, member)| member.cluster_addr.clone())
    }

    /// The members of the configuration in force.
    pub(crate) fn members(&self) -> Vec<(NodeId, Member)> {
        match self.members.read() {
            Ok(known) => known.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    /// The envelope of this node's messages to `to`.
    pub(crate) fn envelope(&self, to: NodeId) -> pb::Envelope {
        let lineage = self.lineage();
        pb::Envelope {
            cluster_id: lineage.map(|l| l.cluster.to_vec()).unwrap_or_default(),
            epoch: lineage.map_or(0, |l| l.epoch),
            from: self.node,
            incarnation: self.incarnation.to_vec(),
            to,
        }
    }

    /// Admits a message, or returns the reason why not.
    ///
    /// # Errors
    /// [`EnvelopeRejected`], for the sender and for the log.
    pub(crate) fn admit(&self, envelope: Option<&pb::Envelope>) -> Result<NodeId, EnvelopeRejected> {
        let envelope = envelope.ok_or(EnvelopeRejected::Anonymous)?;
        let lineage = self.lineage().ok_or(EnvelopeRejected::NotReady)?;
        if envelope.cluster_id != lineage.cluster || envelope.epoch != lineage.epoch {
            return Err(EnvelopeRejected::ForeignLineage);
        }
        if envelope.to != self.node {
            return Err(EnvelopeRejected::WrongAddress { here: self.node, meant: envelope.to });
        }
        let known = self.members();
        match known.iter().find(|(id, _)| *id == envelope.from) {
            Some((node, member))
                if envelope.incarnation != member.incarnation && !rt::injected_faults().reuses_numbers =>
            {
                Err(EnvelopeRejected::OtherIncarnation { node: *node })
            }
            // A node that this one does not know yet may be a member of a configuration that has not arrived here yet.
            _ => Ok(envelope.from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAGE: Lineage = Lineage { cluster: [7; 16], epoch: 1 };

    fn node(id: NodeId, incarnation: u8) -> NodeIdentity {
        NodeIdentity::new(id, [incarnation; 16], Some(LINEAGE))
    }

    #[test]
    fn only_members_of_this_lineage_with_their_own_disk_are_let_in() {
        let here = node(1, 1);
        let member = Member { incarnation: [2; 16], ..Member::default() };
        here.learn_members(vec![(2, member)]);

        assert_eq!(here.admit(Some(&node(2, 2).envelope(1))), Ok(2));
        assert_eq!(here.admit(None), Err(EnvelopeRejected::Anonymous));
        assert_eq!(
            here.admit(Some(&node(2, 2).envelope(3))),
            Err(EnvelopeRejected::WrongAddress { here: 1, meant: 3 })
        );
        assert_eq!(
            here.admit(Some(&node(2, 9).envelope(1))),
            Err(EnvelopeRejected::OtherIncarnation { node: 2 })
        );
        let foreign = NodeIdentity::new(2, [2; 16], Some(Lineage { cluster: [8; 16], epoch: 1 }));
        assert_eq!(here.admit(Some(&foreign.envelope(1))), Err(EnvelopeRejected::ForeignLineage));
        let restored = NodeIdentity::new(2, [2; 16], Some(Lineage { epoch: 2, ..LINEAGE }));
        assert_eq!(here.admit(Some(&restored.envelope(1))), Err(EnvelopeRejected::ForeignLineage));
        let fresh = NodeIdentity::new(1, [1; 16], None);
        assert_eq!(fresh.admit(Some(&node(2, 2).envelope(1))), Err(EnvelopeRejected::NotReady));
    }
}
