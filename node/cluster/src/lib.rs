//! **The cluster**: the only room that names openraft. Other rooms hold a [`Cluster`] and see three things: the state
//! ([`Cluster::view`], [`Cluster::view_at`]), writes ([`Cluster::propose`]) and the cluster's health.
//!
//! | file | owns |
//! |---|---|
//! | `types`, `wire` | Raft's types, and our protobuf for them |
//! | `log_store`, `machine` | Raft's storage over the store room, the replicated state |
//! | `identity`, `bootstrap` | the identity of this node, the admission of messages, the founding of a cluster |
//! | `transport`, `peer_connection`, `peers`, `network`, `service`, `snapshot_in` | the cluster plane: mTLS, channels, outgoing and incoming messages |
//! | `failover`, `leader_transfer` | another leader at once: when its process dies, when it stops in order |
//! | `lease` | the right to accept a check without asking, and the time until which a revocation waits |
//! | `clock` | one time for all nodes, and the stamps of log entries |
//! | `leader`, `propose`, `read` | writes and reads: as leader, from any node |
//! | `save` | snapshots for download and for the archive |
//! | `offline_state`, `lineage` | cluster state read offline, and a new lineage founded from it |
//! | `consensus` | the runtime of all this, and its end |
//! | `membership`, `join` | members join and are removed |
//! | `readiness`, `settings`, `disk`, `problems` | the ability of this node and of the cluster to serve, and the reasons if not |
//! | `contact` | a node out of contact: its logs, finding moved members, checking if it was removed |
//! | `levels` | the feature level rises when every member understands it |
//! | `handle_resolver` | the resolution of a handle on another node |
//! | `janitor` | sweeps, snapshots, the member list |
//! | `archival` | the archive's interface: log entries, retention, and its status |
//!
//! Consensus has a tokio runtime of its own, so that no page and no password hash can delay a heartbeat. Everything
//! that talks to peers runs there.

mod archival;
mod audit;
mod bootstrap;
mod clock;
mod consensus;
mod contact;
mod disk;
mod failover;
mod handle_resolver;
mod identity;
mod janitor;
pub mod join;
mod leader;
mod leader_transfer;
mod lease;
mod levels;
pub mod lineage;
pub mod log_store;
mod machine;
mod membership;
mod network;
pub mod offline_state;
mod peer_connection;
mod peers;
mod problems;
mod propose;
mod read;
mod readiness;
mod rt;
mod save;
mod service;
mod settings;
mod snapshot_in;
mod start;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
pub mod types;
mod wire;

use std::{
    future::Future,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use conclave_proto::{
    cluster::v1 as pb,
    command::v1::{Command, command::Body},
};
use conclave_state::State;

pub use bootstrap::{BootstrapError, BootstrapPeer};
pub use clock::{ClockTrouble, ClusterClock};
pub use handle_resolver::{HandleResolver, RemoteView, VerificationReason};
pub use identity::Lineage;
pub use lease::CheckMode;
pub use log_store::command_entry;
pub use membership::MembershipError;
pub use problems::problems;
pub use propose::{CommittedWrite, ProposeError};
pub use read::ViewError;
pub use save::{SaveError, SavedSnapshot, Upload};
pub use start::{ClusterOptions, ElectionPace, StartError};
pub use transport::Plane;

use conclave_state::ids::RequestId;
use tokio::sync::watch;

use conclave_store::StoreError;
use consensus::{Consensus, Released, Running};
use leader::Leader;
use lease::Leases;
use membership::Membership;
use peers::{ChannelKind, Peers};
use propose::Proposer;
use readiness::Readiness;
pub use types::NodeId;

/// The time limit of a member's status.
const STATUS_LIMIT: Duration = Duration::from_secs(2);
/// The time limit of a member's status with a digest of its state: some seconds for a million users, beside all other
/// work.
const DIGEST_LIMIT: Duration = Duration::from_secs(10);

/// The time limit of a change of the members: two writes, and the time of a transfer.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// The pause before the next leader is tried.
const CHANGE_PAUSE: Duration = Duration::from_millis(20);

/// A change of the members or of the leader.
pub use pb::change_members_request::Change as MembersChange;

/// This node's part in its cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    leader: Leader,
    leases: Leases,
    peers: Arc<Peers>,
    proposer: Proposer,
    membership: Membership,
    lineage: Lineage,
    consensus: Consensus,
    readiness: Readiness,
    log_failure: watch::Receiver<Option<StoreError>>,
    /// Set when the peers reject this node; holds their reason.
    conflict: Arc<OnceLock<String>>,
    /// The log keeps the lock of the data directory; this resolves when the lock is released.
    released: Released,
    /// The mark of the secret that the data directory was made with.
    secret_mark: Mutex<conclave_store::data_dir::SecretMark>,
}

