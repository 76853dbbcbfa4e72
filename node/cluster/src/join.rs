//! A new node joins a cluster with the secret and one address, nothing else. It gets a number, the cluster's name and
//! its public URL, and writes them into its empty data directory. Then the node may be started.
//!
//! Nothing here runs Raft. The leader creates the membership. A repeated request with the same directory gets the same
//! membership.

use std::{path::PathBuf, sync::Arc, time::Duration};

use conclave_proto::cluster::v1 as pb;
use conclave_state::level;
use tokio::time::{Instant, sleep, timeout};
use tonic::{ConnectError, Status};

use conclave_base::runtime::Runtime;
use conclave_crypto::{keys::ClusterKeys, tls::ClusterTls};
use conclave_store::{self, DataDir, SledLog, StoreError};

use super::{
    identity::{Lineage, NodeIdentity},
    peers::{ChannelKind, PeerClient, Peers, explain_status},
    service::was_not_taken,
    transport::TlsWire,
    types::NodeId,
};

/// The time limit of one request: a write and a change of members, held across an election.
const QUESTION: Duration = Duration::from_secs(10);
/// The time over which the request is repeated while the cluster has no leader.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);

/// The options of a join.
pub struct JoinOptions {
    /// `host:port` of any member's cluster plane.
    pub address: String,
    pub data_dir: PathBuf,
    /// If true, existing content of the directory is kept beside it; otherwise the directory must be empty.
    pub set_aside: bool,
    /// The address at which the others will find this node.
    pub advertise: String,
    /// The URL at which clients will find its admin API.
    pub api_url: String,
    pub keys: Arc<ClusterKeys>,
    pub runtime: Runtime,
}

/// The result of a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub node: NodeId,
    pub lineage: Lineage,
    /// The URL of the whole cluster.
    pub public_url: String,
}

/// The reason why a join failed. It is reported to the operator.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "{0} belongs to node {1} already; start it with `conclave serve`, or, if the cluster has removed that node, \
         run this again with --set-aside, which keeps the contents of the directory aside, or with an empty --data-dir"
    )]
    Taken(PathBuf, NodeId),
    #[error("the data directory was begun with another cluster secret; use an empty one")]
    OtherSecret,
    #[error("the cluster plane cannot be set up: {0}")]
    Plane(String),
    #[error("`{0}` is not a valid host:port")]
    BadAddress(String),
    #[error("{address} does not answer: {why}")]
    Unreachable { address: String, why: String },
    #[error("the cluster refused this node: {0}")]
    Refused(String),
}

/// Requests membership, and writes it into the data directory.
///
/// # Errors
/// [`JoinError`]. A fresh directory is then fresh again, unless the cluster may have created the membership: then a
/// repeated request returns it.
pub async fn join(options: JoinOptions) -> Result<Joined, JoinError> {
    let tls = ClusterTls::new(&options.keys, 0, &*options.runtime.entropy)
        .map_err(|e| JoinError::Plane(e.to_string()))?;
    let peers_as = |incarnation| {
        Peers::new(Arc::new(NodeIdentity::new(0, incarnation, None)), Arc::new(TlsWire::new(&tls)))
    };
    if options.set_aside {
        // Nothing is set aside for a cluster that does not answer.
        let incarnation = options.runtime.entropy.bytes();
        known(&peers_as(incarnation), &options, incarnation).await?;
    }
    let was_fresh = DataDir::is_fresh(&options.data_dir);
    let (mut data, stored) = begin(&options)?;
    let peers = peers_as(stored.incarnation);
    let mut may_have_a_place = false;
    let asked = ask(&peers, &options, stored.incarnation, &mut may_have_a_place).await;
    if asked.is_err() && was_fresh && !may_have_a_place {
        data.abandon()?;
        return asked;
    }
    let joined = asked?;
    data.save_identity(conclave_store::DataDirIdentity {
        cluster: Some(joined.lineage.cluster),
        lineage_epoch: joined.lineage.epoch,
        node_id: joined.node,
        joined: true,
        ..stored
    })?;
    Ok(joined)
}

