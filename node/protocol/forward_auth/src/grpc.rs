//! Envoy's ext_authz over gRPC: `envoy.service.auth.v3.Authorization/Check`, on a listener of its own.
//!
//! The listener is separate, since the main one speaks HTTP/1.1 to all clients. HTTP/2 without TLS is meant for one
//! nearby proxy and need not be exposed to the world. Connections of peers that are not configured proxies are dropped,
//! and unreadable requests are denied.
//!
//! Envoy sends method, scheme, host and path as fields, which a client cannot set; the headers beside them are the
//! client's own. So all identity headers are overwritten, look-alikes of them and our cookies are removed, and so are
//! the credentials of a machine client.

use std::{
    collections::BTreeSet,
    future::{Future, ready},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{
    body::to_bytes,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};
use conclave_proto::envoy::auth::v3::{
    self as pb,
    authorization_server::{Authorization, AuthorizationServer},
    check_response::HttpResponse,
    header_value_option::AppendAction,
};
use futures_util::StreamExt as _;
use tokio::net::TcpStream;
use tonic::{
    Request, Status,
    transport::{Server, server::TcpIncoming},
};

use conclave_auth::ticket::Mount;
use conclave_http::{ClientInfo, Edge, RequestId, cookie};

use super::{
    ForwardAuth,
    check::{self, Credential, Decision},
    identity,
    metadata::{self, Dialect, EnvoyRequest, MetadataError},
    respond,
};

/// Maximum length of a check request: Envoy sends the request's head, of which it accepts 60 KiB by default, and never
/// a body.
const MAX_QUESTION_BYTES: usize = 256 * 1024;
/// Maximum length of a page for a denied request.
const MAX_PAGE_BYTES: usize = 256 * 1024;
/// Time limit of a check: one that waits for a leader takes a second.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Maximum number of concurrent checks per connection; Envoy opens further connections.
const CHECKS_PER_CONNECTION: usize = 1024;
/// Time after which a silent connection is probed.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Time limit for checks in progress once the node stops.
const DRAIN: Duration = Duration::from_secs(2);

/// google.rpc.Code
const OK: i32 = 0;
const PERMISSION_DENIED: i32 = 7;
const UNAUTHENTICATED: i32 = 16;

/// The ext_authz service.
#[derive(Clone)]
pub struct Grpc {
    slice: ForwardAuth,
    edge: Edge,
}

/// Serves until `shutdown`.
///
/// # Errors
/// Fails if the listener cannot be used.
pub async fn serve(
    listener: tokio::net::TcpListener,
    slice: ForwardAuth,
    edge: Edge,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let guard = edge.clone();
    // Connections of peers that are not configured proxies are dropped.
    let proxies = TcpIncoming::from(listener).with_nodelay(Some(true)).filter(move |accepted| {
        let peer = accepted.as_ref().map(TcpStream::peer_addr);
        ready(peer.map_or(true, |peer| peer.is_ok_and(|peer| guard.trusts(peer.ip()))))
    });
    let service =
        AuthorizationServer::new(Grpc { slice, edge }).max_decoding_message_size(MAX_QUESTION_BYTES);
    let (tell, request) = tokio::sync::oneshot::channel::<()>();
    let server = Server::builder()
        .timeout(CALL_LIMIT)
        .concurrency_limit_per_connection(CHECKS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(service)
        .serve_with_incoming_shutdown(proxies, async {
            // A dropped sender also ends the wait.
            let _ = request.await;
        });
    let stopping = async {
        shutdown.await;
        drop(tell);
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = server => ended.map_err(std::io::Error::other),
        () = stopping => Ok(()),
    }
}

#[tonic::async_trait]
impl Authorization for Grpc {
    async fn check(
        &self,
        request: Request<pb::CheckRequest>,
    ) -> Result<tonic::Response<pb::CheckResponse>, Status> {
        let peer = request.remote_addr();
        let check = request.into_inner().attributes.and_then(|attributes| attributes.request?.http);
        let check = check.ok_or_else(|| Status::invalid_argument("the check contains no HTTP request"))?;
        self.answer(peer, &check).await.map(tonic::Response::new)
    }
}

impl Grpc {
    async fn answer(
        &self,
        peer: Option<SocketAddr>,
        check: &pb::HttpRequest,
    ) -> Result<pb::CheckResponse, Status> {
        let id = self.edge.new_id();
        let of_peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let read = headers_of(check).and_then(|headers| Ok((self.original(peer, check, &headers)?, headers)));
        let (original, headers) = match read {
            Ok(read) => read,
            Err(refused) => {
                return self.denied(respond::unreadable(&self.slice, refused, &id), of_peer, &id).await;
            }
        };
        let decision = match check::decide_at_once(&self.slice, &original, &headers) {
            Some(decision) => decision,
            None => check::decide(&self.slice, &original, &headers).await,
        };
        let extra = names_of(decision.extra());
        let credential = match &decision {
            Decision::Allow { credential, .. } => Some(*credential),
            // The machine client's credentials are then for the application.
            Decision::Public { .. } => Some(Credential::Session),
            // Envoy tries the next node, if its configuration says so.
            Decision::Unavailable { why } => {
                respond::log_unavailable(&original, &id, why);
                return Err(Status::unavailable("this node cannot decide; try another"));
            }
            _ => None,
        };
        let response = respond::to_proxy(&self.slice, Dialect::EnvoyGrpc, &original, decision, &id);
        match credential {
            Some(credential) if response.status() == axum::http::StatusCode::OK => {
                Ok(allowed(&response, &headers, credential, &extra))
            }
            _ => self.denied(response, original.address, &id).await,
        }
    }

    fn original(
        &self,
        peer: Option<SocketAddr>,
        check: &pb::HttpRequest,
        headers: &HeaderMap,
    ) -> Result<metadata::Original, MetadataError> {
        let client: Option<ClientInfo> = peer.and_then(|peer| self.edge.client_of_proxy(headers, peer.ip()));
        let request = EnvoyRequest {
            client: client.ok_or(MetadataError::NotAProxy)?,
            method: &check.method,
            scheme: &check.scheme,
            host: &check.host,
            path: &check.path,
            headers,
        };
        metadata::read_envoy(&request, Mount::Conclave)
    }

    /// The page, or the redirect to the sign-in, in place of the application's response.
    async fn denied(
        &self,
        mut response: Response,
        client: IpAddr,
        id: &RequestId,
    ) -> Result<pb::CheckResponse, Status> {
        Edge::tell(&response, Mount::Conclave.checks(), &HeaderMap::new(), client, id);
        Edge::finish(&mut response, id);
        let (parts, body) = response.into_parts();
        let body =
            to_bytes(body, MAX_PAGE_BYTES).await.map_err(|_| Status::internal("the page is too long"))?;
        let code = match parts.status.as_u16() {
            401 | 302 => UNAUTHENTICATED,
            _ => PERMISSION_DENIED,
        };
        let headers = parts.headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH);
        let denied = pb::DeniedHttpResponse {
            status: Some(pb::HttpStatus { code: parts.status.as_u16().into() }),
            headers: headers
                .filter_map(|(name, value)| {
                    let action = match *name {
                        header::SET_COOKIE | header::WWW_AUTHENTICATE => AppendAction::AppendIfExistsOrAdd,
                        _ => AppendAction::OverwriteIfExistsOrAdd,
                    };
                    Some(option(name.as_str(), value.to_str().ok()?, action))
                })
                .collect(),
            body: String::from_utf8_lossy(&body).into_owned(),
        };
        Ok(answer(code, HttpResponse::DeniedResponse(denied)))
    }
}

fn answer(code: i32, response: HttpResponse) -> pb::CheckResponse {
    let status = pb::Status { code, message: String::new() };
    pb::CheckResponse { status: Some(status), http_response: Some(response) }
}

fn option(name: &str, value: &str, action: AppendAction) -> pb::HeaderValueOption {
    let header = pb::HeaderValue { key: name.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
    pb::HeaderValueOption { header: Some(header), append_action: action.into(), keep_empty_value: true }
}

/// Overwrites a header with bytes that may not be text.
fn raw_option(name: &str, value: Vec<u8>) -> pb::HeaderValueOption {
    let header = match String::from_utf8(value) {
        Ok(text) => return option(name, &text, AppendAction::OverwriteIfExistsOrAdd),
        Err(error) => {
            pb::HeaderValue { key: name.to_owned(), value: String::new(), raw_value: error.into_bytes() }
        }
    };
    let append_action = AppendAction::OverwriteIfExistsOrAdd.into();
    pb::HeaderValueOption { header: Some(header), append_action, keep_empty_value: true }
}

/// The client's headers; a repeated header stays repeated if Envoy sends it so (`encode_raw_headers`).
fn headers_of(check: &pb::HttpRequest) -> Result<HeaderMap, MetadataError> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &[u8]| {
        // HTTP/2 pseudo-headers, which are sent as fields.
        if name.starts_with(':') {
            return Ok(());
        }
        let unreadable = || MetadataError::Unreadable("a header of the request");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unreadable())?;
        let value = HeaderValue::from_bytes(value).map_err(|_| unreadable())?;
        headers.try_append(name, value).map(|_| ()).map_err(|_| unreadable())
    };
    match &check.header_map {
        Some(map) => map.headers.iter().try_for_each(|header| {
            let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
            add(&header.key, value)
        })?,
        None => check.headers.iter().try_for_each(|(name, value)| add(name, value.as_bytes()))?,
    }
    Ok(headers)
}

