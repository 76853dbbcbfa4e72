//! The types that Raft runs with. Everything that openraft needs to know about Conclave is here, so that a bump of
//! openraft only changes this room (docs/design/consensus.md).

use std::fmt;

pub use conclave_lease::NodeId;
use openraft::impls::leader_id_std;

use super::rt::Rt;

openraft::declare_raft_types!(
    /// Raft with opaque payloads, one leader a term and our own member record.
    pub Config:
        D = Payload,
        R = ApplyOutcome,
        NodeId = NodeId,
        Node = Member,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = Rt,
);

pub type RaftLogId = openraft::type_config::alias::LogIdOf<Config>;
pub type Vote = openraft::type_config::alias::VoteOf<Config>;
pub type RaftLogEntry = openraft::type_config::alias::EntryOf<Config>;
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Config>;
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Config>;

/// The content of a normal log entry: an encoded `conclave.command.v1.LogEntry`, which only `apply` decodes.
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

/// The result of applying an entry: a reply of the rules, or `None` for blank and membership entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyOutcome {
    pub reply: Option<conclave_state::Reply>,
    /// True if the entry revoked or restricted something.
    pub revokes: bool,
    /// The events of the entry, for the log lines of the node that wrote it.
    pub events: Vec<conclave_state::Event>,
}

impl fmt::Display for ApplyOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.reply.is_some() { "reply" } else { "nothing" })
    }
}

/// A member as the membership entries of the log record it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// `host:port` of the member's cluster plane.
    pub cluster_addr: String,
    /// `http://host:port` of the member's admin API, for leader hints.
    pub api_url: String,
    /// Made anew with each data directory: a node with a wiped disk is another member (reference: openraft FAQ "reuse
    /// the ID").
    pub incarnation: [u8; 16],
}
