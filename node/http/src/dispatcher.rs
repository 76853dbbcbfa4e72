//! The request handling of a listener: a fast path for some requests, then the router.
//!
//! Most requests of an identity provider are checks of requests to applications, hundreds for each page that a user
//! sees here. A check needs no body, no time-out and no handler that waits, and the router's layers cost several times
//! as much as its decision. So [`FastPath`] is tried first. Requests that it leaves take the regular path. Its
//! responses have the same security headers, id and client information as all others ([`Edge`]).

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    body::{Bytes, HttpBody},
    extract::ConnectInfo,
    response::Response,
};

use http::{HeaderMap, Method, Request, Uri};
use tower::ServiceExt as _;

use super::{client::ClientInfo, client::OverTls, edge::Edge, request_id::RequestId, tls::ClientCertificate};

/// A request without a body, from a configured proxy.
#[derive(Debug)]
pub struct ProxyRequest<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub client: ClientInfo,
    pub id: &'a RequestId,
}

/// Answers some requests without waiting.
pub trait FastPath: Send + Sync {
    /// True if requests to this path may be answered here. Called for every request, so it must be cheap.
    fn matches(&self, path: &str) -> bool;

    /// The response; `None` leaves the request to the router.
    fn answer(&self, asked: &ProxyRequest<'_>) -> Option<Response>;
}

/// Matches nothing until the value is set.
impl<T: FastPath> FastPath for OnceLock<T> {
    fn matches(&self, path: &str) -> bool {
        self.get().is_some_and(|fast_path| fast_path.matches(path))
    }

    fn answer(&self, asked: &ProxyRequest<'_>) -> Option<Response> {
        self.get()?.answer(asked)
    }
}

/// The peer of a connection.
#[derive(Clone, Debug)]
pub struct HttpPeer {
    pub addr: SocketAddr,
    pub(super) over_tls: Option<OverTls>,
    pub(super) certificate: Option<ClientCertificate>,
}

impl HttpPeer {
    /// A peer without TLS.
    pub const fn plain(addr: SocketAddr) -> Self {
        Self { addr, over_tls: None, certificate: None }
    }
}

/// The router with the fast path in front of it. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    router: Router,
    fast_path: Option<(Edge, Arc<dyn FastPath>)>,
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dispatcher")
    }
}

impl From<Router> for Dispatcher {
    fn from(router: Router) -> Self {
        Self { router, fast_path: None }
    }
}

impl Dispatcher {
    /// `router` must already be wrapped by this edge.
    pub fn new(edge: Edge, router: Router, fast_path: Arc<dyn FastPath>) -> Self {
        Self { router, fast_path: Some((edge, fast_path)) }
    }

    /// The response, if the fast path has one.
    pub fn at_once<B: HttpBody>(&self, request: &Request<B>, peer: IpAddr) -> Option<Response> {
        let (edge, fast_path) = self.fast_path.as_ref()?;
        if !fast_path.matches(request.uri().path()) || !request.body().is_end_stream() {
            return None;
        }
        // Untrusted peers and unreadable proxies get their error from the edge.
        let client = edge.client_of_proxy(request.headers(), peer)?;
        let id = edge.new_id();
        let asked = ProxyRequest {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            client,
            id: &id,
        };
        // After a panic the router answers, which handles a panic of its own as well.
        let answered = std::panic::catch_unwind(AssertUnwindSafe(|| fast_path.answer(&asked)));
        let mut response = answered.ok().flatten()?;
        Edge::tell(&response, request.uri().path(), request.headers(), client.ip, &id);
        Edge::finish(&mut response, &id);
        Some(response)
    }

    /// The response of the router.
    pub async fn route<B>(self, mut request: Request<B>, peer: HttpPeer) -> Response
    where
        B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
    {
        request.extensions_mut().insert(ConnectInfo(peer.addr));
        if let Some(over_tls) = peer.over_tls {
            request.extensions_mut().insert(over_tls);
        }
        if let Some(certificate) = peer.certificate {
            request.extensions_mut().insert(certificate);
        }
        match self.router.oneshot(request.map(axum::body::Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
