//! The steps around every request and response.
//!
//! Incoming: the request gets an id, its client is resolved, and its body is read within the limit. Its handler then
//! has [`REQUEST_TIMEOUT`]. Outgoing: a panic or time-out becomes a plain response, and every response carries the id
//! and the security headers, whichever code made it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use futures_util::FutureExt;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tracing::Instrument;

use super::cidr::Cidr;
use super::client::ClientInfo;
use super::denial::{self, Denial, Presented};
use super::fault::{Fault, wants_page};
use super::headers::fence;
use super::request_id::{self, Names, RequestId};
use conclave_base::runtime::Entropy;

/// Time limit of a request, its body included. A write held through an election takes 3 s; a proxy in front usually
/// gives up at 60 s.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Renders an error page; the pages are in another room.
pub type ErrorPage = Arc<dyn Fn(&Fault, &RequestId) -> String + Send + Sync>;

/// The configuration of the edge.
#[derive(Clone)]
pub struct EdgeConfig {
    pub entropy: Arc<dyn Entropy>,
    pub trusted_proxies: Vec<Cidr>,
    pub max_body_bytes: usize,
    pub request_timeout: Duration,
    pub error_page: ErrorPage,
}

impl fmt::Debug for EdgeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeConfig")
            .field("trusted_proxies", &self.trusted_proxies)
            .field("max_body_bytes", &self.max_body_bytes)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

/// The layer around all requests. Cheap to clone.
#[derive(Clone)]
pub struct Edge(Arc<Inner>);

struct Inner {
    config: EdgeConfig,
    names: Names,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Edge").field(&self.0.config).finish()
    }
}

impl Edge {
    pub fn new(config: EdgeConfig) -> Self {
        let names = Names::new(Arc::clone(&config.entropy));
        Self(Arc::new(Inner { config, names }))
    }

    /// Wraps all routes of `router`, its fallback included.
    pub fn around(&self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self.clone(), pass))
    }

    /// The response for a fault: a page for a browser, else a problem document.
    pub fn answer(&self, fault: &Fault, id: &RequestId, page: bool) -> Response {
        if page {
            let page = (fault.status, Html((self.0.config.error_page)(fault, id))).into_response();
            Denial::new(fault.code, &fault.detail).on(page)
        } else {
            fault.problem(id)
        }
    }

    /// The response for a fault before the router, such as a body that is too large. Programs of any origin may read
    /// it: it is equal for all callers, and a browser application would otherwise get a network error.
    fn answered_before_the_router(&self, fault: &Fault, id: &RequestId, page: bool) -> Response {
        let mut response = self.answer(fault, id, page);
        if !page {
            let anywhere = HeaderValue::from_static("*");
            response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, anywhere);
        }
        response
    }

    /// True if this peer is a configured proxy.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.0.config.trusted_proxies.iter().any(|network| network.contains(peer.to_canonical()))
    }

    /// The client that a configured proxy names; `None` if the peer is not a proxy, or its headers are unreadable.
    pub fn client_of_proxy(&self, headers: &HeaderMap, peer: IpAddr) -> Option<ClientInfo> {
        ClientInfo::of_proxy(headers, peer, &self.0.config.trusted_proxies)?.ok()
    }

    /// An id for a request.
    pub fn new_id(&self) -> RequestId {
        self.0.names.next()
    }

    /// Writes the log line of a denial that was answered before the router or beside it.
    pub fn tell(response: &Response, path: &str, headers: &HeaderMap, client: IpAddr, id: &RequestId) {
        denial::tell(response, &Presented::of(path, None, headers), client, id);
    }

    /// Adds the headers that every response carries.
    pub fn finish(response: &mut Response, id: &RequestId) {
        if let Some(value) = id.header() {
            response.headers_mut().insert(request_id::HEADER, value);
        }
        fence(response);
    }

    async fn run(
        &self,
        request: Request,
        client: Result<ClientInfo, Fault>,
        id: &RequestId,
        presented: &Presented,
        next: Next,
    ) -> Result<Response, Fault> {
        let work = async {
            let request = self.admit(request, client?, id, presented).await?;
            Ok(next.run(request).await)
        };
        let guarded = AssertUnwindSafe(work).catch_unwind();
        match tokio::time::timeout(self.0.config.request_timeout, guarded).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_panic)) => {
                tracing::error!(request.id = %id, "a request handler panicked");
                Err(Fault::internal())
            }
            Err(_elapsed) => {
                tracing::warn!(request.id = %id, "a request was aborted after {:?}", self.0.config.request_timeout);
                Err(Fault::timeout())
            }
        }
    }

    /// The request with its id, its client and its whole body, all within bounds.
    async fn admit(
        &self,
        request: Request,
        client: ClientInfo,
        id: &RequestId,
        presented: &Presented,
    ) -> Result<Request, Fault> {
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(client);
        parts.extensions.insert(id.clone());
        let body = self.read(body, parts.headers.get(CONTENT_LENGTH)).await?;
        // Set once per request; the bytes are shared with the handler, not copied.
        let _ = presented.form.set(body.clone());
        Ok(Request::from_parts(parts, Body::from(body)))
    }

    /// Reads the body before the handler runs. So a handler never waits for a slow client, and a body that is too large
    /// is refused alike everywhere.
    async fn read(&self, body: Body, announced: Option<&http::HeaderValue>) -> Result<Bytes, Fault> {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let limit = self.0.config.max_body_bytes;
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(Fault::body_too_large(limit));
        }
        match Limited::new(body, limit).collect().await {
            Ok(whole) => Ok(whole.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Fault::body_too_large(limit)),
            Err(_) => Err(Fault::body_unreadable()),
        }
    }
}

