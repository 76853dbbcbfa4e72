//! The operations of this node that need Raft: writing as leader, confirming a read by a quorum, and reporting its
//! status.

use std::{sync::Arc, time::Duration};

use conclave_proto::{cluster::v1 as pb, command::v1 as command};
use conclave_state::{Reply, level, snapshot};
use openraft::{
    Instant as _, ReadPolicy, ServerState,
    async_runtime::WatchReceiver as _,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
};
use prost::Message as _;

use conclave_base::runtime::Runtime;
use conclave_store as store;

use super::{
    archival::ArchiveSlot,
    clock::{ClockUnsure, ClusterClock},
    identity::NodeIdentity,
    log_store::LogGauge,
    machine::{LocalSnapshots, StateMachine, StateView},
    rt,
    types::{Config, Member, NodeId, Payload},
};

pub(crate) type Raft = openraft::Raft<Config, StateMachine>;

/// The time limit of a read's quorum round.
const READ_LIMIT: Duration = Duration::from_millis(300);
/// Room for the envelope around a command's bytes in a log record.
const ENTRY_OVERHEAD_BYTES: usize = 64;
/// The age up to which the last message of a leader, or of a quorum, is accepted as contact. It is longer than an
/// ordinary failover (about half a second), so that a failover does not turn every node red. It is short enough that a
/// load balancer stops sending to a node that is cut off.
const CONTACT: Duration = Duration::from_millis(1_500);
/// Entries a follower may be behind and still call itself ready.
pub(crate) const READY_LAG: u64 = 1_000;

/// The reason why this node cannot give a leader's answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LeaderError {
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    #[error("the write's outcome is unknown")]
    Unknown,
    #[error("no quorum")]
    NoQuorum,
    /// Nothing was written.
    #[error(transparent)]
    ClockUnsure(#[from] ClockUnsure),
    #[error("the command has {bytes} bytes; the log takes {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("raft has stopped: {0}")]
    Stopped(String),
}

/// A committed and applied command.
#[derive(Clone, Debug)]
pub(crate) struct WriteReceipt {
    pub reply: Reply,
    pub index: u64,
    /// The term in which it was written.
    pub term: u64,
    /// True if it revoked or restricted something: then it may not hold on every node yet.
    pub revokes: bool,
}

/// The Raft instance of this node.
#[derive(Clone)]
pub(crate) struct Leader {
    raft: Raft,
    view: StateView,
    snapshots: LocalSnapshots,
    runtime: Runtime,
    clock: Arc<ClusterClock>,
    log: LogGauge,
    archive: Arc<ArchiveSlot>,
    started: Duration,
}

impl Leader {
    pub(crate) fn new(
        raft: Raft,
        view: StateView,
        snapshots: LocalSnapshots,
        clock: Arc<ClusterClock>,
        log: LogGauge,
    ) -> Self {
        let runtime = snapshots.runtime.clone();
        let started = runtime.clock.monotonic();
        Self { raft, view, snapshots, runtime, clock, log, archive: Arc::default(), started }
    }

    /// The clock that stamps what is written here.
    pub(crate) const fn clock(&self) -> &Arc<ClusterClock> {
        &self.clock
    }

    /// The status that the archive of this node published.
    pub(crate) fn archive(&self) -> &ArchiveSlot {
        &self.archive
    }

    /// The log, for reading.
    pub(crate) const fn log(&self) -> &LogGauge {
        &self.log
    }

    pub(crate) const fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(crate) const fn view(&self) -> &StateView {
        &self.view
    }

    pub(crate) const fn snapshots(&self) -> &LocalSnapshots {
        &self.snapshots
    }

    /// Bytes of the log entries above `index`.
    pub(crate) fn log_bytes_after(&self, index: u64) -> u64 {
        self.log.bytes_after(index)
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raft.metrics().borrow_watched().state == ServerState::Leader
    }

