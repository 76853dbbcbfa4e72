//! Resolution of a handle on another node. DNS answers may be forged for one network and not for another. If a handle
//! affects access, a node asks another node to resolve it from there, and continues only if the result is equal.
//!
//! This is not an open resolver. A member answers only members, a bounded number of requests at once, and only about a
//! sign-in whose state it has seen spent in the log, or about a user who was let in by this handle.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use conclave_proto::cluster::v1 as pb;
use conclave_state::ids::TicketId;
use tokio::{sync::Semaphore, time::timeout};
use tonic::Status;

use conclave_base::propagation;

use super::{
    Inner, NodeId,
    peers::{self, Lane},
};

/// The time limit of another node's reply: a document and the handle, each of which may be slow, while the user waits.
const LIMIT: Duration = Duration::from_secs(6);
/// Requests of other nodes in progress here: fewer than this node's own requests to one host.
const AT_ONCE: usize = 8;
/// The longest DID that is resolved.
const MAX_DID_BYTES: usize = 255;

/// The handle resolver of a node.
pub trait Vantage: Send + Sync {
    /// Returns the handle that this DID and the network agree on; `None` if they do not agree. An error if no source
    /// could be reached.
    fn handle_of(&self, did: String) -> Pin<Box<dyn Future<Output = Result<Option<String>, String>> + Send>>;
}

/// The reason why a handle is verified.
#[derive(Clone, Copy, Debug)]
pub enum Occasion {
    /// A sign-in whose state was spent with this index.
    SignIn { state: TicketId, index: u64 },
    /// The repeated check of the handle by which the user was let in.
    Again,
}

/// The result of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenElsewhere {
    /// There is no other node.
    Alone,
    /// Another node resolved this handle, or none.
    Seen(Option<String>),
    /// No other node could resolve it.
    Unknown,
}

/// This node's own resolver, once it is set.
pub struct Window {
    vantage: OnceLock<Arc<dyn Vantage>>,
    places: Semaphore,
}

impl Default for Window {
    fn default() -> Self {
        Self { vantage: OnceLock::new(), places: Semaphore::new(AT_ONCE) }
    }
}

impl Window {
    /// Sets the resolver. Called once, when the slices are made.
    pub fn open(&self, vantage: Arc<dyn Vantage>) {
        let _ = self.vantage.set(vantage);
    }

    /// Resolves on behalf of another node, which has proved that it may ask.
    pub async fn look(&self, did: String) -> Result<pb::ResolveHandleReply, Status> {
        let vantage = self.vantage.get().ok_or_else(|| Status::unavailable("this node is starting"))?;
        let _place =
            self.places.try_acquire().map_err(|_| Status::resource_exhausted("too many requests"))?;
        if did.len() > MAX_DID_BYTES {
            return Err(Status::invalid_argument("the DID is too long"));
        }
        let seen = timeout(LIMIT, vantage.handle_of(did)).await;
        let seen = seen.map_err(|_| Status::deadline_exceeded("the network is slow"))?;
        let handle = seen.map_err(Status::unavailable)?.unwrap_or_default();
        Ok(pb::ResolveHandleReply { handle })
    }
}

impl Inner {
    /// The answer of the first other member that has one.
    pub(super) async fn seen_elsewhere(&self, did: &str, occasion: Occasion) -> SeenElsewhere {
        let own = self.peers.identity.node;
        let members = self.peers.identity.members();
        let others: Vec<_> = members.into_iter().filter(|(node, _)| *node != own).collect();
        if others.is_empty() {
            return SeenElsewhere::Alone;
        }
        for (node, member) in others {
            match self.ask(node, &member.cluster_addr, did, occasion).await {
                Ok(handle) => return SeenElsewhere::Seen((!handle.is_empty()).then_some(handle)),
                Err(why) => tracing::info!("node {node} could not look at a handle: {why}"),
            }
        }
        SeenElsewhere::Unknown
    }

    async fn ask(&self, node: NodeId, addr: &str, did: &str, occasion: Occasion) -> Result<String, String> {
        let mut client = self.peers.client(Some(node), addr, Lane::Control).map_err(|e| e.to_string())?;
        let (proof_id, index) = match occasion {
            Occasion::SignIn { state, index } => (state.to_vec(), index),
            Occasion::Again => (Vec::new(), 0),
        };
        let envelope = Some(self.peers.identity.envelope(node));
        let request = pb::ResolveHandleRequest { envelope, proof_id, index, did: did.to_owned() };
        let mut request = tonic::Request::new(request);
        propagation::inject(request.metadata_mut());
        match timeout(LIMIT, client.resolve_handle(request)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner().handle),
            Ok(Err(status)) => Err(peers::explain_status(&status)),
            Err(_) => {
                self.peers.forget(Some(node), addr, Lane::Control);
                Err("no answer".into())
            }
        }
    }
}
