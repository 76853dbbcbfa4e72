//! Connections to the other members. Each kind has its own channel, so that a long snapshot or a burst of entries never
//! delays a heartbeat (docs/design/consensus.md).

use std::{
    collections::BTreeMap, error::Error as _, fmt::Write as _, sync::Arc, sync::Mutex, sync::PoisonError,
};

use conclave_proto::cluster::v1::cluster_service_client::ClusterServiceClient;
use tonic::transport::Channel;

use super::{
    failover::Watch,
    handle_resolver::ResolverSlot,
    identity::NodeIdentity,
    peer_connection::PeerConnection,
    transport::{self, Wire},
    types::{Member, NodeId},
};

/// Largest message on the cluster plane: a full batch of entries (300 of at most 60 KiB) fits.
pub(crate) const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ChannelKind {
    Heartbeat,
    Append,
    Snapshot,
    /// Forwarded writes and reads.
    Forward,
    /// Serve leases: a renewal must not wait behind a burst of writes.
    Lease,
    /// Greetings and status, before and beside consensus.
    Control,
}

pub(crate) type PeerClient = ClusterServiceClient<Channel>;

/// A client, and the state of its connection.
type PeerChannel = (PeerClient, Arc<PeerConnection>);

/// The connections of this node.
pub(crate) struct Peers {
    pub identity: Arc<NodeIdentity>,
    /// Notified when the leader's stream to this node ends.
    pub lost: Watch,
    /// The handle resolver of this node.
    pub resolver: ResolverSlot,
    wire: Arc<dyn Wire>,
    channels: Mutex<BTreeMap<(String, ChannelKind), PeerChannel>>,
    /// Members at another address than the log names: they announced it, or answered there with their identity.
    moved: Mutex<BTreeMap<NodeId, Moved>>,
}

/// An address that was learned from a member. It is used until the log names another address than it did then.
#[derive(Debug)]
struct Moved {
    /// The learned address.
    addr: String,
    /// The address that the log named when this one was learned. `None` if the log did not have the member.
    logged: Option<String>,
}

/// The address of a member is not a host and a port.
#[derive(Debug, thiserror::Error)]
#[error("`{addr}` is not a valid host:port")]
pub(crate) struct BadAddress {
    addr: String,
}

impl Peers {
    pub(crate) fn new(identity: Arc<NodeIdentity>, wire: Arc<dyn Wire>) -> Self {
        Self {
            identity,
            lost: Watch::default(),
            resolver: ResolverSlot::default(),
            wire,
            channels: Mutex::default(),
            moved: Mutex::default(),
        }
    }

    /// Records the address that a member announced or proved. It is used until the log names another address for the
    /// member than it does now. Returns true if the address is new.
    pub(crate) fn learn_address(&self, node: NodeId, addr: &str) -> bool {
        let logged = self.identity.address_of(node);
        let before = self.moved_to(node, logged.as_deref()).or_else(|| logged.clone());
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.as_deref() == Some(addr) {
            moved.remove(&node);
        } else {
            moved.insert(node, Moved { addr: addr.to_owned(), logged });
        }
        before.as_deref() != Some(addr)
    }

    /// Follows the log: records the members of the configuration in force, and forgets the learned addresses of members
    /// whose address in the log has changed since. The log may name an address that the member moved to later, and
    /// nothing else would remove the learned one.
    pub(crate) fn learn_members(&self, members: Vec<(NodeId, Member)>) {
        self.identity.learn_members(members);
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.retain(|node, learned| self.identity.address_of(*node) == learned.logged);
    }

    /// The address at which a member is called: the learned one, otherwise the one in the log, otherwise `addr`. The
    /// caller may have `addr` from an older configuration: openraft keeps its links to a member whose address changes.
    pub(crate) fn address_of(&self, node: NodeId, addr: &str) -> String {
        let logged = self.identity.address_of(node);
        self.moved_to(node, logged.as_deref()).or(logged).unwrap_or_else(|| addr.to_owned())
    }

    /// The learned address, if the log still names the address that it named then.
    fn moved_to(&self, node: NodeId, logged: Option<&str>) -> Option<String> {
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.get(&node).filter(|it| it.logged.as_deref() == logged).map(|it| it.addr.clone())
    }

    fn called_at(&self, node: Option<NodeId>, addr: &str) -> String {
        node.map_or_else(|| addr.to_owned(), |node| self.address_of(node, addr))
    }

    /// Attempts a connection to this address, and drops it if it succeeds.
    ///
    /// # Errors
    /// The error of the connection attempt.
    pub(crate) async fn probe(&self, addr: &str) -> std::io::Result<()> {
        self.wire.probe(addr).await
    }

