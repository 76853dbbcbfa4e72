//! What the original request was, as one proxy says it. Each dialect reads its own header names and no other's.
//!
//! Attacks that worked elsewhere live here: `X-Forwarded-Uri` from a client, a second `X-Forwarded-Host`, `X_Forwarded_Host`,
//! `%2e%2e`, a fragment in the path. So: only configured proxies speak; a name comes once; a look-alike name refuses the request;
//! a path that could be read in two ways is refused, never guessed at (features.md §3).

use axum::http::{HeaderMap, Method};

use crate::{auth::ticket::AppUrl, http::ClientInfo};

use super::identity;

/// Longest URI looked at.
const MAX_URI_BYTES: usize = 8 * 1024;
/// Longest `host:port` (RFC 1035 §2.3.4 and five digits).
const MAX_AUTHORITY_BYTES: usize = 253 + 6;

/// Whose way of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Traefik,
    Caddy,
    Nginx,
}

/// The original request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    pub method: Method,
    pub url: AppUrl,
    /// A person's browser goes to a page, and can be sent to another.
    pub is_navigation: bool,
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

impl Dialect {
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Traefik | Self::Caddy => &[METHOD, PROTO, HOST, URI],
            Self::Nginx => &[ORIGINAL_URL, ORIGINAL_METHOD],
        }
    }
}

/// Reads the original request.
///
/// # Errors
/// [`Refused`].
pub fn read(
    dialect: Dialect,
    client: ClientInfo,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Original, Refused> {
    if !client.via_trusted_proxy {
        return Err(Refused::NotAProxy);
    }
    if method != Method::GET && method != Method::HEAD {
        return Err(Refused::Method);
    }
    no_aliases(dialect, headers)?;
    let (method, scheme, authority, path) = match dialect {
        Dialect::Traefik | Dialect::Caddy => {
            (one(headers, METHOD)?, one(headers, PROTO)?, one(headers, HOST)?, one(headers, URI)?)
        }
        Dialect::Nginx => {
            let url = one(headers, ORIGINAL_URL)?;
            let (scheme, rest) = url.split_once("://").ok_or(Refused::Unreadable(ORIGINAL_URL))?;
            let slash = rest.find('/').ok_or(Refused::Unreadable(ORIGINAL_URL))?;
            let (authority, path) = rest.split_at(slash);
            (one(headers, ORIGINAL_METHOD)?, scheme, authority, path)
        }
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refused::Unreadable(METHOD))?;
    let url = AppUrl {
        scheme: scheme_of(scheme)?.to_owned(),
        authority: authority_of(authority)?,
        path: path_of(path)?.to_owned(),
    };
    let is_navigation = is_navigation(&method, headers);
    Ok(Original { method, url, is_navigation })
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

/// WebSocket schemes are named by some proxies; the page they belong to is http or https.
fn scheme_of(scheme: &str) -> Result<&'static str, Refused> {
    match scheme {
        "https" | "wss" => Ok("https"),
        "http" | "ws" => Ok("http"),
        _ => Err(Refused::Unreadable(PROTO)),
    }
}

/// `host[:port]`, lower case: a name or an address, nothing that could be a user, a list or a path.
fn authority_of(authority: &str) -> Result<String, Refused> {
    let bad = Refused::Unreadable(HOST);
    let (host, port) =
        authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let name = |host: &str| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    let good_port = port.is_none_or(|port| {
        port.parse::<u16>().is_ok_and(|p| p != 0) && port.bytes().all(|b| b.is_ascii_digit())
    });
    if authority.len() > MAX_AUTHORITY_BYTES || !name(host) || !good_port {
        return Err(bad);
    }
    Ok(authority.to_ascii_lowercase())
}

/// A path and query that have one reading: it starts with one slash, its escapes are whole, and its path, once decoded, has no
/// dot segment, no slash or backslash that was escaped, no control byte.
fn path_of(uri: &str) -> Result<&str, Refused> {
    if uri.len() > MAX_URI_BYTES || !uri.starts_with('/') || uri.starts_with("//") {
        return Err(Refused::Unreadable(URI));
    }
    if uri.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'#' | b'\\')) {
        return Err(Refused::Ambiguous);
    }
    let path = uri.split('?').next().unwrap_or(uri);
    let decoded = decoded(path).ok_or(Refused::Ambiguous)?;
    let dots = decoded.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b".."));
    let slashes = |bytes: &[u8]| bytes.split(|byte| *byte == b'/').count();
    let escaped = slashes(&decoded) != slashes(path.as_bytes());
    let strange = decoded.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\');
    if dots || escaped || strange { Err(Refused::Ambiguous) } else { Ok(uri) }
}

/// Percent-decoded once; none when an escape is broken.
fn decoded(path: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        let hex = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
        out.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
    }
    Some(out)
}

/// Whether a person's browser goes to a page: only then does a redirect lead anywhere (features.md F11, F12).
fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if (method != Method::GET && method != Method::HEAD) || headers.contains_key("upgrade") {
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
