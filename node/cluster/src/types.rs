//! The types Raft runs with. Everything openraft needs to know about us stands here, so that a bump of
//! openraft is a change of this room and of nothing else (design.md §5).

use std::fmt;

use openraft::impls::leader_id_std;

use super::rt::Rt;

/// A cluster member's number: 1.. as configured, never reused (design.md §5).
pub type NodeId = u64;

openraft::declare_raft_types!(
    /// Raft with opaque payloads, one leader a term and our own member record.
    pub Config:
        D = Payload,
        R = Outcome,
        NodeId = NodeId,
        Node = Member,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = Rt,
);

pub type LogId = openraft::type_config::alias::LogIdOf<Config>;
pub type Vote = openraft::type_config::alias::VoteOf<Config>;
pub type Entry = openraft::type_config::alias::EntryOf<Config>;
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Config>;
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Config>;

/// What a normal log entry carries: an encoded `conclave.command.v1.LogEntry`, opened by `apply` alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry answered: a reply of the rules, or nothing for blank and membership entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub reply: Option<conclave_state::Reply>,
    /// Whether the entry took something away.
    pub revokes: bool,
    /// What the entry changed, for the log line of the node that wrote it.
    pub events: Vec<conclave_state::Event>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.reply.is_some() { "reply" } else { "nothing" })
    }
}

/// A member as the membership entries of the log know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// `host:port` of the member's cluster plane.
    pub cluster_addr: String,
    /// `http://host:port` of the member's admin API, for leader hints.
    pub api_url: String,
    /// Made anew with each data directory: a wiped disk is another member (reference: openraft FAQ "reuse the ID").
    pub incarnation: [u8; 16],
}
