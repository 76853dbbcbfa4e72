//! What the original request was, as one proxy says it. Each dialect reads its own header names and no other's.
//!
//! Attacks that worked elsewhere live here: `X-Forwarded-Uri` from a client, a second `X-Forwarded-Host`, `X_Forwarded_Host`. So:
//! only configured proxies speak; a name comes once; a look-alike name refuses the request (features.md §3).
//!
//! | dialect | original method | scheme | host | path and query |
//! |---|---|---|---|---|
//! | Traefik, Caddy, HAProxy | `X-Forwarded-Method` | `X-Forwarded-Proto` | `X-Forwarded-Host` | `X-Forwarded-Uri` |
//! | nginx | `X-Original-Method` | `X-Original-URL` | the same | the same |
//! | Envoy over HTTP | the check's own | `X-Forwarded-Proto` | `Host` | the check's own path, after the route |
//! | Envoy over gRPC | fields of the message: `method`, `scheme`, `host`, `path` | | | |

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, Uri};

use crate::{
    auth::ticket::{AppUrl, Mount},
    http::ClientInfo,
};

use super::{
    address::{self, Parts},
    identity,
};

/// Whose way of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Traefik,
    Caddy,
    Nginx,
    Haproxy,
    Envoy,
    /// Asks in messages, at no path of ours: see `grpc`.
    EnvoyGrpc,
}

/// A check as it came in.
pub struct Asked<'a> {
    pub dialect: Dialect,
    /// Below which paths it came, and where on the application's host the round trip therefore begins.
    pub mount: Mount,
    pub client: ClientInfo,
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
}

/// The original request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    pub method: Method,
    pub url: AppUrl,
    /// Of the URL: what applications are found by.
    pub host: String,
    /// The client's, through trusted proxies.
    pub address: IpAddr,
    /// A person's browser goes to a page, and can be sent to another.
    pub is_navigation: bool,
    /// It says that it is a browser, or wants a page: then it is never asked for what only programs have.
    pub is_browser: bool,
}

/// Why the metadata is refused. For the operator's log; the visitor learns less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
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
    #[error("the path could be read in more than one way")]
    Ambiguous,
}

const METHOD: &str = "x-forwarded-method";
const PROTO: &str = "x-forwarded-proto";
const HOST: &str = "x-forwarded-host";
const URI: &str = "x-forwarded-uri";
const ORIGINAL_URL: &str = "x-original-url";
const ORIGINAL_METHOD: &str = "x-original-method";
/// What the route of a check over Envoy is called in messages.
const CHECK_PATH: &str = "the path of the check";

impl Dialect {
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Traefik | Self::Caddy | Self::Haproxy => &[METHOD, PROTO, HOST, URI],
            Self::Nginx => &[ORIGINAL_URL, ORIGINAL_METHOD],
            Self::Envoy => &[PROTO],
            Self::EnvoyGrpc => &[],
        }
    }

    /// The check's path, before the original one in Envoy's dialect.
    pub const fn route(self) -> &'static str {
        match self {
            Self::Traefik => "/auth/traefik",
            Self::Caddy => "/auth/caddy",
            Self::Nginx => "/auth/nginx",
            Self::Haproxy => "/auth/haproxy",
            Self::Envoy => "/auth/envoy",
            Self::EnvoyGrpc => "",
        }
    }

    /// Whether the proxy passes a redirect on. nginx makes a 500 of one.
    pub const fn passes_redirects(self) -> bool {
        !matches!(self, Self::Nginx)
    }
}

/// Reads the original request.
///
/// # Errors
/// [`Refused`].
pub fn read(asked: &Asked<'_>) -> Result<Original, Refused> {
    if !asked.client.via_trusted_proxy {
        return Err(Refused::NotAProxy);
    }
    // Envoy asks with the original method; the others with one of their own.
    let readable = asked.method == Method::GET || asked.method == Method::HEAD;
    if asked.dialect != Dialect::Envoy && !readable {
        return Err(Refused::Method);
    }
    no_aliases(asked.dialect, asked.headers)?;
    let headers = asked.headers;
    let (method, parts) = match asked.dialect {
        Dialect::Traefik | Dialect::Caddy | Dialect::Haproxy => {
            let parts = Parts {
                scheme: (PROTO, one(headers, PROTO)?),
                authority: (HOST, one(headers, HOST)?),
                path: (URI, one(headers, URI)?),
            };
            (parse_method(METHOD, one(headers, METHOD)?)?, parts)
        }
        Dialect::Nginx => {
            let url = one(headers, ORIGINAL_URL)?;
            let (scheme, authority, path) = address::cut(url).ok_or(Refused::Unreadable(ORIGINAL_URL))?;
            let [scheme, authority, path] = [scheme, authority, path].map(|part| (ORIGINAL_URL, part));
            (nginx_method(asked)?, Parts { scheme, authority, path })
        }
        Dialect::Envoy => {
            let parts = Parts {
                scheme: (PROTO, one(headers, PROTO)?),
                authority: ("host", own_authority(asked)?),
                path: (CHECK_PATH, after_the_route(asked)?),
            };
            (asked.method.clone(), parts)
        }
        Dialect::EnvoyGrpc => return Err(Refused::Unreadable(CHECK_PATH)),
    };
    original(method, &parts, asked.mount, asked.client, headers)
}

