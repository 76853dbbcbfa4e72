//! How a cluster comes to be, and how a node finds out that it must not be part of one.
//!
//! Each data directory has an *incarnation*, durable before anybody hears of it. A node that has no cluster yet greets every
//! configured peer. When all of them are as new as itself, the cluster's id is the hash of all incarnations, so that every
//! node arrives at the same one without another round; then all initialise Raft with the same voters. When a peer has a
//! cluster already, that cluster must know this node's incarnation; otherwise the disk was wiped or copied and the node stops.
//! Nothing here is time-critical, and every step may be repeated after a crash.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use conclave_proto::cluster::v1 as pb;
use tokio::time::timeout;

use crate::crypto::mac::sha256;

use super::{
    identity::{Identity, Lineage},
    peers::{Lane, Peers, explain_status},
    types::{Member, NodeId},
    wire,
};

/// How long one greeting may take.
const GREETING_LIMIT: Duration = Duration::from_millis(500);
/// The pause between rounds of greetings while peers are missing.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// Rounds between two lines in the log while waiting: about one every five seconds.
const ROUNDS_A_LINE: u32 = 50;

/// A peer as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub node: NodeId,
    pub addr: String,
}

/// The cluster that this node is, or is about to be, a voter of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    pub lineage: Lineage,
    pub members: BTreeMap<NodeId, Member>,
}

/// Why this node cannot be part of its cluster as it is. Said to the operator; the node stops.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BootstrapError {
    #[error(
        "node {node} starts with an empty data directory, but the cluster at {addr} knows node {node} with another one. A \
         wiped disk cannot come back under its old number: bring back its data directory, or give the cluster a new member \
         in its place"
    )]
    Wiped { node: NodeId, addr: String },
    #[error("the cluster at {addr} has no member {node}; correct `node.id` or `cluster.peers`, or add this node there")]
    NotAMember { node: NodeId, addr: String },
    #[error(
        "this data directory belongs to another cluster than the one at {addr}; point `node.data_dir` at this node's own \
         directory, or `cluster.peers` at its own cluster"
    )]
    ForeignCluster { addr: String },
    #[error("{addr} answers as node {found}, but `cluster.peers` calls it node {meant}")]
    WrongNode { addr: String, found: NodeId, meant: NodeId },
    #[error("{addr} is configured with other peers ({theirs}) than this node ({ours}); give all nodes the same `cluster.peers`")]
    OtherPeers { addr: String, theirs: String, ours: String },
    #[error("`{0}` is no host:port")]
    BadAddress(String),
}

/// What one round of greetings found.
enum Finding {
    /// A cluster stands and this node is in it.
    Standing(Roster),
    /// Everybody is here and new, or as far as this node.
    AllHere(BTreeMap<NodeId, Member>),
    /// Somebody is missing; why.
    Missing(String),
}

/// The peers in the form that greetings compare: sorted, `id@addr`.
pub fn describe(peers: &[Peer]) -> Vec<String> {
    let mut lines: Vec<String> = peers.iter().map(|peer| format!("{}@{}", peer.node, peer.addr)).collect();
    lines.sort();
    lines
}

