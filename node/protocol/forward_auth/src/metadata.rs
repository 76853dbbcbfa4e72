//! The original request, as each proxy describes it. Each dialect reads only its own header names.
//!
//! This module defends against attacks that succeeded elsewhere: `X-Forwarded-Uri` from a client, a second
//! `X-Forwarded-Host`, `X_Forwarded_Host`. So only configured proxies are trusted, each name may appear once, and a
//! look-alike name refuses the request (docs/forward-auth.md).
//!
//! | dialect | original method | scheme | host | path and query |
//! |---|---|---|---|---|
//! | Traefik, Caddy, HAProxy | `X-Forwarded-Method` | `X-Forwarded-Proto` | `X-Forwarded-Host` | `X-Forwarded-Uri` |
//! | nginx | `X-Original-Method` | `X-Original-URL` | as the scheme | as the scheme |
//! | nginx, for the page of a refusal | as nginx | | | |
//! | Envoy over HTTP | the check's own | `X-Forwarded-Proto` | `Host` | the check's own path, after the route |
//! | Envoy over gRPC | fields of the message: `method`, `scheme`, `host`, `path` | | | |

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use conclave_auth::ticket::{AppUrl, Mount};
use conclave_http::ClientInfo;

use super::{
    address::{self, Parts},
    identity,
    purpose::{self, Purpose},
};

/// The proxy's request format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Traefik,
    Caddy,
    Nginx,
    /// nginx's second request, for the page that the visitor gets instead of the application: `auth_request` passes on
    /// a status and nothing else.
    NginxPage,
    Haproxy,
    Envoy,
    /// Sends messages instead of requests to a path: see `grpc`.
    EnvoyGrpc,
}

/// A check request.
pub(crate) struct CheckRequest<'a> {
    pub dialect: Dialect,
    /// The mount of the check's path, and so of the round trip on the application's host.
    pub mount: Mount,
    pub client: ClientInfo,
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
}

/// The original request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Original {
    pub method: Method,
    pub url: AppUrl,
    /// The URL's host, by which applications are found.
    pub host: String,
    /// The client's address, through trusted proxies.
    pub address: IpAddr,
    /// True if a header tells the application to treat the request as one of another method. Rules about methods cannot
    /// be decided then, because proxy and application may disagree.
    pub method_in_doubt: bool,
    /// The client's use of the response.
    pub purpose: Purpose,
    /// True if the client is a browser or accepts a page; it then never gets a challenge for machine clients.
    pub is_browser: bool,
}

/// The reason why the metadata is refused. For the operator's log; the visitor gets less detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("the peer is not a trusted proxy; add its address to http.trusted_proxies")]
    NotAProxy,
    #[error("the check itself must be a GET or HEAD")]
    Method,
    #[error("{0} is missing; see the proxy snippets in deploy/")]
    Missing(&'static str),
    #[error("{0} is there more than once")]
    Duplicate(&'static str),
    #[error("a header that looks like {0} is there; the proxy must not let it through")]
    Alias(&'static str),
    #[error("{0} cannot be read")]
    Unreadable(&'static str),
    #[error(
        "the path has a dot segment, a fragment, a blank or a control byte; the proxy must normalise or refuse it"
    )]
    Ambiguous,
}

/// A header name, as `HeaderName` and as text for error messages.
struct Name {
    label: &'static str,
    header: HeaderName,
}

impl Name {
    const fn new(name: &'static str) -> Self {
        Self { label: name, header: HeaderName::from_static(name) }
    }
}

const METHOD: Name = Name::new("x-forwarded-method");
const PROTO: Name = Name::new("x-forwarded-proto");
const HOST: Name = Name::new("x-forwarded-host");
const URI: Name = Name::new("x-forwarded-uri");
const ORIGINAL_URL: Name = Name::new("x-original-url");
const ORIGINAL_METHOD: Name = Name::new("x-original-method");
/// The name of the route of an Envoy check, for error messages.
const CHECK_PATH: &str = "the path of the check";

impl Dialect {
    fn names(self) -> Vec<&'static str> {
        match self {
            Self::Traefik | Self::Caddy | Self::Haproxy => {
                vec![METHOD.label, PROTO.label, HOST.label, URI.label]
            }
            Self::Nginx | Self::NginxPage => vec![ORIGINAL_URL.label, ORIGINAL_METHOD.label],
            Self::Envoy => vec![PROTO.label],
            Self::EnvoyGrpc => Vec::new(),
        }
    }

    /// The path of the check; in Envoy's dialect the original path follows it.
    pub(crate) const fn route(self) -> &'static str {
        match self {
            Self::Traefik => "/auth/traefik",
            Self::Caddy => "/auth/caddy",
            Self::Nginx => "/auth/nginx",
            Self::NginxPage => "/auth/nginx/page",
            Self::Haproxy => "/auth/haproxy",
            Self::Envoy => "/auth/envoy",
            Self::EnvoyGrpc => "",
        }
    }

    /// True if the proxy passes a redirect on. nginx turns it into a 500.
    pub(crate) const fn passes_redirects(self) -> bool {
        !matches!(self, Self::Nginx)
    }
}

