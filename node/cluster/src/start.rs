//! Starts this node's part of the cluster: checks the data directory, listens, finds the roster, runs Raft, and
//! initialises it once.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, atomic::AtomicBool},
};

use conclave_proto::cluster::v1::cluster_service_server::ClusterServiceServer;
use openraft::{
    Config as RaftConfig, SnapshotPolicy,
    errors::{InitializeError, RaftError},
};
use tokio::sync::watch;

use conclave_base::runtime::Runtime;
use conclave_crypto::{keys::ClusterKeys, tls::ClusterTls};
use conclave_store::{
    self, DataDir, LogWriter, SledLog, StoreError,
    data_dir::SecretMark,
    snapshot::{SealingKey, SnapshotDir},
};

use super::{
    Cluster, Inner,
    bootstrap::{self, BootstrapError, BootstrapPeer, Roster},
    clock::{self, ClusterClock},
    consensus::{Consensus, Hold, Released},
    contact::{self, ContactSettings},
    disk, failover,
    identity::{Lineage, NodeIdentity},
    janitor,
    leader::{Leader, Raft},
    lease::{CheckMode, Leases},
    log_store::LogStorage,
    machine::{LocalSnapshots, StateMachine},
    membership::Membership,
    network::Network,
    peers::{MAX_MESSAGE_BYTES, Peers},
    propose::Proposer,
    read,
    readiness::Readiness,
    service::Service,
    settings::{self, SharedSettings},
    transport::{InboundReceiver, Plane},
    types::{Member, NodeId},
};

/// Streams that peers may have reset before we accept them. After a stop of seconds there are hundreds of heartbeats,
/// and the default of twenty would end every connection just when the node is back.
const MAX_ABANDONED: usize = 1_024;

/// The inputs of this node's part.
pub struct ClusterOptions {
    pub node: NodeId,
    pub data_dir: PathBuf,
    /// The cluster plane, already bound.
    pub plane: Plane,
    /// The address at which the others find it.
    pub advertise: String,
    /// The URL at which clients find this node's admin API.
    pub api_url: String,
    /// All voters, including this node; empty if this node is alone.
    pub peers: Vec<BootstrapPeer>,
    /// True if a running cluster assigned this node's number: it founds no cluster.
    pub joined: bool,
    /// The way checks are decided.
    pub checks: CheckMode,
    /// The URL of the whole cluster, sent to nodes that join.
    pub public_url: String,
    /// Settings that must be equal on all nodes, by name, in a canonical form; empty = nothing is compared.
    pub settings: Vec<(String, String)>,
    /// Possible addresses of members, whatever the log of this node says.
    pub hints: Vec<String>,
    pub pace: ElectionPace,
    pub keys: Arc<ClusterKeys>,
    pub runtime: Runtime,
}

/// The time after which a silent leader is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ElectionPace {
    /// 150 to 300 ms (docs/design/consensus.md).
    #[default]
    Ordinary,
    /// 1.5 to 3 s: for tests that run three nodes of a debug build in one process and are not about failover. On a busy
    /// machine such nodes would depose a leader that only waits for the processor.
    Patient,
}

impl ClusterOptions {
    /// True if this node is likely to found the cluster: its disk is empty, and it is the first of its peers. This is a
    /// guess, for preparations that may be in vain; [`Cluster::start`] asks the peers.
    pub fn may_found(&self) -> bool {
        !self.joined
            && DataDir::is_fresh(&self.data_dir)
            && self.peers.iter().all(|peer| self.node <= peer.node)
    }
}

