//! The address of the original request, read once: scheme, authority, path. What has two readings is refused, never guessed at.
//!
//! `%2e%2e`, an escaped slash, a fragment, `//`: each was once read one way by a proxy and another way by the application behind
//! it (features.md §3, reference: forward-auth.md §4).

use std::borrow::Cow;

use super::metadata::Refused;
use crate::auth::ticket::{AppUrl, Mount};

/// Longest URI looked at.
const MAX_URI_BYTES: usize = 8 * 1024;
/// Longest `host:port` (RFC 1035 §2.3.4 and five digits).
const MAX_AUTHORITY_BYTES: usize = 253 + 6;

/// The parts as a proxy gave them, each under the name that is told when it cannot be read.
pub struct Parts<'a> {
    pub scheme: (&'static str, &'a str),
    pub authority: (&'static str, &'a str),
    pub path: (&'static str, &'a str),
}

/// # Errors
/// [`Refused`].
pub fn read(parts: &Parts<'_>, mount: Mount) -> Result<AppUrl, Refused> {
    Ok(AppUrl {
        scheme: scheme_of(parts.scheme)?.to_owned(),
        authority: authority_of(parts.authority)?,
        path: path_of(parts.path)?.to_owned(),
        mount,
    })
}

/// `scheme://authority/path`, cut. None: it is not that.
pub fn cut(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find('/')?);
    Some((scheme, authority, path))
}

/// WebSocket schemes are named by some proxies; the page they belong to is http or https.
fn scheme_of((name, scheme): (&'static str, &str)) -> Result<&'static str, Refused> {
    match scheme {
        "https" | "wss" => Ok("https"),
        "http" | "ws" => Ok("http"),
        _ => Err(Refused::Unreadable(name)),
    }
}

/// `host[:port]`, lower case: a name or an address, nothing that could be a user, a list or a path.
fn authority_of((said_in, authority): (&'static str, &str)) -> Result<String, Refused> {
    let (host, port) =
        authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let name = |host: &str| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    let good_port = port.is_none_or(|port| {
        port.parse::<u16>().is_ok_and(|p| p != 0) && port.bytes().all(|b| b.is_ascii_digit())
    });
    if authority.len() > MAX_AUTHORITY_BYTES || !name(host) || !good_port {
        return Err(Refused::Unreadable(said_in));
    }
    Ok(authority.to_ascii_lowercase())
}

/// A path and query that have one reading: it starts with one slash, its escapes are whole, and its path, once decoded, has no
/// dot segment, no slash or backslash that was escaped, no control byte.
fn path_of<'a>((said_in, uri): (&'static str, &'a str)) -> Result<&'a str, Refused> {
    if uri.len() > MAX_URI_BYTES || !uri.starts_with('/') || uri.starts_with("//") {
        return Err(Refused::Unreadable(said_in));
    }
    if uri.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'#' | b'\\')) {
        return Err(Refused::Ambiguous);
    }
    let path = uri.split('?').next().unwrap_or(uri);
    let decoded = if path.contains('%') {
        Cow::Owned(decoded(path).ok_or(Refused::Ambiguous)?)
    } else {
        Cow::Borrowed(path.as_bytes())
    };
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
