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
    peers::{self, ChannelKind},
};

/// The time limit of another node's reply: a document and the handle, each of which may be slow, while the user waits.
const LIMIT: Duration = Duration::from_secs(6);
/// Requests of other nodes in progress here: fewer than this node's own requests to one host.
const AT_ONCE: usize = 8;
/// The longest DID that is resolved.
const MAX_DID_BYTES: usize = 255;

/// The handle resolver of a node.
pub trait HandleResolver: Send + Sync {
    /// Returns the handle that this DID and the network agree on; `None` if they do not agree. An error if no source
    /// could be reached.
    fn handle_of(&self, did: String) -> Pin<Box<dyn Future<Output = Result<Option<String>, String>> + Send>>;
}

/// The reason why a handle is verified.
#[derive(Clone, Copy, Debug)]
pub enum VerificationReason {
    /// A sign-in whose state was spent with this index.
    SignIn { state: TicketId, index: u64 },
    /// The repeated check of the handle by which the user was let in.
    Again,
}

/// The result of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteView {
    /// There is no other node.
    Alone,
    /// Another node resolved this handle, or none.
    Seen(Option<String>),
    /// No other node could resolve it.
    Unknown,
}

/// This node's own resolver, once it is set.
pub(crate) struct ResolverSlot {
    resolver: OnceLock<Arc<dyn HandleResolver>>,
    places: Semaphore,
}

impl Default for ResolverSlot {
    fn default() -> Self {
        Self { resolver: OnceLock::new(), places: Semaphore::new(AT_ONCE) }
    }
}

impl ResolverSlot {
    /// Sets the resolver. Called once, when the slices are made.
    pub(crate) fn set(&self, resolver: Arc<dyn HandleResolver>) {
        let _ = self.resolver.set(resolver);
    }

    /// Resolves on behalf of another node, which has proved that it may ask.
    pub(crate) async fn resolve(&self, did: String) -> Result<pb::ResolveHandleReply, Status> {
        let resolver = self.resolver.get().ok_or_else(|| Status::unavailable("this node is starting"))?;
        let _place =
            self.places.try_acquire().map_err(|_| Status::resource_exhausted("too many requests"))?;
        if did.len() > MAX_DID_BYTES {
            return Err(Status::invalid_argument("the DID is too long"));
        }
        let seen = timeout(LIMIT, resolver.handle_of(did)).await;
        let seen = seen.map_err(|_| Status::deadline_exceeded("the network is slow"))?;
        let handle = seen.map_err(Status::unavailable)?.unwrap_or_default();
        Ok(pb::ResolveHandleReply { handle })
    }
}

impl Inner {
    /// The answer of the first other member that has one.
    pub(super) async fn resolve_on_peer(&self, did: &str, reason: VerificationReason) -> RemoteView {
        let own = self.peers.identity.node;
        let members = self.peers.identity.members();
        let others: Vec<_> = members.into_iter().filter(|(node, _)| *node != own).collect();
        if others.is_empty() {
            return RemoteView::Alone;
        }
        for (node, member) in others {
            match self.ask(node, &member.cluster_addr, did, reason).await {
                Ok(handle) => return RemoteView::Seen((!handle.is_empty()).then_some(handle)),
                Err(why) => tracing::info!("node {node} could not look at a handle: {why}"),
            }
        }
        RemoteView::Unknown
    }

    async fn ask(
        &self,
        node: NodeId,
        addr: &str,
        did: &str,
        reason: VerificationReason,
    ) -> Result<String, String> {
        let mut client =
            self.peers.client(Some(node), addr, ChannelKind::Control).map_err(|e| e.to_string())?;
        let (proof_id, index) = match reason {
            VerificationReason::SignIn { state, index } => (state.to_vec(), index),
            VerificationReason::Again => (Vec::new(), 0),
        };
        let envelope = Some(self.peers.identity.envelope(node));
        let request = pb::ResolveHandleRequest { envelope, proof_id, index, did: did.to_owned() };
        let mut request = tonic::Request::new(request);
        propagation::inject(request.metadata_mut());
        match timeout(LIMIT, client.resolve_handle(request)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner().handle),
            Ok(Err(status)) => Err(peers::explain_status(&status)),
            Err(_) => {
                self.peers.forget(Some(node), addr, ChannelKind::Control);
                Err("no answer".into())
            }
        }
    }
}