    pub(crate) fn leader_id(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// The highest term this node has seen.
    pub(crate) fn term(&self) -> u64 {
        self.raft.metrics().borrow_watched().current_term
    }

    /// Stamps the command, commits it and applies it. The bytes are not decoded here (docs/design/rules.md).
    ///
    /// # Errors
    /// [`LeaderError`]; `Unknown` if the entry may or may not be committed.
    pub(crate) async fn write(&self, command: Vec<u8>) -> Result<WriteReceipt, LeaderError> {
        let limit = store::log::MAX_PAYLOAD_BYTES - ENTRY_OVERHEAD_BYTES;
        if command.len() > limit {
            return Err(LeaderError::TooLarge { bytes: command.len(), limit });
        }
        let at_ms = self.clock.stamp()?;
        if let Some(forward) = ClusterClock::forward(&self.view.load(), at_ms) {
            // After half an hour or more without entries, a single entry may not move log time that far.
            let request_id = self.runtime.entropy.bytes::<16>().to_vec();
            let body = Some(command::command::Body::SetClock(forward));
            self.append(at_ms, command::Command { request_id, body }.encode_to_vec()).await?;
        }
        self.append(at_ms, command).await
    }

    async fn append(&self, at_ms: u64, command: Vec<u8>) -> Result<WriteReceipt, LeaderError> {
        let entry = command::LogEntry { at_ms, command };
        let written =
            self.raft.client_write(Payload(entry.encode_to_vec())).await.map_err(|error| match error {
                RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
                    LeaderError::NotLeader(to.leader_id)
                }
                RaftError::APIError(_) => LeaderError::Unknown,
                RaftError::Fatal(fatal) => LeaderError::Stopped(fatal.to_string()),
            })?;
        super::audit::tell(&written.data.events, &self.view.load(), written.log_id.index);
        let reply = written.data.reply.ok_or(LeaderError::Unknown)?;
        Ok(WriteReceipt {
            reply,
            index: written.log_id.index,
            term: written.log_id.committed_leader_id().term,
            revokes: written.data.revokes,
        })
    }

