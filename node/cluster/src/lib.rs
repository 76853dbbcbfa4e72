//! **The cluster**: the only room that names openraft. Everybody else holds a [`Cluster`] and sees three things: the
//! state ([`Cluster::view`], [`Cluster::view_at`]), writes ([`Cluster::propose`]) and the cluster's health.
//!
//! | file | owns |
//! |---|---|
//! | `types`, `wire` | Raft's types, and our protobuf for them |
//! | `log_store`, `machine` | Raft's storage over the store room, the replicated state |
//! | `identity`, `bootstrap` | who this node is, whom it lets speak, how a cluster is founded |
//! | `transport`, `line`, `peers`, `network`, `service`, `snapshot_in` | the cluster plane: mTLS, channels, way out, way in |
//! | `failover`, `handover` | another leader at once: when its process dies, when it stops in order |
//! | `lease` | the right to accept without asking, and until when a revocation waits |
//! | `clock` | one time for all nodes, and the stamps of log entries |
//! | `leader`, `propose`, `read` | writes and reads: as leader, from any node |
//! | `save` | a snapshot for somebody else |
//! | `known`, `refound` | what is left of a cluster when nothing of it runs; a new life from it |
//! | `consensus` | the runtime of all this, and its end |
//! | `membership`, `join` | members come and go |
//! | `readiness`, `settings`, `disk`, `problems` | whether this node and the cluster can serve, and why not |
//! | `contact` | a node out of contact: what it says, whom it finds, whether it was removed |
//! | `levels` | the feature level rises when every member understands it |
//! | `vantage` | a second look at the network from another node |
//! | `janitor` | sweeps, snapshots, the member list |
//! | `archival` | what an archive of the log needs: its entries, room for them, a place for its word |
//!
//! Consensus has a tokio runtime of its own: no page and no password hash can hold up a heartbeat. Everything that
//! talks to peers runs there.

mod archival;
mod audit;
mod bootstrap;
mod clock;
mod consensus;
mod contact;
mod disk;
mod failover;
mod handover;
mod identity;
mod janitor;
pub mod join;
pub mod known;
mod leader;
mod lease;
mod levels;
mod line;
pub mod log_store;
mod machine;
mod membership;
mod network;
mod peers;
mod problems;
mod propose;
mod read;
mod readiness;
pub mod refound;
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
mod vantage;
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

pub use bootstrap::{BootstrapError, Peer};
pub use clock::{ClockTrouble, ClusterClock};
pub use identity::Lineage;
pub use lease::Checks;
pub use log_store::command_entry;
pub use membership::MembershipError;
pub use problems::problems;
pub use propose::{Committed, ProposeError};
pub use read::ViewError;
pub use save::{SaveError, SavedSnapshot, Upload};
pub use start::{ClusterOptions, StartError};
pub use transport::Plane;
pub use vantage::{Occasion, SeenElsewhere, Vantage};

use conclave_state::ids::RequestId;
use tokio::sync::watch;

use conclave_store::StoreError;
use consensus::{Consensus, Released, Running};
use leader::Leader;
use lease::Leases;
use membership::Membership;
use peers::{Lane, Peers};
use propose::Proposer;
use readiness::Readiness;
pub use types::NodeId;

/// How long the status of a member is waited for.
const STATUS_LIMIT: Duration = Duration::from_secs(2);
/// The same when it hashes its state first: some seconds for a million people, beside everything else.
const DIGEST_LIMIT: Duration = Duration::from_secs(10);

/// How long a change of the members may take: two writes, and the time of a transfer.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// The pause before the next leader is asked.
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
    /// Why the peers will not have this node, once they have said so.
    conflict: Arc<OnceLock<String>>,
    /// The lock of the data directory is kept by the log; this tells when it is gone.
    released: Released,
    /// Which secret the data directory is of.
    secret_mark: Mutex<conclave_store::data_dir::SecretMark>,
}

/// A member and what it says of itself, or why it says nothing.
#[derive(Debug)]
pub struct MemberStatus {
    pub node: NodeId,
    pub cluster_addr: String,
    pub api_url: String,
    pub status: Result<pb::NodeStatus, String>,
}