/// Opens a fresh directory, or one that an earlier attempt began.
fn begin(options: &JoinOptions) -> Result<(DataDir, conclave_store::DataDirIdentity), JoinError> {
    let mut data = DataDir::open(&options.data_dir)?;
    let secret_check = options.keys.secret_check;
    let fresh = || conclave_store::DataDirIdentity {
        cluster: None,
        lineage_epoch: 0,
        node_id: 0,
        joined: true,
        incarnation: options.runtime.entropy.bytes(),
        secret_check,
    };
    match data.identity().cloned() {
        Some(found) if options.set_aside && (found.cluster.is_some() || !found.joined) => {
            let identity = fresh();
            let name = options.runtime.clock.now_ms().to_string();
            let kept =
                data.replace_contents(identity.clone(), &name, |log, _| SledLog::create(log).map(drop))?;
            if let Some(kept) = kept {
                tracing::info!("the earlier contents of the data directory are kept in {}", kept.display());
            }
            Ok((data, identity))
        }
        Some(found) if found.cluster.is_some() || !found.joined => {
            Err(JoinError::Taken(options.data_dir.clone(), found.node_id))
        }
        Some(found) if options.keys.named(&found.secret_check).is_none() => Err(JoinError::OtherSecret),
        Some(found) => Ok((data, found)),
        None => {
            let identity = fresh();
            data.initialize(identity.clone())?;
            Ok((data, identity))
        }
    }
}

/// Asks the given member about its cluster. Its first reply is final: a wrong address or secret does not become right
/// by asking again.
async fn known(
    peers: &Peers,
    options: &JoinOptions,
    incarnation: [u8; 16],
) -> Result<pb::HelloReply, JoinError> {
    let unreachable = |why: String| JoinError::Unreachable { address: options.address.clone(), why };
    let hello = pb::HelloRequest { incarnation: incarnation.to_vec(), ..pb::HelloRequest::default() };
    let mut named = client(peers, &options.address)?;
    let known = match timeout(QUESTION, named.hello(hello)).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => return Err(unreachable(explain_status(&status))),
        Err(_) => return Err(unreachable("no answer in time".into())),
    };
    if known.members.is_empty() {
        return Err(JoinError::Refused("it is not part of a cluster yet".into()));
    }
    Ok(known)
}

/// Sends the request to the given member, then to the leader that it names. `may_have_a_place` becomes true when a
/// request was sent whose reply did not arrive.
async fn ask(
    peers: &Peers,
    options: &JoinOptions,
    incarnation: [u8; 16],
    may_have_a_place: &mut bool,
) -> Result<Joined, JoinError> {
    let unreachable = |why: String| JoinError::Unreachable { address: options.address.clone(), why };
    let deadline = Instant::now() + LIMIT;
    let mut why = String::new();
    while Instant::now() < deadline {
        let known = known(peers, options, incarnation).await?;
        for member in &known.members {
            match place(peers, options, &member.cluster_addr, incarnation).await {
                Ok(joined) => return Ok(joined),
                Err(Answer::Final(error)) => return Err(error),
                Err(Answer::Elsewhere(reason)) => why = reason,
                Err(Answer::Lost(reason)) => {
                    *may_have_a_place = true;
                    why = reason;
                }
            }
        }
        sleep(PAUSE).await;
    }
    Err(unreachable(format!("the cluster has no leader: {why}")))
}

enum Answer {
    /// Another member may answer differently.
    Elsewhere(String),
    /// The request was sent, and no reply arrived.
    Lost(String),
    Final(JoinError),
}

async fn place(
    peers: &Peers,
    options: &JoinOptions,
    addr: &str,
    incarnation: [u8; 16],
) -> Result<Joined, Answer> {
    let request = pb::JoinRequest {
        incarnation: incarnation.to_vec(),
        cluster_addr: options.advertise.clone(),
        api_url: options.api_url.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        feature_level: level::SUPPORTED,
    };
    let mut client = client(peers, addr).map_err(Answer::Final)?;
    let reply = match timeout(QUESTION, client.join(request)).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) if status.code() == tonic::Code::InvalidArgument => {
            return Err(Answer::Final(JoinError::Refused(status.message().into())));
        }
        Ok(Err(status)) if was_not_taken(&status) || never_connected(&status) => {
            return Err(Answer::Elsewhere(explain_status(&status)));
        }
        Ok(Err(status)) => return Err(Answer::Lost(explain_status(&status))),
        Err(_) => return Err(Answer::Lost("no answer in time".into())),
    };
    let cluster = reply.cluster_id.as_slice().try_into();
    let cluster = cluster.map_err(|_| Answer::Elsewhere("the answer cannot be read".into()))?;
    let lineage = Lineage { cluster, epoch: reply.epoch };
    Ok(Joined { node: reply.node_id, lineage, public_url: reply.public_url })
}

/// True if the request was not sent, for want of a connection.
fn never_connected(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn client(peers: &Peers, addr: &str) -> Result<PeerClient, JoinError> {
    peers.client(None, addr, ChannelKind::Control).map_err(|_| JoinError::BadAddress(addr.to_owned()))
}