/// The reason why this node cannot take part. It is reported to the operator, and the process ends.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the data directory belongs to node {found}, but the configuration says node {meant}; correct `node.id` or \
         `node.data_dir`"
    )]
    OtherNode { found: NodeId, meant: NodeId },
    #[error(
        "the data directory was made with another cluster secret; bring back the secret that it was made with, or give this \
         node an empty data directory"
    )]
    OtherSecret,
    #[error(
        "node {node} joined a running cluster (`cluster.joined`), but its data directory is empty. A wiped disk cannot come back \
         under its old number: bring back its data directory, or give the cluster a new member in its place: `conclave cluster \
         remove {node}` there, and on this machine `conclave cluster join ADDRESS`"
    )]
    Wiped { node: NodeId },
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error("the snapshots cannot be read: {0}")]
    Snapshots(String),
    #[error("the cluster plane cannot be set up: {0}")]
    Plane(String),
    #[error("raft cannot start: {0}")]
    Raft(String),
}

/// Raft's timing and limits (docs/design/consensus.md), in milliseconds.
fn raft_config(pace: ElectionPace) -> Result<Arc<RaftConfig>, StartError> {
    let slower = match pace {
        ElectionPace::Ordinary => 1,
        ElectionPace::Patient => 10,
    };
    let config = RaftConfig {
        cluster_name: "conclave".into(),
        heartbeat_interval: 50 * slower.min(4),
        election_timeout_min: 150 * slower,
        election_timeout_max: 300 * slower,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(600 * slower),
        heartbeat_min_interval: Some(0),
        // Allows a snapshot of a million users within a slow minute.
        install_snapshot_timeout: 60_000,
        // The janitor takes and purges snapshots, by bytes.
        snapshot_policy: SnapshotPolicy::Never,
        // openraft's own purge looks at the newest snapshot alone; the log must reach back to the older one as well.
        max_in_snapshot_log_to_keep: u64::MAX,
        ..RaftConfig::default()
    };
    Ok(Arc::new(config.validate().map_err(|e| StartError::Raft(e.to_string()))?))
}