/// Greets until the roster is certain. Alone, it is certain at once.
///
/// # Errors
/// [`BootstrapError`] when no waiting can help.
pub async fn find_roster(peers: &Arc<Peers>, own: &Member, configured: &[Peer]) -> Result<Roster, BootstrapError> {
    let mut round = 0_u32;
    loop {
        match greet_all(peers, own, configured).await? {
            Finding::Standing(roster) => return Ok(roster),
            Finding::AllHere(members) => return Ok(found(&peers.identity, members)),
            Finding::Missing(why) if round % ROUNDS_A_LINE == 0 => {
                tracing::info!("waiting for all {} members before the cluster is founded: {why}", configured.len());
            }
            Finding::Missing(_) => {}
        }
        round = round.wrapping_add(1);
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

/// One round, for a node that belongs to a cluster already: only what contradicts it matters, absent peers do not.
///
/// # Errors
/// [`BootstrapError`].
pub async fn check_against_peers(peers: &Arc<Peers>, own: &Member, configured: &[Peer]) -> Result<(), BootstrapError> {
    greet_all(peers, own, configured).await.map(|_| ())
}

fn found(identity: &Identity, members: BTreeMap<NodeId, Member>) -> Roster {
    let mut name = b"conclave cluster id v1".to_vec();
    for (node, member) in &members {
        name.extend_from_slice(&node.to_be_bytes());
        name.extend_from_slice(&member.incarnation);
    }
    let mut cluster = [0; 16];
    cluster.iter_mut().zip(sha256(&name)).for_each(|(byte, hashed)| *byte = hashed);
    let lineage = identity.lineage().unwrap_or(Lineage { cluster, epoch: 1 });
    Roster { lineage, members }
}

async fn greet_all(peers: &Arc<Peers>, own: &Member, configured: &[Peer]) -> Result<Finding, BootstrapError> {
    let me = peers.identity.node;
    let others = configured.iter().filter(|peer| peer.node != me);
    let greetings = others.map(|peer| async move { (peer, greet(peers, peer).await) });
    let mut members = BTreeMap::from([(me, own.clone())]);
    let mut missing = None;
    for (peer, answer) in futures_util::future::join_all(greetings).await {
        let hello = match answer {
            Ok(hello) => hello,
            Err(Unanswered::BadAddress) => return Err(BootstrapError::BadAddress(peer.addr.clone())),
            Err(Unanswered::Silent(why)) => {
                missing = Some(format!("node {} at {}: {why}", peer.node, peer.addr));
                continue;
            }
        };
        if let Some(roster) = judge(peers, peer, &hello, configured)? {
            return Ok(Finding::Standing(roster));
        }
        members.insert(peer.node, member_of(peer, &hello));
    }
    Ok(missing.map_or(Finding::AllHere(members), Finding::Missing))
}

fn member_of(peer: &Peer, hello: &pb::HelloReply) -> Member {
    Member {
        cluster_addr: peer.addr.clone(),
        api_url: hello.api_url.clone(),
        incarnation: hello.incarnation.as_slice().try_into().unwrap_or_default(),
    }
}

/// What this peer's answer means: a roster when it has a cluster that knows us, nothing when it is new as well.
fn judge(
    peers: &Peers,
    peer: &Peer,
    hello: &pb::HelloReply,
    configured: &[Peer],
) -> Result<Option<Roster>, BootstrapError> {
    let identity = &peers.identity;
    let addr = peer.addr.clone();
    if hello.node_id != peer.node {
        return Err(BootstrapError::WrongNode { addr, found: hello.node_id, meant: peer.node });
    }
    let Ok(cluster) = <[u8; 16]>::try_from(hello.cluster_id.as_slice()) else {
        let ours = describe(configured);
        if hello.configured_peers != ours {
            let theirs = hello.configured_peers.join(", ");
            return Err(BootstrapError::OtherPeers { addr, theirs, ours: ours.join(", ") });
        }
        return Ok(None);
    };
    let lineage = Lineage { cluster, epoch: hello.epoch };
    if identity.lineage().is_some_and(|ours| ours != lineage) {
        return Err(BootstrapError::ForeignCluster { addr });
    }
    let members: BTreeMap<NodeId, Member> = hello.members.iter().filter_map(|m| wire::member(m).ok()).collect();
    if members.is_empty() {
        // It has its name but not its first entry yet: it is as new as we are.
        return Ok(None);
    }
    match members.get(&identity.node) {
        Some(member) if member.incarnation == identity.incarnation => Ok(Some(Roster { lineage, members })),
        Some(_) => Err(BootstrapError::Wiped { node: identity.node, addr }),
        None => Err(BootstrapError::NotAMember { node: identity.node, addr }),
    }
}

enum Unanswered {
    BadAddress,
    Silent(String),
}

async fn greet(peers: &Arc<Peers>, peer: &Peer) -> Result<pb::HelloReply, Unanswered> {
    let identity = &peers.identity;
    let lineage = identity.lineage();
    let mut client =
        peers.client(None, &peer.addr, Lane::Control).map_err(|_| Unanswered::BadAddress)?;
    let request = pb::HelloRequest {
        from: identity.node,
        incarnation: identity.incarnation.to_vec(),
        cluster_id: lineage.map(|l| l.cluster.to_vec()).unwrap_or_default(),
        epoch: lineage.map_or(0, |l| l.epoch),
    };
    match timeout(GREETING_LIMIT, client.hello(request)).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(Unanswered::Silent(explain_status(&status))),
        Err(_) => Err(Unanswered::Silent("no answer".into())),
    }
}