    /// A client for the member `node` at `addr`. Must be called inside the consensus runtime, which then owns the
    /// connection.
    ///
    /// # Errors
    /// [`BadAddress`].
    pub(crate) fn client(
        &self,
        node: Option<NodeId>,
        addr: &str,
        kind: ChannelKind,
    ) -> Result<PeerClient, BadAddress> {
        self.client_and_connection(node, addr, kind).map(|(client, _)| client)
    }

    /// Drops the connection after too long a silence. After a cut, TCP may wait for seconds before it tries again; a
    /// new connection need not.
    pub(crate) fn forget(&self, node: Option<NodeId>, addr: &str, kind: ChannelKind) {
        let addr = self.called_at(node, addr);
        let key = (format!("{node:?}@{addr}"), kind);
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Like [`Self::client`], with the state of its connection.
    ///
    /// # Errors
    /// [`BadAddress`].
    pub(crate) fn client_and_connection(
        &self,
        node: Option<NodeId>,
        addr: &str,
        kind: ChannelKind,
    ) -> Result<PeerChannel, BadAddress> {
        let addr = self.called_at(node, addr);
        let key = (format!("{node:?}@{addr}"), kind);
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = channels.get(&key) {
            return Ok(known.clone());
        }
        let reports = node.filter(|_| kind == ChannelKind::Heartbeat);
        let connections = Arc::new(PeerConnection::reporting(reports));
        let channel = transport::channel(&self.wire, &addr, node, Arc::clone(&connections))
            .map_err(|_| BadAddress { addr: addr.clone() })?;
        let client = ClusterServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        channels.insert(key, (client.clone(), Arc::clone(&connections)));
        Ok((client, connections))
    }
}

/// Formats a status with all its causes in one line: tonic keeps the interesting one ("connection refused") at the
/// bottom.
pub(crate) fn explain_status(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Dialling, Probing};

    /// Nothing is dialled: connections are lazy.
    struct Unused;

    impl Wire for Unused {
        fn dial<'a>(&'a self, _: &'a str, _: Option<NodeId>) -> Dialling<'a> {
            Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
        }

        fn probe<'a>(&'a self, _: &'a str) -> Probing<'a> {
            Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
        }
    }

    /// Node 3, whose log names these addresses of nodes 1 and 2.
    fn node_3(first: &str, second: &str) -> Peers {
        let peers = Peers::new(Arc::new(NodeIdentity::new(3, [3; 16], None)), Arc::new(Unused));
        log_names(&peers, first, second);
        peers
    }

    fn log_names(peers: &Peers, first: &str, second: &str) {
        let member = |addr: &str| Member { cluster_addr: addr.to_owned(), ..Member::default() };
        peers.learn_members(vec![(1, member(first)), (2, member(second))]);
    }

    #[test]
    fn a_learned_address_counts_until_the_log_names_another() {
        let peers = node_3("n1:1", "a:1");
        assert_eq!(peers.address_of(2, "a:1"), "a:1");
        assert!(peers.learn_address(2, "b:1") && !peers.learn_address(2, "b:1"));
        assert_eq!(peers.address_of(2, "a:1"), "b:1");
        log_names(&peers, "n1:2", "a:1");
        assert_eq!(peers.address_of(2, "a:1"), "b:1", "the address of another member is not this one's");
        // The log takes over the address, and later an address that was never announced here.
        log_names(&peers, "n1:2", "b:1");
        assert_eq!(peers.address_of(2, "b:1"), "b:1");
        log_names(&peers, "n1:2", "c:1");
        assert_eq!(peers.address_of(2, "c:1"), "c:1");
    }

    #[test]
    fn a_member_that_moves_back_is_called_where_the_log_says() {
        let peers = node_3("n1:1", "a:1");
        peers.learn_address(2, "b:1");
        log_names(&peers, "n1:1", "b:1");
        log_names(&peers, "n1:1", "a:1");
        assert_eq!(peers.address_of(2, "a:1"), "a:1");
        // The member may also announce its old address before this node's log has seen the move.
        peers.learn_address(2, "b:1");
        assert!(peers.learn_address(2, "a:1"));
        assert_eq!(peers.address_of(2, "a:1"), "a:1");
    }

    #[test]
    fn a_link_of_an_older_configuration_follows_the_log() {
        let peers = node_3("n1:1", "a:1");
        log_names(&peers, "n1:1", "c:1");
        assert_eq!(peers.address_of(2, "a:1"), "c:1");
        assert_eq!(
            peers.address_of(9, "d:1"),
            "d:1",
            "who is not in the log yet is called where the caller says"
        );
    }
}