/// A member and the status that it reported, or the reason why it did not.
#[derive(Debug)]
pub struct MemberStatus {
    pub node: NodeId,
    pub cluster_addr: String,
    pub api_url: String,
    pub status: Result<pb::NodeStatus, String>,
}

impl Cluster {
    /// The time by which everything on this node is judged. It is equal on all nodes, whatever the clock of this
    /// machine shows.
    pub fn clock(&self) -> Arc<ClusterClock> {
        Arc::clone(self.inner.leader.clock())
    }

    /// The current state on this node.
    pub fn view(&self) -> Arc<State> {
        self.inner.leader.view().load()
    }

    /// Returns a version of the state that has seen `index`: waits a moment, then asks the leader.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn view_at(&self, index: u64) -> Result<Arc<State>, ViewError> {
        let current = self.view();
        if current.index() >= index {
            return Ok(current);
        }
        let inner = Arc::clone(&self.inner);
        let reading = async move { read::view_at(&inner.leader, &inner.peers, index).await };
        self.on_consensus(reading).await.unwrap_or(Err(ViewError::Behind))
    }

    /// Returns a version on which a check may be decided and accepted: it has seen `index`, and every revocation that
    /// was acknowledged before this call (docs/design/README.md, P3). Under a lease no other node is contacted;
    /// otherwise the leader is, and through it a quorum.
    ///
    /// # Errors
    /// [`ViewError`]; then nothing may be accepted.
    pub async fn serving_view(&self, index: u64) -> Result<Arc<State>, ViewError> {
        if let Some(state) = self.covered_view().filter(|state| state.index() >= index) {
            return Ok(state);
        }
        let inner = Arc::clone(&self.inner);
        let reading = async move { read::serving(&inner.leader, &inner.peers, &inner.leases, index).await };
        self.on_consensus(reading).await.unwrap_or(Err(ViewError::Behind))
    }

    /// Like [`Self::serving_view`] without an index, but returns `None` instead of contacting the leader.
    pub fn covered_view(&self) -> Option<Arc<State>> {
        let state = self.view();
        // The lease is read after the state: it must cover the version that the decision is made on.
        (self.inner.leader.clock().is_sure() && self.inner.leases.covers(&state)).then_some(state)
    }

    /// The state that this node had when it was last sure of it, if that was at most `limit` ago. For
    /// applications that prefer it to no answer while the cluster cannot be reached. It lacks the revocations since
    /// then.
    pub fn known_view(&self, limit: Duration) -> Option<Arc<State>> {
        let state = self.view();
        let is_sure = self.inner.leader.clock().is_sure();
        (is_sure && self.inner.leases.covered_within(limit, &state)).then_some(state)
    }

    /// Returns a version that has seen everything acknowledged before this call, confirmed by the leader. Held across
    /// an election, as writes are. Returns `None` if it cannot be had in time.
    pub async fn confirmed_view(&self) -> Option<Arc<State>> {
        let inner = Arc::clone(&self.inner);
        let asking = async move { read::confirmed(&inner.leader, &inner.peers).await };
        self.on_consensus(asking).await.flatten()
    }

    /// Has the current leader apply the command. A repeated `request` id gets the first reply again.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose(&self, request: RequestId, body: Body) -> Result<CommittedWrite, ProposeError> {
        let clock = self.inner.leader.clock();
        if !clock.is_sure() && ClusterClock::depends_on_time(&body) {
            let why = clock.trouble().map(|trouble| trouble.to_string()).unwrap_or_default();
            return Err(ProposeError::Clock(why));
        }
        let proposer = self.inner.proposer.clone();
        let command = Command { request_id: request.to_vec(), body: Some(body) };
        let span = tracing::Span::current();
        let proposing = async move { proposer.propose(&command).await };
        self.on_consensus(tracing::Instrument::instrument(proposing, span))
            .await
            .unwrap_or(Err(ProposeError::Unknown))
    }

    /// The name of the secret that the data directory was made with.
    pub fn secret_of_data(&self) -> [u8; 16] {
        self.inner.secret_mark.lock().unwrap_or_else(PoisonError::into_inner).secret_check()
    }

    /// Records this secret name as that of the data directory.
    ///
    /// # Errors
    /// An error if it cannot be written; the directory then keeps its earlier name.
    pub fn record_secret_id(&self, secret_check: [u8; 16]) -> Result<(), StoreError> {
        self.inner.secret_mark.lock().unwrap_or_else(PoisonError::into_inner).record_secret_id(secret_check)
    }

    /// The cluster id and lineage epoch.
    pub fn lineage(&self) -> Lineage {
        self.inner.lineage
    }

    /// This node's number.
    pub fn node_id(&self) -> NodeId {
        self.inner.peers.identity.node
    }

    /// The current leader, as far as this node knows.
    pub fn leader_id(&self) -> Option<NodeId> {
        self.inner.leader.leader_id()
    }

    /// True if this node leads.
    pub fn is_leader(&self) -> bool {
        self.inner.leader.is_leader()
    }

    /// The number of voters; at least one.
    pub fn member_count(&self) -> usize {
        self.inner.peers.identity.members().len().max(1)
    }

    /// The admin API URL of the leader, for hints to clients.
    pub fn leader_api_url(&self) -> Option<String> {
        let leader = self.leader_id()?;
        let members = self.inner.peers.identity.members();
        members.into_iter().find(|(id, _)| *id == leader).map(|(_, member)| member.api_url)
    }

    /// Checks that this node can serve.
    ///
    /// # Errors
    /// The gravest reason why it cannot.
    pub fn readiness(&self) -> Result<(), String> {
        self.inner.readiness.reasons().into_iter().next().map_or(Ok(()), Err)
    }

    /// Every reason why this node cannot serve, the gravest first. Empty if it can.
    pub fn not_ready_because(&self) -> Vec<String> {
        self.inner.readiness.reasons()
    }

    /// Resolves when Raft or the log has stopped on this node, with the reason. The process must end then.
    pub async fn stopped(&self) -> String {
        let reason = tokio::select! {
            reason = log_failed(self.inner.log_failure.clone()) => reason,
            reason = self.raft_stopped() => reason,
        };
        // Raft stops on a log that failed, and its stop may be seen first. The error of the disk says more.
        let reason = log_failure(self.inner.log_failure.borrow().as_ref()).unwrap_or(reason);
        self.inner.conflict.get().cloned().unwrap_or(reason)
    }

    async fn raft_stopped(&self) -> String {
        let mut metrics = self.inner.leader.raft().metrics();
        loop {
            let state =
                openraft::async_runtime::WatchReceiver::borrow_watched(&metrics).running_state.clone();
            if let Err(fatal) = state {
                return fatal.to_string();
            }
            if openraft::async_runtime::WatchReceiver::changed(&mut metrics).await.is_err() {
                return "raft has stopped".into();
            }
        }
    }

    /// This node's own status, without the digest.
    pub async fn own_status(&self) -> pb::NodeStatus {
        let inner = Arc::clone(&self.inner);
        let telling = async move { inner.readiness.status(false).await };
        self.on_consensus(telling).await.unwrap_or_default()
    }

    /// Requests every member's status, without digests.
    pub async fn member_statuses(&self) -> Vec<MemberStatus> {
        self.ask_members(false).await
    }

    /// Like [`Self::member_statuses`], with state digests. Each member hashes its whole state: for interactive use, not
    /// for polling.
    pub async fn member_statuses_with_digests(&self) -> Vec<MemberStatus> {
        self.ask_members(true).await
    }

    async fn ask_members(&self, with_digest: bool) -> Vec<MemberStatus> {
        let inner = Arc::clone(&self.inner);
        let asking = async move { inner.member_statuses(with_digest).await };
        self.on_consensus(asking).await.unwrap_or_default()
    }

    /// Registers this node's handle resolver. Later calls are ignored.
    pub fn set_resolver(&self, resolver: Arc<dyn HandleResolver>) {
        self.inner.peers.resolver.set(resolver);
    }

    /// Resolves the handle of this DID on another node.
    pub async fn resolve_on_peer(&self, did: &str, reason: VerificationReason) -> RemoteView {
        let (inner, did) = (Arc::clone(&self.inner), did.to_owned());
        let span = tracing::Span::current();
        let asking = async move { inner.resolve_on_peer(&did, reason).await };
        self.on_consensus(tracing::Instrument::instrument(asking, span)).await.unwrap_or(RemoteView::Unknown)
    }

    /// Transfers the lead to the most caught-up reachable voter, if this node leads. Returns when another node leads,
    /// or when no voter could take over. In both cases this node may stop.
    pub async fn transfer_leadership(&self) {
        let inner = Arc::clone(&self.inner);
        let handing = async move {
            leader_transfer::step_down(&inner.leader, &inner.leases, |_| true).await;
        };
        self.on_consensus(handing).await;
    }

    /// Changes the members or the leader, whichever node leads. Returns the leader afterwards.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn change_members(&self, change: MembersChange) -> Result<Option<NodeId>, MembershipError> {
        let inner = Arc::clone(&self.inner);
        let changing = async move { inner.change_members(change).await };
        self.on_consensus(changing).await.unwrap_or(Err(MembershipError::Outcome))
    }

    /// Stops Raft on this node, and then everything else of it. The data directory may be opened again afterwards.
    pub async fn shutdown(&self) {
        let leases = self.inner.leases.clone();
        self.on_consensus(async move { leases.stop().await }).await;
        let raft = self.inner.leader.raft().clone();
        let stopping = async move { raft.shutdown().await };
        if let Some(Err(error)) = self.on_consensus(stopping).await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        self.halt().await;
    }

    /// Stops everything of this node immediately, as a crash would. Writes that are queued for the disk are still
    /// written.
    pub async fn halt(&self) {
        self.inner.consensus.end().await;
        if !self.inner.released.clone().wait().await {
            tracing::warn!("the data directory is still in use after the end of this node");
        }
    }

    fn on_consensus<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Running<T> {
        self.inner.consensus.run(work)
    }
}