/// A request as Envoy tells it over gRPC, in fields that no client writes.
pub struct Told<'a> {
    pub client: ClientInfo,
    pub method: &'a str,
    pub scheme: &'a str,
    pub host: &'a str,
    /// With its query.
    pub path: &'a str,
    /// The client's own.
    pub headers: &'a HeaderMap,
}

/// Reads it.
///
/// # Errors
/// [`Refused`].
pub fn read_told(told: &Told<'_>, mount: Mount) -> Result<Original, Refused> {
    if !told.client.via_trusted_proxy {
        return Err(Refused::NotAProxy);
    }
    let parts =
        Parts { scheme: ("scheme", told.scheme), authority: ("host", told.host), path: ("path", told.path) };
    original(parse_method("method", told.method)?, &parts, mount, told.client, told.headers)
}

fn original(
    method: Method,
    parts: &Parts<'_>,
    mount: Mount,
    client: ClientInfo,
    headers: &HeaderMap,
) -> Result<Original, Refused> {
    let url = address::read(parts, mount)?;
    let (is_navigation, is_browser) = (is_navigation(&method, headers), is_browser(headers));
    Ok(Original { method, host: url.host(), url, address: client.ip, is_navigation, is_browser })
}

/// What stands for a method that the proxy does not tell: no rule about methods matches it.
pub const UNTOLD: &str = "UNTOLD";

/// Snippets written for the other product do not tell the method.
fn nginx_method(asked: &Asked<'_>) -> Result<Method, Refused> {
    if asked.mount == Mount::Authentik && !asked.headers.contains_key(ORIGINAL_METHOD) {
        return parse_method(ORIGINAL_METHOD, UNTOLD);
    }
    parse_method(ORIGINAL_METHOD, one(asked.headers, ORIGINAL_METHOD)?)
}

fn parse_method(name: &'static str, text: &str) -> Result<Method, Refused> {
    Method::from_bytes(text.as_bytes()).map_err(|_| Refused::Unreadable(name))
}

/// The check's own authority: HTTP/2 has it in the request line, HTTP/1.1 in `Host`.
fn own_authority<'a>(asked: &Asked<'a>) -> Result<&'a str, Refused> {
    match asked.uri.authority() {
        Some(authority) if !asked.headers.contains_key("host") => Ok(authority.as_str()),
        _ => one(asked.headers, "host"),
    }
}

fn after_the_route<'a>(asked: &Asked<'a>) -> Result<&'a str, Refused> {
    let whole = asked.uri.path_and_query().map_or("", |path| path.as_str());
    let rest =
        whole.strip_prefix(asked.mount.checks()).and_then(|path| path.strip_prefix(Dialect::Envoy.route()));
    match rest {
        Some("") => Ok("/"),
        Some(path) => Ok(path),
        None => Err(Refused::Unreadable(CHECK_PATH)),
    }
}

fn one<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Refused> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Refused::Missing(name))?;
    if values.next().is_some() {
        return Err(Refused::Duplicate(name));
    }
    value.to_str().map_err(|_| Refused::Unreadable(name))
}

/// `X_Forwarded_Host` and `X.Forwarded.Host` become `X-Forwarded-Host` in some servers behind the proxy (CVE-2026-39858).
fn no_aliases(dialect: Dialect, headers: &HeaderMap) -> Result<(), Refused> {
    for name in headers.keys().map(axum::http::HeaderName::as_str).filter(|name| name.contains(['_', '.'])) {
        let plain = name.replace(['_', '.'], "-");
        let ours = dialect
            .names()
            .iter()
            .chain(identity::NAMES.iter())
            .find(|known| known.eq_ignore_ascii_case(&plain));
        if let Some(known) = ours {
            return Err(Refused::Alias(known));
        }
    }
    Ok(())
}

/// Browsers name their mode with each request (Fetch Metadata), and ask for pages by name.
fn is_browser(headers: &HeaderMap) -> bool {
    let wants_page =
        |value: &axum::http::HeaderValue| value.to_str().is_ok_and(|text| text.contains("text/html"));
    headers.contains_key("sec-fetch-mode")
        || headers.contains_key("x-requested-with")
        || headers.get_all("accept").iter().any(wants_page)
}

/// Whether a person's browser goes to a page: only then does a redirect lead anywhere (features.md F11, F12).
pub fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let reads = *method == Method::GET || *method == Method::HEAD || method.as_str() == UNTOLD;
    if !reads || headers.contains_key("upgrade") || headers.contains_key("sec-websocket-key") {
        return false;
    }
    match text("sec-fetch-mode") {
        Some(mode) => mode == "navigate",
        None => {
            let accept = text("accept").unwrap_or("*/*");
            text("x-requested-with").is_none() && (accept.contains("text/html") || accept.contains("*/*"))
        }
    }
}