impl Cluster {
    /// Starts this node's part and returns once Raft runs. Waits for the other members when the cluster is being
    /// founded.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(options: ClusterOptions) -> Result<Self, StartError> {
        let open_log =
            |at: &Path, new| LogWriter::start(if new { SledLog::create(at)? } else { SledLog::open(at)? });
        Self::start_over(options, Consensus::start, open_log).await
    }

    /// Like [`Self::start`], on threads and over a log that the caller makes.
    pub(super) async fn start_over(
        options: ClusterOptions,
        threads: impl FnOnce() -> io::Result<Consensus>,
        open_log: impl FnOnce(&Path, bool) -> Result<LogWriter, StoreError> + Send + 'static,
    ) -> Result<Self, StartError> {
        let consensus = threads().map_err(|e| StartError::Raft(e.to_string()))?;
        let parts = match consensus.run(start(options, open_log)).await {
            Some(Ok(parts)) => parts,
            failed => {
                // Everything that was opened is closed before the caller gets the error, so that it can try again.
                consensus.end().await;
                return Err(failed
                    .and_then(Result::err)
                    .unwrap_or_else(|| StartError::Raft("it panicked".into())));
            }
        };
        let Parts { membership, readiness, proposer, lineage, conflict, log_failure, released, secret_mark } =
            parts;
        let Readiness { leader, leases, peers, .. } = readiness.clone();
        let inner = Inner {
            leader,
            leases,
            peers,
            readiness,
            proposer,
            membership,
            lineage,
            consensus,
            log_failure,
            conflict,
            released,
            secret_mark: Mutex::new(secret_mark),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// The parts that run inside the consensus runtime.
struct Parts {
    membership: Membership,
    readiness: Readiness,
    proposer: Proposer,
    lineage: Lineage,
    conflict: Arc<OnceLock<String>>,
    log_failure: watch::Receiver<Option<StoreError>>,
    released: Released,
    secret_mark: SecretMark,
}

async fn start(
    mut options: ClusterOptions,
    open_log: impl FnOnce(&Path, bool) -> Result<LogWriter, StoreError>,
) -> Result<Parts, StartError> {
    let clock = ClusterClock::new(options.node, Arc::clone(&options.runtime.clock));
    // Everything on this node is judged by the time of the cluster.
    options.runtime.clock = Arc::<ClusterClock>::clone(&clock);
    let was_fresh = DataDir::is_fresh(&options.data_dir);
    let (mut data, log) = open_data(&options, open_log)?;
    let stored = data
        .identity()
        .cloned()
        .ok_or_else(|| StartError::Raft("the data directory has no identity".into()))?;
    let lineage = stored.cluster.map(|cluster| Lineage { cluster, epoch: stored.lineage_epoch });
    let identity = Arc::new(NodeIdentity::new(options.node, stored.incarnation, lineage));
    let tls = ClusterTls::new(&options.keys, options.node, &*options.runtime.entropy)
        .map_err(|e| StartError::Plane(e.to_string()))?;
    let (wire, incoming) = options.plane.open(&tls).map_err(|e| StartError::Plane(e.to_string()))?;
    let peers = Arc::new(Peers::new(Arc::clone(&identity), wire));
    let own = Member {
        cluster_addr: options.advertise.clone(),
        api_url: options.api_url.clone(),
        incarnation: stored.incarnation,
    };
    let found = log.initial_state();
    let has_served = found.last_or_purged().is_some();
    let settings = SharedSettings::new(std::mem::take(&mut options.settings)).rolled_out(has_served);
    let settings = Arc::new(settings);
    let service = service(&peers, &own, &clock, &settings, &options.peers, &options.public_url);
    let (raft_cell, membership_cell) = serve(incoming, service);

    // A log without a single entry or vote has never been part of a cluster. A node that joined gets its first entries
    // from the leader, and founds nothing.
    let is_new = !stored.joined && found.last_or_purged().is_none() && found.vote.is_none();
    let roster = if is_new { Some(bootstrap::find_roster(&peers, &own, &options.peers).await) } else { None };
    let roster = match roster.transpose() {
        Ok(roster) => roster,
        Err(refused) => {
            drop(log);
            return Err(refused_at_start(data, was_fresh, refused));
        }
    };
    let lineage = record_lineage(&mut data, &identity, roster.as_ref(), &stored)?;
    let snapshots = open_snapshots(&options.keys, options.runtime.clone(), &data, lineage)?;
    let secret_mark =
        data.secret_mark().ok_or_else(|| StartError::Raft("the data directory has no identity".into()))?;
    let (hold, released) = Hold::new(data);
    let storage = LogStorage::new(log).map_err(|e| StartError::Raft(e.to_string()))?.guarded_by(hold);
    let (log_failure, commits) = (storage.failure(), storage.commits());
    let leader = run_raft(options.node, Arc::clone(&peers), storage, snapshots, clock, options.pace).await?;
    if let Some(roster) = roster {
        identity.learn_members(roster.members.clone().into_iter().collect());
        if roster.initialises {
            initialise(leader.raft(), roster).await?;
        }
    }
    // Set once, here.
    let leases = Leases::new(leader.clone(), Arc::clone(&peers), options.runtime.clone(), options.checks);
    let caught_up = Arc::new(AtomicBool::new(false));
    let readiness = Readiness {
        leader: leader.clone(),
        leases: leases.clone(),
        peers: Arc::clone(&peers),
        caught_up: Arc::clone(&caught_up),
        settings: Arc::clone(&settings),
        disk: Arc::default(),
    };
    let _ = raft_cell.set(readiness.clone());
    leases.start();
    tokio::spawn(disk::run(Arc::clone(&readiness.disk), commits, leader.clone(), leases.clone()));
    tokio::spawn(settings::run(Arc::clone(&settings), Arc::clone(&peers)));
    tokio::spawn(clock::run(leader.clone(), leases.clone(), Arc::clone(&peers), settings));
    tokio::spawn(failover::run(leader.clone(), Arc::clone(&peers)));
    let proposer = Proposer::new(leader.clone(), leases.clone(), Arc::clone(&peers));
    let membership =
        Membership { leader: leader.clone(), proposer: proposer.clone(), runtime: options.runtime.clone() };
    let _ = membership_cell.set(membership.clone());
    let place = ContactSettings { own, hints: std::mem::take(&mut options.hints) };
    tokio::spawn(contact::run(leader.clone(), Arc::clone(&peers), membership.clone(), place));
    tokio::spawn(janitor::follow_membership(leader.clone(), Arc::clone(&peers)));
    tokio::spawn(janitor::run(leader.clone(), Arc::clone(&peers), proposer.clone(), options.runtime.clone()));
    tokio::spawn(read::catch_up(leader.clone(), Arc::clone(&peers), Arc::clone(&caught_up)));
    let conflict = Arc::new(OnceLock::new());
    let known = if options.peers.is_empty() { known_peers(&leader) } else { options.peers };
    tokio::spawn(check_peers(Arc::clone(&peers), known, leader.clone(), Arc::clone(&conflict)));
    tokio::spawn(leave_when_removed(Arc::clone(&identity), leader.clone(), Arc::clone(&conflict)));
    Ok(Parts { membership, readiness, proposer, lineage, conflict, log_failure, released, secret_mark })
}

/// Opens the data directory. Sets it up if it is new, and rejects it if it belongs to another node or was made with
/// another secret.
fn open_data(
    options: &ClusterOptions,
    open_log: impl FnOnce(&Path, bool) -> Result<LogWriter, StoreError>,
) -> Result<(DataDir, LogWriter), StartError> {
    let mut data = DataDir::open(&options.data_dir)?;
    let secret_check = options.keys.secret_check;
    let Some(found) = data.identity() else {
        if options.joined {
            return Err(StartError::Wiped { node: options.node });
        }
        let identity = conclave_store::DataDirIdentity {
            cluster: None,
            lineage_epoch: 0,
            node_id: options.node,
            joined: false,
            incarnation: options.runtime.entropy.bytes(),
            secret_check,
        };
        let log = data.initialize_over(identity, |at| open_log(at, true))?;
        return Ok((data, log));
    };
    if found.node_id != options.node {
        return Err(StartError::OtherNode { found: found.node_id, meant: options.node });
    }
    if options.keys.named(&found.secret_check).is_none() {
        return Err(StartError::OtherSecret);
    }
    let log = data.open_log_with(|at| open_log(at, false))?;
    Ok((data, log))
}

/// Removes every trace from a directory that was fresh when the cluster rejects this node, so that `conclave cluster
/// join` finds it empty.
fn refused_at_start(data: DataDir, was_fresh: bool, refused: BootstrapError) -> StartError {
    let is_final = matches!(refused, BootstrapError::Wiped { .. } | BootstrapError::NotAMember { .. });
    if was_fresh
        && is_final
        && let Err(error) = data.abandon()
    {
        tracing::warn!(%error, "what this start had begun in the data directory was not removed");
    }
    refused.into()
}

/// The parts that the plane's service gets once Raft runs.
type Cells = (Arc<OnceLock<Readiness>>, Arc<OnceLock<Membership>>);

/// The plane's service before Raft runs.
fn service(
    peers: &Arc<Peers>,
    own: &Member,
    clock: &Arc<ClusterClock>,
    settings: &Arc<SharedSettings>,
    configured: &[BootstrapPeer],
    public_url: &str,
) -> Service {
    Service {
        identity: Arc::clone(&peers.identity),
        peers: Arc::clone(peers),
        own: own.clone(),
        configured: configured.to_vec(),
        clock: Arc::clone(clock),
        settings: Arc::clone(settings),
        running: Arc::default(),
        membership: Arc::default(),
        public_url: public_url.to_owned(),
    }
}

/// Serves the cluster plane: greetings at once, the rest when Raft runs.
fn serve(incoming: InboundReceiver, service: Service) -> Cells {
    let cells = (Arc::clone(&service.running), Arc::clone(&service.membership));
    let service = ClusterServiceServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
    let server = tonic::transport::Server::builder()
        .http2_max_pending_accept_reset_streams(Some(MAX_ABANDONED))
        .add_service(service)
        .serve_with_incoming(incoming);
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the cluster plane has stopped");
        }
    });
    cells
}

