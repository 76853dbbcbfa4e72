//! Founds a cluster, and finds out if a node must not be part of one.
//!
//! Each data directory has an *incarnation*, which is durable before any peer hears of it. A node that has no cluster
//! yet greets every configured peer. If all of them are as new as itself, the cluster's id is the hash of all
//! incarnations, so that every node arrives at the same id without another round. Then the *first* node, the one with
//! the lowest number, initialises Raft with all voters. The other nodes start Raft and get that entry from it. Only one
//! node writes it, because two could write it with differing addresses. If a peer's log has members already, they
//! must include this node's incarnation; otherwise the disk was wiped or copied, and the node stops. Nothing here is
//! time-critical, and every step may be repeated after a crash.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use conclave_proto::cluster::v1 as pb;
use tokio::time::timeout;

use conclave_crypto::mac::sha256;

use super::{
    identity::Lineage,
    peers::{ChannelKind, Peers, explain_status},
    rt,
    types::{Member, NodeId},
    wire,
};

/// The time limit of one greeting.
const GREETING_LIMIT: Duration = Duration::from_millis(500);
/// The pause between rounds of greetings while peers are missing.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// Rounds between two log lines while the node waits: about one line every five seconds.
const ROUNDS_A_LINE: u32 = 50;

/// A peer as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapPeer {
    pub node: NodeId,
    pub addr: String,
}

/// The cluster that this node is, or is about to be, a voter of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Roster {
    pub lineage: Lineage,
    pub members: BTreeMap<NodeId, Member>,
    /// True if this node writes the first entry. Always false if the cluster exists already: its members may no longer
    /// be those it was founded with.
    pub initialises: bool,
}

/// The reason why this node cannot be part of its cluster. It is reported to the operator, and the node stops.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BootstrapError {
    #[error(
        "node {node} starts with an empty data directory, but the cluster at {addr} knows node {node} with another one. A \
         wiped disk cannot come back under its old number: bring back its data directory, or give the cluster a new member \
         in its place: `conclave cluster remove {node}`, and on this machine `conclave cluster join {addr}`"
    )]
    Wiped { node: NodeId, addr: String },
    #[error(
        "the cluster at {addr} has no member {node}; correct `node.id` or `cluster.peers`, or add this node there"
    )]
    NotAMember { node: NodeId, addr: String },
    #[error(
        "this data directory belongs to another cluster than the one at {addr}; point `node.data_dir` at this node's own \
         directory, or `cluster.peers` at its own cluster"
    )]
    ForeignCluster { addr: String },
    #[error(
        "the cluster at {addr} has been restored since this data directory was part of it (foreign lineage: {theirs} \
         there, {ours} here). The data in this directory are no longer valid; to bring this machine back and keep \
         them aside: `conclave cluster join {addr} --set-aside --data-dir DIR`"
    )]
    Restored { addr: String, ours: u64, theirs: u64 },
    #[error("{addr} answers as node {found}, but `cluster.peers` calls it node {meant}")]
    WrongNode { addr: String, found: NodeId, meant: NodeId },
    #[error(
        "{addr} is configured with other peers ({theirs}) than this node ({ours}); give all nodes the same `cluster.peers`"
    )]
    OtherPeers { addr: String, theirs: String, ours: String },
    #[error("`{0}` is not a valid host:port")]
    BadAddress(String),
}

/// The result of one round of greetings.
enum Finding {
    /// A cluster exists, and this node is a member of it.
    Standing(Roster),
    /// All nodes answer, are new, and arrive at the same roster.
    AllHere(Roster),
    /// At least one node does not answer; holds the reason.
    Missing(String),
}

/// The peers in the form that greetings compare: sorted, `id@addr`.
pub(crate) fn describe(peers: &[BootstrapPeer]) -> Vec<String> {
    let mut lines: Vec<String> = peers.iter().map(|peer| format!("{}@{}", peer.node, peer.addr)).collect();
    lines.sort();
    lines
}