impl Cluster {
    /// The time that everything on this node is judged by: the same on all nodes, whatever the clock of this machine
    /// says.
    pub fn clock(&self) -> Arc<ClusterClock> {
        Arc::clone(self.inner.leader.clock())
    }

    /// The state as this node has it now.
    pub fn view(&self) -> Arc<State> {
        self.inner.leader.view().load()
    }

    /// A version of the state that has seen `index`: waits a moment, then asks the leader.
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

    /// A version on which a check may be decided, and accepted: it has seen `index`, and every revocation that was
    /// acknowledged before this call (design.md P3). Under a lease this asks nobody; else the leader, and through it a
    /// quorum.
    ///
    /// # Errors
    /// [`ViewError`]: then nothing may be accepted.
    pub async fn serving_view(&self, index: u64) -> Result<Arc<State>, ViewError> {
        if let Some(state) = self.covered_view().filter(|state| state.index() >= index) {
            return Ok(state);
        }
        let inner = Arc::clone(&self.inner);
        let reading = async move { read::serving(&inner.leader, &inner.peers, &inner.leases, index).await };
        self.on_consensus(reading).await.unwrap_or(Err(ViewError::Behind))
    }

    /// The same, where it is to be had without asking anybody.
    pub fn covered_view(&self) -> Option<Arc<State>> {
        let state = self.view();
        // The lease after the state: it must cover what is decided on.
        (self.inner.leader.clock().is_sure() && self.inner.leases.covers(&state)).then_some(state)
    }

    /// What this node knew when it could last be sure, if that is no longer ago than `limit`: for applications that
    /// would rather be served from it than not at all while the cluster is out of reach. Revocations since then are not
    /// in it.
    pub fn known_view(&self, limit: Duration) -> Option<Arc<State>> {
        let state = self.view();
        let is_sure = self.inner.leader.clock().is_sure();
        (is_sure && self.inner.leases.covered_within(limit, &state)).then_some(state)
    }

    /// A version that has seen everything acknowledged before this call, confirmed by the leader: held across an
    /// election, as writes are. None when it cannot be had in time.
    pub async fn confirmed_view(&self) -> Option<Arc<State>> {
        let inner = Arc::clone(&self.inner);
        let asking = async move { read::confirmed(&inner.leader, &inner.peers).await };
        self.on_consensus(asking).await.flatten()
    }

    /// Has the command applied, whoever leads. The same `request` again gives the same answer.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose(&self, request: RequestId, body: Body) -> Result<Committed, ProposeError> {
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

    /// The name of the secret that the data directory is of.
    pub fn secret_of_data(&self) -> [u8; 16] {
        self.inner.secret_mark.lock().unwrap_or_else(PoisonError::into_inner).secret_check()
    }

    /// From here on the data directory is one of the secret with this name.
    ///
    /// # Errors
    /// When it cannot be written; it is then as it was.
    pub fn settle_secret_of_data(&self, secret_check: [u8; 16]) -> Result<(), StoreError> {
        self.inner.secret_mark.lock().unwrap_or_else(PoisonError::into_inner).settle(secret_check)
    }

    /// Which cluster, and which of its lives.
    pub fn lineage(&self) -> Lineage {
        self.inner.lineage
    }

    /// This node's number.
    pub fn node_id(&self) -> NodeId {
        self.inner.peers.identity.node
    }

    /// Who leads, as far as this node knows.
    pub fn leader_id(&self) -> Option<NodeId> {
        self.inner.leader.leader_id()
    }

    /// Whether this node leads.
    pub fn is_leader(&self) -> bool {
        self.inner.leader.is_leader()
    }

    /// How many voters there are; at least one.
    pub fn member_count(&self) -> usize {
        self.inner.peers.identity.members().len().max(1)
    }

    /// The admin API of the node that leads, for hints to clients.
    pub fn leader_api_url(&self) -> Option<String> {
        let leader = self.leader_id()?;
        let members = self.inner.peers.identity.members();
        members.into_iter().find(|(id, _)| *id == leader).map(|(_, member)| member.api_url)
    }