/// Records the lineage in the data directory before its first entry is written.
fn record_lineage(
    data: &mut DataDir,
    identity: &NodeIdentity,
    roster: Option<&Roster>,
    stored: &conclave_store::DataDirIdentity,
) -> Result<Lineage, StartError> {
    if let Some(lineage) = identity.lineage() {
        return Ok(lineage);
    }
    let lineage =
        roster.map(|r| r.lineage).ok_or_else(|| StartError::Raft("a log without a cluster".into()))?;
    data.save_identity(conclave_store::DataDirIdentity {
        cluster: Some(lineage.cluster),
        lineage_epoch: lineage.epoch,
        ..stored.clone()
    })?;
    identity.join(lineage);
    Ok(lineage)
}

fn open_snapshots(
    keys: &ClusterKeys,
    runtime: Runtime,
    data: &DataDir,
    lineage: Lineage,
) -> Result<LocalSnapshots, StartError> {
    let dir = SnapshotDir::open(&data.snapshots()).map_err(|e| StartError::Snapshots(e.to_string()))?;
    dir.sweep_temp().map_err(|e| StartError::Snapshots(e.to_string()))?;
    Ok(LocalSnapshots { dir: Arc::new(dir), key: Arc::new(SealingKey::ring(keys)), lineage, runtime })
}