    /// ReadIndex: the index that a read which starts now must have seen, confirmed by a fresh round to a quorum. Never
    /// a lease (docs/design/consensus.md: a stale lease read was reproduced on this version of openraft).
    ///
    /// # Errors
    /// [`LeaderError`].
    pub(crate) async fn read_index(&self) -> Result<u64, LeaderError> {
        let reading = self.raft.get_read_linearizer(read_policy());
        let read = tokio::time::timeout(READ_LIMIT, reading).await.map_err(|_| LeaderError::NoQuorum)?;
        let linearizer = read.map_err(|error| match error {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(to)) => {
                LeaderError::NotLeader(to.leader_id)
            }
            RaftError::APIError(_) => LeaderError::NoQuorum,
            RaftError::Fatal(fatal) => LeaderError::Stopped(fatal.to_string()),
        })?;
        Ok(linearizer.read_log_id().log_id().index)
    }

    /// True if this node is, and always was, the only member of its cluster.
    pub(crate) fn is_alone_since_ever(&self) -> bool {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let founding = metrics.membership_config.log_id().is_some_and(|id| id.index == 0);
        founding && metrics.membership_config.nodes().count() == 1
    }

    /// True if the newest configuration here has this member.
    pub(crate) fn has_member(&self, node: NodeId) -> bool {
        self.raft.metrics().borrow_watched().membership_config.nodes().any(|(id, _)| *id == node)
    }

    /// True if this node leads with a quorum and knows for certain that there is no such member: the configuration
    /// without it is committed.
    pub(crate) async fn is_certainly_no_member(&self, node: NodeId) -> bool {
        if !self.is_leader() {
            return false;
        }
        let Ok(committed) = self.read_index().await else { return false };
        let metrics = self.raft.metrics();
        let seen = metrics.borrow_watched();
        let configuration = &seen.membership_config;
        configuration.log_id().as_ref().is_some_and(|id| id.index <= committed)
            && configuration.nodes().all(|(id, _)| *id != node)
    }

    /// The members of the configuration in force. Empty before the first entry.
    pub(crate) fn members(&self) -> Vec<(NodeId, Member)> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        metrics.membership_config.nodes().map(|(id, member)| (*id, member.clone())).collect()
    }

    /// Checks that this node can serve: a leader is known, the lag is bounded, and Raft runs.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        metrics.running_state.map_err(|fatal| format!("raft has stopped: {fatal}"))?;
        if metrics.current_leader.is_none() {
            return Err("no leader is known".into());
        }
        let committed = metrics.cluster_committed.or(metrics.local_committed).map_or(0, |id| id.index);
        let lag = committed.saturating_sub(self.view.load().index());
        if lag > READY_LAG {
            return Err(format!("{lag} entries behind"));
        }
        Ok(())
    }

    /// Checks for recent contact: on the leader with a quorum, elsewhere with the leader. openraft goes on naming a
    /// leader that is long dead.
    ///
    /// # Errors
    /// The reason why there is no contact.
    pub(crate) fn contact(&self, identity: &NodeIdentity) -> Result<(), String> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.state != ServerState::Leader {
            let fresh = identity.heard_leader_within(CONTACT);
            return if fresh { Ok(()) } else { Err("no leader has been heard for a while".into()) };
        }
        let alone = metrics.membership_config.membership().voter_ids().count() < 2;
        let fresh = metrics.last_quorum_acked.is_some_and(|at| at.elapsed() <= CONTACT);
        if alone || fresh { Ok(()) } else { Err("no quorum has answered this leader for a while".into()) }
    }

    /// True if a node that had only the current secret could not start from the newest snapshot here.
    pub(crate) fn snapshot_is_under_other_key(&self) -> bool {
        self.snapshots.dir.latest_is_under_other_key(&self.snapshots.key).unwrap_or_else(|error| {
            tracing::warn!(%error, "the newest snapshot cannot be looked at");
            true
        })
    }

    /// This node's status. With `with_digest`, it includes the digest of the state at its applied index.
    pub(crate) async fn status(&self, with_digest: bool) -> pb::NodeStatus {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let state = self.view.load();
        let mut digest = Vec::new();
        if with_digest {
            let hashed = Arc::clone(&state);
            // A million rows take a second to hash, so this must not run on a thread that carries heartbeats.
            let hash = rt::background(move || snapshot::digest(&hashed)).await;
            digest = hash.map(|hash| hash.to_vec()).unwrap_or_default();
        }
        let uptime = self.runtime.clock.monotonic().saturating_sub(self.started);
        pb::NodeStatus {
            node_id: metrics.id,
            version: env!("CARGO_PKG_VERSION").into(),
            role: format!("{:?}", metrics.state).to_lowercase(),
            term: metrics.current_term,
            leader_id: metrics.current_leader.unwrap_or(0),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index: state.index(),
            snapshot_index: metrics.snapshot.map_or(0, |id| id.index),
            digest,
            log_bytes: self.log_bytes_after(metrics.purged.map_or(0, |id| id.index)),
            uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
            ready: self.readiness().is_ok(),
            archive: self.archive.status(),
            disk_free_bytes: free_bytes(self.snapshots.dir.path()),
            secret_ids: self.snapshots.key.secret_ids().map(|id| id.to_vec()).collect(),
            snapshot_under_other_key: self.snapshot_is_under_other_key(),
            feature_level: level::SUPPORTED,
            clock: Some(self.clock.status()),
            ..pb::NodeStatus::default()
        }
    }
}

/// Always a fresh round, except in a simulation that demonstrates the effect of a lease read.
fn read_policy() -> ReadPolicy {
    if rt::injected_faults().grants == rt::GrantFault::LeaseRead {
        return ReadPolicy::LeaseRead;
    }
    ReadPolicy::ReadIndex
}

/// Free bytes on the disk under this path; 0 if the machine does not report them.
pub(super) fn free_bytes(path: &std::path::Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}
