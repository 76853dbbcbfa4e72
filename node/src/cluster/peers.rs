//! Connections to the other members: one channel a lane, so that a long snapshot or a burst of entries never stands in the
//! way of a heartbeat (design.md §5).

use std::{
    collections::BTreeMap, error::Error as _, fmt::Write as _, sync::Arc, sync::Mutex, sync::PoisonError,
};

use conclave_proto::cluster::v1::cluster_service_client::ClusterServiceClient;
use tonic::transport::Channel;

use super::{
    failover::Watch,
    identity::Identity,
    line::Line,
    transport::{self, Wire},
    types::NodeId,
    vantage::Window,
};

/// Largest message on the cluster plane: a full batch of entries (300 of at most 60 KiB) fits.
pub const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
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

pub type Client = ClusterServiceClient<Channel>;

/// A client, and what is known of its connection.
type Known = (Client, Arc<Line>);

/// The connections of this node.
pub struct Peers {
    pub identity: Arc<Identity>,
    /// Told when the leader's stream to this node ends.
    pub lost: Watch,
    /// What this node sees of the network outside.
    pub window: Window,
    wire: Arc<dyn Wire>,
    channels: Mutex<BTreeMap<(String, Lane), Known>>,
    /// Where members are now, if that is not what the log says: they told, or answered there by their identity.
    moved: Mutex<BTreeMap<NodeId, String>>,
}

/// The address of a member is no address.
#[derive(Debug, thiserror::Error)]
#[error("`{addr}` is no host:port")]
pub struct BadAddress {
    addr: String,
}

impl Peers {
    pub fn new(identity: Arc<Identity>, wire: Arc<dyn Wire>) -> Self {
        Self {
            identity,
            lost: Watch::default(),
            window: Window::default(),
            wire,
            channels: Mutex::default(),
            moved: Mutex::default(),
        }
    }

    /// From here on this member is called at `addr`, whatever the log says. True if that is news.
    pub fn learn_address(&self, node: NodeId, addr: &str) -> bool {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.insert(node, addr.to_owned()).as_deref() != Some(addr)
    }

    /// Where this member is called, if that is not what the log says.
    pub fn moved_to(&self, node: NodeId) -> Option<String> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// Knocks at this address, and drops the connection if there is one.
    ///
    /// # Errors
    /// What the wire says.
    pub async fn knock(&self, addr: &str) -> std::io::Result<()> {
        self.wire.knock(addr).await
    }

    /// A client for the member `node` at `addr`. Must be called inside the consensus runtime, which then owns the connection.
    ///
    /// # Errors
    /// [`BadAddress`].
    pub fn client(&self, node: Option<NodeId>, addr: &str, lane: Lane) -> Result<Client, BadAddress> {
        self.client_on_line(node, addr, lane).map(|(client, _)| client)
    }

    /// Gives the connection up: it was silent for too long. After a cut, TCP may wait for seconds before it tries again; another
    /// connection need not.
    pub fn forget(&self, node: Option<NodeId>, addr: &str, lane: Lane) {
        let moved = node.and_then(|node| self.moved_to(node));
        let addr = moved.as_deref().unwrap_or(addr);
        let key = (format!("{node:?}@{addr}"), lane);
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// The same with what is known of its connection.
    ///
    /// # Errors
    /// [`BadAddress`].
    pub fn client_on_line(&self, node: Option<NodeId>, addr: &str, lane: Lane) -> Result<Known, BadAddress> {
        let moved = node.and_then(|node| self.moved_to(node));
        let addr = moved.as_deref().unwrap_or(addr);
        let key = (format!("{node:?}@{addr}"), lane);
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = channels.get(&key) {
            return Ok(known.clone());
        }
        let reports = node.filter(|_| lane == Lane::Heartbeat);
        let connections = Arc::new(Line::reporting(reports));
        let channel = transport::channel(&self.wire, addr, node, Arc::clone(&connections))
            .map_err(|_| BadAddress { addr: addr.to_owned() })?;
        let client = ClusterServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        channels.insert(key, (client.clone(), Arc::clone(&connections)));
        Ok((client, connections))
    }
}

/// A status with all its causes in one line: tonic keeps the interesting one ("connection refused") at the bottom.
pub fn explain_status(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