async fn run_raft(
    node: NodeId,
    peers: Arc<Peers>,
    storage: LogStorage,
    snapshots: LocalSnapshots,
    clock: Arc<ClusterClock>,
    pace: ElectionPace,
) -> Result<Leader, StartError> {
    let (machine, view) =
        StateMachine::open(snapshots.clone()).map_err(|e| StartError::Snapshots(e.to_string()))?;
    clock.attach(view.clone());
    let gauge = storage.gauge();
    let raft = Raft::new(node, raft_config(pace)?, Network::new(peers), storage, machine).await;
    let raft = raft.map_err(|e| StartError::Raft(e.to_string()))?;
    Ok(Leader::new(raft, view, snapshots, clock, gauge))
}

/// Writes the first entry, with all voters. If it exists already, an earlier start of this node wrote it.
async fn initialise(raft: &Raft, roster: Roster) -> Result<(), StartError> {
    match raft.initialize(roster.members).await {
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(StartError::Raft(error.to_string())),
    }
}

/// The members in this node's own log: a node that joined has no configured peers.
fn known_peers(leader: &Leader) -> Vec<BootstrapPeer> {
    let members = leader.members().into_iter();
    members.map(|(node, member)| BootstrapPeer { node, addr: member.cluster_addr }).collect()
}

/// Stops Raft when the cluster has removed this node, so that the process logs it and ends.
async fn leave_when_removed(identity: Arc<NodeIdentity>, leader: Leader, conflict: Arc<OnceLock<String>>) {
    identity.removed().await;
    let node = identity.node;
    let why = format!(
        "the cluster has removed node {node}; its number is never given again: to bring this machine back, empty its data \
         directory and run `conclave cluster join ADDRESS`"
    );
    tracing::error!("{why}");
    let _ = conflict.set(why);
    let _ = leader.raft().shutdown().await;
}

/// Checks that the peers that answer know this node with its incarnation. A contradiction is stored for the owner of
/// the process, which ends it.
async fn check_peers(
    peers: Arc<Peers>,
    configured: Vec<BootstrapPeer>,
    leader: Leader,
    conflict: Arc<OnceLock<String>>,
) {
    if let Err(error) = bootstrap::check_against_peers(&peers, &configured).await {
        tracing::error!("{error}");
        // Set once, here.
        let _ = conflict.set(error.to_string());
        let _ = leader.raft().shutdown().await;
    }
}