/// Parses the original request.
///
/// # Errors
/// [`MetadataError`].
pub(crate) fn read(check: &CheckRequest<'_>) -> Result<Original, MetadataError> {
    if !check.client.via_trusted_proxy {
        return Err(MetadataError::NotAProxy);
    }
    // Envoy's check has the original method; the others use their own.
    let readable = check.method == Method::GET || check.method == Method::HEAD;
    if check.dialect != Dialect::Envoy && !readable {
        return Err(MetadataError::Method);
    }
    no_aliases(check.dialect, check.headers)?;
    let headers = check.headers;
    let (method, parts) = match check.dialect {
        Dialect::Traefik | Dialect::Caddy | Dialect::Haproxy => {
            let parts = Parts {
                scheme: (PROTO.label, one(headers, &PROTO)?),
                authority: (HOST.label, one(headers, &HOST)?),
                path: (URI.label, one_value(headers, &URI)?.as_bytes()),
            };
            (parse_method(METHOD.label, one(headers, &METHOD)?)?, parts)
        }
        Dialect::Nginx | Dialect::NginxPage => {
            let (label, url) = (ORIGINAL_URL.label, one_value(headers, &ORIGINAL_URL)?.as_bytes());
            let (scheme, authority, path) = address::cut(url).ok_or(MetadataError::Unreadable(label))?;
            let parts = Parts { scheme: (label, scheme), authority: (label, authority), path: (label, path) };
            (nginx_method(check)?, parts)
        }
        Dialect::Envoy => {
            let parts = Parts {
                scheme: (PROTO.label, one(headers, &PROTO)?),
                authority: ("host", own_authority(check)?),
                path: (CHECK_PATH, after_the_route(check)?.as_bytes()),
            };
            (check.method.clone(), parts)
        }
        Dialect::EnvoyGrpc => return Err(MetadataError::Unreadable(CHECK_PATH)),
    };
    original(method, &parts, check.mount, check.client, headers)
}

/// A request as Envoy describes it over gRPC, in fields that a client cannot set.
pub(crate) struct EnvoyRequest<'a> {
    pub client: ClientInfo,
    pub method: &'a str,
    pub scheme: &'a str,
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// The client's own headers.
    pub headers: &'a HeaderMap,
}

/// Parses the request of an Envoy message.
///
/// # Errors
/// [`MetadataError`].
pub(crate) fn read_envoy(request: &EnvoyRequest<'_>, mount: Mount) -> Result<Original, MetadataError> {
    if !request.client.via_trusted_proxy {
        return Err(MetadataError::NotAProxy);
    }
    let parts = Parts {
        scheme: ("scheme", request.scheme),
        authority: ("host", request.host),
        path: ("path", request.path.as_bytes()),
    };
    original(parse_method("method", request.method)?, &parts, mount, request.client, request.headers)
}