    /// Whether this node can serve.
    ///
    /// # Errors
    /// The reason why not.
    pub fn readiness(&self) -> Result<(), String> {
        self.inner.readiness.reasons().into_iter().next().map_or(Ok(()), Err)
    }

    /// Every reason why this node cannot serve, the gravest first; none if it can.
    pub fn not_ready_because(&self) -> Vec<String> {
        self.inner.readiness.reasons()
    }

    /// Resolves when Raft or the log has stopped on this node, with the reason. The process must end then.
    pub async fn stopped(&self) -> String {
        let reason = tokio::select! {
            reason = log_failed(self.inner.log_failure.clone()) => reason,
            reason = self.raft_stopped() => reason,
        };
        // Raft stops on a log that failed, and may be heard of first: what happened to the disk says more.
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
                return "raft is gone".into();
            }
        }
    }

    /// This node's own status, without the digest.
    pub async fn own_status(&self) -> pb::NodeStatus {
        let inner = Arc::clone(&self.inner);
        let telling = async move { inner.readiness.status(false).await };
        self.on_consensus(telling).await.unwrap_or_default()
    }

    /// Every member's status, asked of each, without digests.
    pub async fn member_statuses(&self) -> Vec<MemberStatus> {
        self.ask_members(false).await
    }

    /// The same with the digest of each one's state, which each makes anew: for people who look, not for what looks
    /// every minute.
    pub async fn member_statuses_with_digests(&self) -> Vec<MemberStatus> {
        self.ask_members(true).await
    }

    async fn ask_members(&self, with_digest: bool) -> Vec<MemberStatus> {
        let inner = Arc::clone(&self.inner);
        let asking = async move { inner.member_statuses(with_digest).await };
        self.on_consensus(asking).await.unwrap_or_default()
    }

    /// What this node sees of the network, for itself and for others. The first one counts.
    pub fn look_out_with(&self, vantage: Arc<dyn Vantage>) {
        self.inner.peers.window.open(vantage);
    }

    /// The handle of this DID as another node sees it.
    pub async fn seen_elsewhere(&self, did: &str, occasion: Occasion) -> SeenElsewhere {
        let (inner, did) = (Arc::clone(&self.inner), did.to_owned());
        let span = tracing::Span::current();
        let asking = async move { inner.seen_elsewhere(&did, occasion).await };
        self.on_consensus(tracing::Instrument::instrument(asking, span))
            .await
            .unwrap_or(SeenElsewhere::Unknown)
    }

    /// Gives the lead to the most caught-up voter that is there, if this node has it. Returns when another leads, or
    /// nobody could take it; either way this node may stop.
    pub async fn hand_over(&self) {
        let inner = Arc::clone(&self.inner);
        let handing = async move {
            handover::give_away(&inner.leader, &inner.leases, |_| true).await;
        };
        self.on_consensus(handing).await;
    }

    /// Changes the members or the leader, whoever leads. Returns the leader afterwards.
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

    /// Stops everything of this node where it stands, as a crash would; what was queued for the disk is still written.
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

/// Resolves at the log's first error; never when it closes in peace.
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
    /// Here, if this node leads; else at the leader. One that has just handed over is followed to the next.
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
                // Decided anew on what has become of the members meanwhile.
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
            .client(Some(leader), &member.cluster_addr, Lane::Control)
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
        let mut client = self.peers.client(Some(node), addr, Lane::Control).map_err(|e| e.to_string())?;
        let request = pb::StatusRequest { envelope: Some(self.peers.identity.envelope(node)), with_digest };
        let limit = if with_digest { DIGEST_LIMIT } else { STATUS_LIMIT };
        match tokio::time::timeout(limit, client.status(request)).await {
            Ok(Ok(status)) => Ok(status.into_inner()),
            Ok(Err(status)) => Err(peers::explain_status(&status)),
            Err(_) => Err("no answer".into()),
        }
    }
}
