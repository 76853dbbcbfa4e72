//! One URL in front of all nodes. *Every* request goes to the next node, so that a user's clicks are load-balanced
//! without stickiness. A node that does not answer is skipped. Requests for the application's host are checked by
//! forward-auth first, as Traefik does.
//!
//! A request that is sent again carries one `Idempotency-Key`, so that the second node returns the reply of the first.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout};

use conclave_base::runtime::Runtime;
use conclave_crypto::hex;

use super::layout::{APP_HOST, Layout};

/// The largest request body that is forwarded.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The time for which the front tries to find a node that answers.
const WAIT_LIMIT: Duration = Duration::from_secs(8);
/// The time limit of one node: it holds a write for up to three seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The pause after every node has failed once.
const PAUSE: Duration = Duration::from_millis(20);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

type HttpClient = Client<HttpConnector, Body>;

/// A client for plain HTTP on this machine.
pub(super) fn client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_millis(500)));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(20))
        .build(connector)
}

struct Front {
    layout: Arc<Layout>,
    client: HttpClient,
    next: AtomicUsize,
    runtime: Runtime,
}

pub(super) fn router(layout: Arc<Layout>, runtime: Runtime) -> Router {
    let front = Arc::new(Front { layout, client: client(), next: AtomicUsize::new(0), runtime });
    Router::new().fallback(handle).with_state(front)
}

/// A request with its whole body, so that it can be sent more than once.
struct Whole {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

async fn handle(
    State(front): State<Arc<Front>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let host = host_of(&parts);
    let whole = front.whole(parts, body, peer, &host);
    let is_app = host.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case(APP_HOST));
    if is_app && !whole.uri.path().starts_with("/.conclave/") {
        return front.application(whole).await;
    }
    // The check trusts what a proxy reports of a request. It is for proxies, and must not be reachable through this
    // front.
    if whole.uri.path().starts_with("/auth/") {
        return StatusCode::NOT_FOUND.into_response();
    }
    front.any_node(&whole).await
}

fn host_of(parts: &Parts) -> String {
    let header = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    header.or(parts.uri.host()).unwrap_or_default().to_owned()
}

impl Front {
    fn whole(&self, parts: Parts, body: Bytes, peer: SocketAddr, host: &str) -> Whole {
        let mut headers = parts.headers;
        strip(&mut headers);
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        put("x-forwarded-for", &peer.ip().to_string());
        put("x-forwarded-proto", "http");
        put("x-forwarded-host", host);
        let key = hex::encode(&self.runtime.entropy.bytes::<16>());
        if parts.method != Method::GET
            && parts.method != Method::HEAD
            && !headers.contains_key(&IDEMPOTENCY_KEY)
        {
            headers.extend(HeaderValue::from_str(&key).ok().map(|key| (IDEMPOTENCY_KEY, key)));
        }
        Whole { method: parts.method, uri: parts.uri, headers, body }
    }

    /// The response of the next node that answers.
    async fn any_node(&self, whole: &Whole) -> Response {
        let path = whole.uri.path_and_query().map_or("/", |path| path.as_str());
        self.ask(&whole.method, path, &whole.headers, &whole.body).await
    }

    async fn ask(&self, method: &Method, path: &str, headers: &HeaderMap, body: &Bytes) -> Response {
        let deadline = Instant::now() + WAIT_LIMIT;
        let mut last = None;
        let nodes = usize::try_from(self.layout.nodes).unwrap_or(1);
        for attempt in 1.. {
            let node = self.next.fetch_add(1, Ordering::Relaxed) % nodes;
            let addr = self.layout.http_addr(node as u64 + 1);
            match self.send(addr, method, path, headers.clone(), body.clone()).await {
                Some(reply) if reply.status() == StatusCode::SERVICE_UNAVAILABLE => last = Some(reply),
                Some(reply) => return reply,
                None => {}
            }
            if Instant::now() >= deadline {
                break;
            }
            if attempt % nodes == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        last.unwrap_or_else(|| (StatusCode::BAD_GATEWAY, "no node answers\n").into_response())
    }

    async fn send(
        &self,
        to: SocketAddr,
        method: &Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Option<Response> {
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(format!("http://{to}{path}"))
            .body(Body::from(body))
            .ok()?;
        *request.headers_mut() = headers;
        let reply = timeout(ANSWER_LIMIT, self.client.request(request)).await.ok()?.ok()?;
        Some(reply.map(Body::new))
    }

    /// Acts as Traefik does: sends a check to any node, then forwards the request with the identity headers, or returns
    /// the check's response.
    async fn application(&self, mut whole: Whole) -> Response {
        let mut question = whole.headers.clone();
        let uri = whole.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        for (name, value) in [("x-forwarded-method", whole.method.as_str()), ("x-forwarded-uri", &uri)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                question.insert(HeaderName::from_static(name), value);
            }
        }
        question.remove(header::CONTENT_LENGTH);
        let answer = self.ask(&Method::GET, "/auth/traefik", &question, &Bytes::new()).await;
        if answer.status() != StatusCode::OK {
            return answer;
        }
        for name in conclave_forward_auth::IDENTITY_HEADERS {
            whole.headers.remove(name);
            whole.headers.extend(
                answer.headers().get(name).map(|value| (HeaderName::from_static(name), value.clone())),
            );
        }
        let to = self.layout.app_addr();
        let reply = self.send(to, &whole.method, &uri, whole.headers, whole.body).await;
        reply.unwrap_or_else(|| StatusCode::BAD_GATEWAY.into_response())
    }
}

/// Removes the headers that a client must not set itself, and those that belong to one connection only.
fn strip(headers: &mut HeaderMap) {
    let foreign: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            let identity =
                conclave_forward_auth::IDENTITY_HEADERS.contains(&name.replace(['_', '.'], "-").as_str());
            identity || name.starts_with("x-forwarded-") || name.contains(['_', '.'])
        })
        .cloned()
        .collect();
    let hop =
        [header::CONNECTION, header::TRANSFER_ENCODING, header::TE, HeaderName::from_static("keep-alive")];
    for name in foreign.into_iter().chain(hop) {
        headers.remove(name);
    }
}