/// Greets the peers until the roster is certain. A node without peers is certain at once.
///
/// # Errors
/// [`BootstrapError`] if waiting cannot help.
pub(crate) async fn find_roster(
    peers: &Arc<Peers>,
    own: &Member,
    configured: &[BootstrapPeer],
) -> Result<Roster, BootstrapError> {
    let mut round = 0_u32;
    loop {
        match greet_all(peers, own, configured).await? {
            Finding::Standing(roster) | Finding::AllHere(roster) => return Ok(roster),
            Finding::Missing(why) if round.is_multiple_of(ROUNDS_A_LINE) => {
                tracing::info!(
                    "waiting for all {} members before the cluster is founded: {why}",
                    configured.len()
                );
            }
            Finding::Missing(_) => {}
        }
        round = round.wrapping_add(1);
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

/// Runs one round of greetings, for a node that belongs to a cluster already. Only an answer that contradicts *this*
/// node ends it: a peer that is missing, new, foreign or wrongly configured must not stop a healthy node.
///
/// # Errors
/// [`BootstrapError`].
pub(crate) async fn check_against_peers(
    peers: &Arc<Peers>,
    configured: &[BootstrapPeer],
) -> Result<(), BootstrapError> {
    let mut foreign = None;
    let mut known = false;
    for (peer, answer) in greet_others(peers, configured).await {
        match answer.map(|hello| judge(peers, peer, &hello, configured)) {
            Ok(Ok(Heard::Standing(_))) => known = true,
            Ok(Ok(Heard::New(_) | Heard::Founding(..))) | Err(_) => {}
            Ok(Err(error @ (BootstrapError::ForeignCluster { .. } | BootstrapError::Restored { .. }))) => {
                foreign = Some(error);
            }
            Ok(Err(error @ (BootstrapError::Wiped { .. } | BootstrapError::NotAMember { .. }))) => {
                return Err(error);
            }
            Ok(Err(error)) => tracing::warn!("node {} at {}: {error}", peer.node, peer.addr),
        }
    }
    match foreign {
        Some(error) if !known => Err(error),
        Some(error) => {
            tracing::warn!("a peer belongs to another cluster: {error}");
            Ok(())
        }
        None => Ok(()),
    }
}

async fn greet_all(
    peers: &Arc<Peers>,
    own: &Member,
    configured: &[BootstrapPeer],
) -> Result<Finding, BootstrapError> {
    let me = &peers.identity;
    let mut members = BTreeMap::from([(me.node, as_configured(me.node, own, configured))]);
    let mut settled: Vec<(NodeId, Lineage)> =
        me.lineage().map(|lineage| (me.node, lineage)).into_iter().collect();
    let mut missing = None;
    for (peer, answer) in greet_others(peers, configured).await {
        let hello = match answer {
            Ok(hello) => hello,
            Err(Unanswered::BadAddress) => return Err(BootstrapError::BadAddress(peer.addr.clone())),
            Err(Unanswered::Silent(why)) => {
                missing = Some(format!("node {} at {}: {why}", peer.node, peer.addr));
                continue;
            }
        };
        let member = match judge(peers, peer, &hello, configured)? {
            Heard::Standing(roster) => return Ok(Finding::Standing(roster)),
            Heard::New(member) => member,
            Heard::Founding(lineage, member) => {
                settled.push((peer.node, lineage));
                member
            }
        };
        members.insert(peer.node, member);
    }
    Ok(missing.map_or_else(|| found(me.node, members, &settled), Finding::Missing))
}

async fn greet_others<'a>(
    peers: &Arc<Peers>,
    configured: &'a [BootstrapPeer],
) -> Vec<(&'a BootstrapPeer, Result<pb::HelloReply, Unanswered>)> {
    let others = configured.iter().filter(|peer| peer.node != peers.identity.node);
    futures_util::future::join_all(others.map(|peer| async move { (peer, greet(peers, peer).await) })).await
}

/// The roster of new nodes. A peer that already has a name for the cluster must have this name. Another name belongs to
/// a cluster that is only just starting again, or to an earlier founding whose data directory is gone.
fn found(me: NodeId, members: BTreeMap<NodeId, Member>, settled: &[(NodeId, Lineage)]) -> Finding {
    let mut name = b"conclave cluster id v1".to_vec();
    for (node, member) in &members {
        name.extend_from_slice(&node.to_be_bytes());
        name.extend_from_slice(&member.incarnation);
    }
    let mut cluster = [0; 16];
    cluster.iter_mut().zip(sha256(&name)).for_each(|(byte, hashed)| *byte = hashed);
    let lineage = Lineage { cluster, epoch: 1 };
    if let Some((node, _)) = settled.iter().find(|(_, theirs)| *theirs != lineage) {
        return Finding::Missing(format!(
            "node {node} already belongs to a cluster that was founded with other data directories than these; it is \
             starting, or the founding was cut short and one of the directories has been replaced since"
        ));
    }
    let initialises = members.keys().next() == Some(&me);
    Finding::AllHere(Roster { lineage, members, initialises })
}

/// This node with the address that its peers are configured with, so that all nodes record the same member.
fn as_configured(me: NodeId, own: &Member, configured: &[BootstrapPeer]) -> Member {
    let addr = configured.iter().find(|peer| peer.node == me).map(|peer| peer.addr.clone());
    Member { cluster_addr: addr.unwrap_or_else(|| own.cluster_addr.clone()), ..own.clone() }
}

/// The meaning of a peer's greeting for this node.
enum Heard {
    /// The peer has no cluster yet.
    New(Member),
    /// The peer has a name for its cluster, but its log has no entry that this node can see.
    Founding(Lineage, Member),
    /// The peer's log has members, and this node is one of them.
    Standing(Roster),
}

fn judge(
    peers: &Peers,
    peer: &BootstrapPeer,
    hello: &pb::HelloReply,
    configured: &[BootstrapPeer],
) -> Result<Heard, BootstrapError> {
    let identity = &peers.identity;
    let addr = peer.addr.clone();
    // This check comes first: a node that was founded from a snapshot has another number at the same address.
    if let Some(ours) =
        identity.lineage().filter(|ours| hello.cluster_id == ours.cluster && hello.epoch > ours.epoch)
    {
        return Err(BootstrapError::Restored { addr, ours: ours.epoch, theirs: hello.epoch });
    }
    if hello.node_id != peer.node {
        return Err(BootstrapError::WrongNode { addr, found: hello.node_id, meant: peer.node });
    }
    let member = Member {
        cluster_addr: peer.addr.clone(),
        api_url: hello.api_url.clone(),
        incarnation: hello.incarnation.as_slice().try_into().unwrap_or_default(),
    };
    let Ok(cluster) = <[u8; 16]>::try_from(hello.cluster_id.as_slice()) else {
        let ours = describe(configured);
        if hello.configured_peers != ours {
            let theirs = hello.configured_peers.join(", ");
            return Err(BootstrapError::OtherPeers { addr, theirs, ours: ours.join(", ") });
        }
        return Ok(Heard::New(member));
    };
    let lineage = Lineage { cluster, epoch: hello.epoch };
    let members: BTreeMap<NodeId, Member> =
        hello.members.iter().filter_map(|m| wire::member(m).ok()).collect();
    if members.is_empty() {
        return Ok(Heard::Founding(lineage, member));
    }
    if identity.lineage().is_some_and(|ours| ours != lineage) {
        return Err(BootstrapError::ForeignCluster { addr });
    }
    match members.get(&identity.node) {
        Some(known) if known.incarnation == identity.incarnation || rt::injected_faults().reuses_numbers => {
            Ok(Heard::Standing(Roster { lineage, members, initialises: false }))
        }
        Some(_) => Err(BootstrapError::Wiped { node: identity.node, addr }),
        None => Err(BootstrapError::NotAMember { node: identity.node, addr }),
    }
}

enum Unanswered {
    BadAddress,
    Silent(String),
}

async fn greet(peers: &Arc<Peers>, peer: &BootstrapPeer) -> Result<pb::HelloReply, Unanswered> {
    let identity = &peers.identity;
    let lineage = identity.lineage();
    let mut client =
        peers.client(None, &peer.addr, ChannelKind::Control).map_err(|_| Unanswered::BadAddress)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> BTreeMap<NodeId, Member> {
        [2_u8, 3, 5].map(|n| (u64::from(n), Member { incarnation: [n; 16], ..Member::default() })).into()
    }

    fn roster(me: NodeId, settled: &[(NodeId, Lineage)]) -> Result<Roster, String> {
        match found(me, members(), settled) {
            Finding::AllHere(roster) => Ok(roster),
            Finding::Missing(why) => Err(why),
            Finding::Standing(_) => Err("standing".into()),
        }
    }

    #[test]
    fn new_nodes_arrive_at_one_lineage_and_the_first_of_them_writes_it() {
        let rosters = [2, 3, 5].map(|me| roster(me, &[]).unwrap());
        assert_eq!(rosters.each_ref().map(|r| r.initialises), [true, false, false]);
        assert!(rosters.iter().all(|r| r.lineage == rosters[0].lineage && r.lineage.epoch == 1));
        // After a crash between recording the name and writing the first entry, the founding continues where it was.
        assert_eq!(roster(2, &[(2, rosters[0].lineage), (5, rosters[0].lineage)]), Ok(rosters[0].clone()));
    }

    #[test]
    fn a_wiped_node_among_starting_members_does_not_found_another_cluster() {
        let old = Lineage { cluster: [9; 16], epoch: 1 };
        let refused = roster(2, &[(3, old), (5, old)]).unwrap_err();
        assert!(refused.starts_with("node 3 already belongs to a cluster"), "{refused}");
    }

    #[test]
    fn the_founding_member_has_the_address_its_peers_know() {
        let own =
            Member { cluster_addr: "0.0.0.0:1".into(), api_url: "http://a".into(), incarnation: [1; 16] };
        let peers = [BootstrapPeer { node: 1, addr: "one:1".into() }];
        assert_eq!(as_configured(1, &own, &peers), Member { cluster_addr: "one:1".into(), ..own.clone() });
        assert_eq!(as_configured(1, &own, &[]), own);
    }
}