/// Resolves at the log's first error; never if the log closes without one.
async fn log_failed(mut failure: watch::Receiver<Option<StoreError>>) -> String {
    if let Ok(failed) = failure.wait_for(Option::is_some).await
        && let Some(reason) = log_failure(failed.as_ref())
    {
        return reason;
    }
    std::future::pending().await
}

fn log_failure(failed: Option<&StoreError>) -> Option<String> {
    failed.map(|error| format!("the log failed: {error}"))
}

impl Inner {
    /// Makes the change here if this node leads, otherwise at the leader. If the leader has just changed, the new one
    /// is tried.
    async fn change_members(&self, change: MembersChange) -> Result<Option<NodeId>, MembershipError> {
        let deadline = tokio::time::Instant::now() + propose::HOLD;
        loop {
            let outcome = match self.leader.leader_id() {
                Some(id) if id == self.peers.identity.node => {
                    service::change_members(&self.membership, change).await
                }
                Some(id) => self.ask_for_change(id, change).await,
                None => Err(MembershipError::NotLeader(None)),
            };
            match outcome {
                // Decided again on the members as they are by then.
                Err(MembershipError::NotLeader(_) | MembershipError::Busy)
                    if tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(CHANGE_PAUSE).await;
                }
                Err(MembershipError::NotLeader(_)) => {
                    return Err(MembershipError::Unavailable("there is no leader".into()));
                }
                outcome => return outcome,
            }
        }
    }

    async fn ask_for_change(
        &self,
        leader: NodeId,
        change: MembersChange,
    ) -> Result<Option<NodeId>, MembershipError> {
        let unavailable = |why: String| MembershipError::Unavailable(why);
        let members = self.peers.identity.members();
        let member = members.into_iter().find(|(id, _)| *id == leader);
        let (_, member) = member.ok_or(MembershipError::NotLeader(None))?;
        let mut client = self
            .peers
            .client(Some(leader), &member.cluster_addr, ChannelKind::Control)
            .map_err(|e| unavailable(e.to_string()))?;
        let envelope = Some(self.peers.identity.envelope(leader));
        let request = pb::ChangeMembersRequest { envelope, change: Some(change) };
        match tokio::time::timeout(CHANGE_LIMIT, client.change_members(request)).await {
            Ok(Ok(reply)) => Ok(Some(reply.into_inner().leader_id).filter(|id| *id != 0)),
            Ok(Err(status)) => Err(service::membership_error(&status)),
            Err(_) => Err(MembershipError::Outcome),
        }
    }

    async fn member_statuses(&self, with_digest: bool) -> Vec<MemberStatus> {
        let members = self.peers.identity.members();
        let asking = members.into_iter().map(|(node, member)| async move {
            let status = self.status_of(node, &member.cluster_addr, with_digest).await;
            MemberStatus { node, cluster_addr: member.cluster_addr, api_url: member.api_url, status }
        });
        futures_util::future::join_all(asking).await
    }

    async fn status_of(&self, node: NodeId, addr: &str, with_digest: bool) -> Result<pb::NodeStatus, String> {
        if node == self.peers.identity.node {
            return Ok(self.readiness.status(with_digest).await);
        }
        let mut client =
            self.peers.client(Some(node), addr, ChannelKind::Control).map_err(|e| e.to_string())?;
        let request = pb::StatusRequest { envelope: Some(self.peers.identity.envelope(node)), with_digest };
        let limit = if with_digest { DIGEST_LIMIT } else { STATUS_LIMIT };
        match tokio::time::timeout(limit, client.status(request)).await {
            Ok(Ok(status)) => Ok(status.into_inner()),
            Ok(Err(status)) => Err(peers::explain_status(&status)),
            Err(_) => Err("no answer".into()),
        }
    }
}