async fn pass(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let id = edge.new_id();
    let page = wants_page(request.headers());
    // The path only: queries contain codes and states.
    let span = tracing::info_span!(
        "http.request",
        request.id = %id,
        http.method = %request.method(),
        http.path = request.uri().path(),
    );
    let presented = Presented::of(request.uri().path(), request.uri().query(), request.headers());
    let trusted = &edge.0.config.trusted_proxies;
    let client = ClientInfo::resolve(request.headers(), request.extensions(), trusted);
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let address = match &client {
        Ok(client) => client.ip,
        Err(_) => peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    };
    let outcome = edge.run(request, client, &id, &presented, next).instrument(span).await;
    let mut response = outcome.unwrap_or_else(|fault| edge.answered_before_the_router(&fault, &id, page));
    if page && let Some(fault) = bare_refusal(&response) {
        let shown = edge.answer(&fault, &id, page);
        let (parts, _) = response.into_parts();
        let (mut head, body) = shown.into_parts();
        if let Some(allow) = parts.headers.get(ALLOW) {
            head.headers.insert(ALLOW, allow.clone());
        }
        response = Response::from_parts(head, body);
    }
    denial::tell(&response, &presented, address, &id);
    Edge::finish(&mut response, &id);
    response
}

/// The fault behind a bare response of the router or an extractor: empty, plain text or a problem document. `None` for
/// every response with content of its own, such as OAuth errors, which are JSON for every caller.
fn bare_refusal(response: &Response) -> Option<Fault> {
    let headers = response.headers();
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_bare = kind.is_empty() || kind.starts_with("text/plain") || kind == "application/problem+json";
    if !is_bare || headers.contains_key(LOCATION) || headers.contains_key(WWW_AUTHENTICATE) {
        return None;
    }
    match response.status() {
        StatusCode::NOT_FOUND => Some(Fault::not_found()),
        StatusCode::METHOD_NOT_ALLOWED => Some(Fault::method_not_allowed()),
        status @ (StatusCode::BAD_REQUEST
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY) => {
            let detail = "Your browser sent a request that this server cannot read.";
            Some(Fault::new(status, "bad_request", "Bad request", detail))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "edge_tests.rs"]
mod tests;