fn names_of(headers: &[(HeaderName, HeaderValue)]) -> Vec<HeaderName> {
    headers.iter().map(|(name, _)| name.clone()).collect()
}

/// The response for an admitted request. `extra`: the headers that the policy adds.
fn allowed<'a>(
    response: &'a Response,
    request: &HeaderMap,
    credential: Credential,
    extra: &[HeaderName],
) -> pb::CheckResponse {
    // Users' names are UTF-8, which `to_str` does not accept.
    let text = |value: &'a HeaderValue| std::str::from_utf8(value.as_bytes()).ok();
    let value = |name: &str| response.headers().get(name).and_then(text).unwrap_or_default();
    let overwrite = |name: &str, value: &str| option(name, value, AppendAction::OverwriteIfExistsOrAdd);
    let mut headers: Vec<_> = identity::NAMES
        .iter()
        .copied()
        .chain(extra.iter().map(HeaderName::as_str))
        .map(|name| overwrite(name, value(name)))
        .collect();
    let mut remove = look_alikes(request, extra);
    match cookie::without_ours(request) {
        cookie::Rest::Same => {}
        cookie::Rest::Nothing => drop(remove.insert("cookie".to_owned())),
        cookie::Rest::Other(rest) => headers.push(raw_option("cookie", rest)),
    }
    if credential == Credential::Token {
        remove.insert("authorization".to_owned());
    }
    let ok = pb::OkHttpResponse { headers, headers_to_remove: remove.into_iter().collect() };
    answer(OK, HttpResponse::OkResponse(ok))
}

/// The names to remove: `Remote_User`, `remote.user` and every mixture in the request, because applications may read
/// one as ours.
fn look_alikes(request: &HeaderMap, extra: &[HeaderName]) -> BTreeSet<String> {
    let seen =
        request.keys().filter(|name| identity::is_look_alike(name.as_str(), extra)).map(ToString::to_string);
    // For headers that Envoy was configured not to send, the two usual spellings.
    let known = identity::NAMES.into_iter().chain(extra.iter().map(HeaderName::as_str));
    // A name without a dash has no other spelling.
    let known = known.filter(|name| name.contains('-'));
    let usual = known.flat_map(|name| [name.replace('-', "_"), name.replace('-', ".")]);
    seen.chain(usual).collect()
}