fn original(
    method: Method,
    parts: &Parts<'_>,
    mount: Mount,
    client: ClientInfo,
    headers: &HeaderMap,
) -> Result<Original, MetadataError> {
    let url = address::read(parts, mount)?;
    Ok(Original {
        host: url.host(),
        url,
        address: client.ip,
        method_in_doubt: purpose::method_in_doubt(headers),
        purpose: purpose::purpose(&method, headers),
        is_browser: purpose::is_browser(headers),
        method,
    })
}

/// Placeholder for an unknown method; matches no method rule.
pub(crate) const METHOD_UNKNOWN: &str = "UNTOLD";

/// The original method in nginx's dialect. Configurations written for the other product do not send it.
fn nginx_method(check: &CheckRequest<'_>) -> Result<Method, MetadataError> {
    if check.mount == Mount::Authentik && !check.headers.contains_key(&ORIGINAL_METHOD.header) {
        return parse_method(ORIGINAL_METHOD.label, METHOD_UNKNOWN);
    }
    parse_method(ORIGINAL_METHOD.label, one(check.headers, &ORIGINAL_METHOD)?)
}

fn parse_method(name: &'static str, text: &str) -> Result<Method, MetadataError> {
    Method::from_bytes(text.as_bytes()).map_err(|_| MetadataError::Unreadable(name))
}

/// The check's own authority: HTTP/2 has it in the request line, HTTP/1.1 in `Host`.
fn own_authority<'a>(check: &CheckRequest<'a>) -> Result<&'a str, MetadataError> {
    match check.uri.authority() {
        Some(authority) if !check.headers.contains_key(header::HOST) => Ok(authority.as_str()),
        _ => one(check.headers, &Name { label: "host", header: header::HOST }),
    }
}

fn after_the_route<'a>(check: &CheckRequest<'a>) -> Result<&'a str, MetadataError> {
    let whole = check.uri.path_and_query().map_or("", |path| path.as_str());
    let rest =
        whole.strip_prefix(check.mount.checks()).and_then(|path| path.strip_prefix(Dialect::Envoy.route()));
    match rest {
        Some("") => Ok("/"),
        Some(path) => Ok(path),
        None => Err(MetadataError::Unreadable(CHECK_PATH)),
    }
}

fn one<'a>(headers: &'a HeaderMap, name: &Name) -> Result<&'a str, MetadataError> {
    let value = one_value(headers, name)?;
    // Host names may be UTF-8.
    std::str::from_utf8(value.as_bytes()).map_err(|_| MetadataError::Unreadable(name.label))
}

fn one_value<'a>(headers: &'a HeaderMap, name: &Name) -> Result<&'a HeaderValue, MetadataError> {
    let mut values = headers.get_all(&name.header).iter();
    let value = values.next().ok_or(MetadataError::Missing(name.label))?;
    if values.next().is_some() {
        return Err(MetadataError::Duplicate(name.label));
    }
    Ok(value)
}

/// Refuses look-alike names: `X_Forwarded_Host` and `X.Forwarded.Host` become `X-Forwarded-Host` in some servers behind
/// the proxy (CVE-2026-39858).
fn no_aliases(dialect: Dialect, headers: &HeaderMap) -> Result<(), MetadataError> {
    for name in headers.keys().map(HeaderName::as_str).filter(|name| name.contains(['_', '.'])) {
        let plain = name.replace(['_', '.'], "-");
        let ours = dialect
            .names()
            .into_iter()
            .chain(identity::NAMES)
            .find(|known| known.eq_ignore_ascii_case(&plain));
        if let Some(known) = ours {
            return Err(MetadataError::Alias(known));
        }
    }
    Ok(())
}
