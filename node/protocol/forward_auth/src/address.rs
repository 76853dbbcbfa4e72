//! The address of the original request, parsed once into its canonical form: scheme, authority, path.
//!
//! Paths are accepted as applications use them: with escaped slashes, backslashes, broken escapes and raw UTF-8. They
//! are passed on unchanged, and a visitor returns to exactly that address. A rule that looks at a path decides if it is
//! ambiguous (`conclave_policy::CanonicalPath`), and denies it then. This module refuses only what browsers never send:
//! dot segments, fragments, blanks and control bytes (docs/forward-auth.md).

use std::fmt::Write as _;

use super::metadata::MetadataError;
use conclave_auth::ticket::{AppUrl, Mount};
use conclave_http::host::canonical_authority;

/// Maximum length of path and query. The listener limits a whole head to 64 KiB; proxies limit a request line to 8 KiB
/// as a rule and 60 KiB at most.
const MAX_URI_BYTES: usize = 60 * 1024;

/// The parts of the address as a proxy sent them, each with its source, for error messages.
pub(crate) struct Parts<'a> {
    pub scheme: (&'static str, &'a str),
    pub authority: (&'static str, &'a str),
    /// Raw bytes: a query may hold any.
    pub path: (&'static str, &'a [u8]),
}

/// Parses the parts into a canonical address.
///
/// # Errors
/// [`MetadataError`].
pub(crate) fn read(parts: &Parts<'_>, mount: Mount) -> Result<AppUrl, MetadataError> {
    let scheme = scheme_of(parts.scheme)?;
    let (said_in, authority) = parts.authority;
    Ok(AppUrl {
        scheme: scheme.to_owned(),
        authority: canonical_authority(scheme, authority).ok_or(MetadataError::Unreadable(said_in))?,
        path: path_of(parts.path)?,
        mount,
    })
}

/// Splits `scheme://authority/path` into its parts. Returns `None` for any other text.
pub(crate) fn cut(url: &[u8]) -> Option<(&str, &str, &[u8])> {
    const AFTER_SCHEME: &[u8] = b"://";
    let at = url.windows(AFTER_SCHEME.len()).position(|window| window == AFTER_SCHEME)?;
    let (scheme, rest) = (url.get(..at)?, url.get(at + AFTER_SCHEME.len()..)?);
    let (authority, path) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'/')?)?;
    Some((std::str::from_utf8(scheme).ok()?, std::str::from_utf8(authority).ok()?, path))
}

/// The http scheme of a request. Some proxies send WebSocket schemes; the page that they belong to is http or https.
fn scheme_of((name, scheme): (&'static str, &str)) -> Result<&'static str, MetadataError> {
    match scheme {
        "https" | "wss" => Ok("https"),
        "http" | "ws" => Ok("http"),
        _ => Err(MetadataError::Unreadable(name)),
    }
}

/// The path and query as text that fits into a `Location`.
fn path_of((said_in, uri): (&'static str, &[u8])) -> Result<String, MetadataError> {
    if uri.len() > MAX_URI_BYTES || uri.first() != Some(&b'/') {
        return Err(MetadataError::Unreadable(said_in));
    }
    let never_sent = |byte: &u8| *byte <= b' ' || matches!(byte, b'#' | 0x7f);
    let path = uri.split(|byte| *byte == b'?').next().unwrap_or(uri);
    if uri.iter().any(never_sent) || path.split(|byte| *byte == b'/').any(is_dot_segment) {
        return Err(MetadataError::Ambiguous);
    }
    Ok(encoded(uri, path.len()))
}

/// True for `.` and `..`, each dot also as `%2e` (RFC 3986 §6.2.2.2). Browsers resolve them before they send.
fn is_dot_segment(segment: &[u8]) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    while let Some(after) =
        rest.strip_prefix(b".").or_else(|| rest.strip_prefix(b"%2e")).or_else(|| rest.strip_prefix(b"%2E"))
    {
        (rest, dots) = (after, dots + 1);
    }
    rest.is_empty() && matches!(dots, 1 | 2)
}

/// Percent-encodes the bytes that a browser would change when it returns (WHATWG URL): bytes outside ASCII, and
/// backslashes in the path, which is the first `path_len` bytes.
fn encoded(uri: &[u8], path_len: usize) -> String {
    let changes = |at: usize, byte: u8| !byte.is_ascii() || byte == b'\\' && at < path_len;
    if let Ok(text) = std::str::from_utf8(uri)
        && !uri.iter().enumerate().any(|(at, byte)| changes(at, *byte))
    {
        return text.to_owned();
    }
    let mut text = String::with_capacity(uri.len());
    for (at, byte) in uri.iter().copied().enumerate() {
        if changes(at, byte) {
            // Writing to a String does not fail.
            write!(text, "%{byte:02X}").ok();
        } else {
            text.push(char::from(byte));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_they_come() {
        let read = |uri: &[u8]| path_of(("uri", uri));
        for same in [
            "/",
            "/page?q=1",
            "/api/queues/%2F/orders",
            "/@team%2fwidget",
            "/files/a%5Cb",
            "/100%",
            "/a?b\\c",
            "//double//",
            "/a?x=/../y",
            "/a..b/...",
            "/a?q=%",
            "/%00",
        ] {
            assert_eq!(read(same.as_bytes()).as_deref(), Ok(same));
        }
        for (raw, encoded) in [
            ("/a?q=ä".as_bytes(), "/a?q=%C3%A4"),
            (b"/\xe4?q=\xe4", "/%E4?q=%E4"),
            (b"/a\\b?c\\d", "/a%5Cb?c\\d"),
        ] {
            assert_eq!(read(raw).as_deref(), Ok(encoded));
        }
        for refused in ["/a/../b", "/a/%2e%2E/b", "/.%2e", "/%2e", "/.", "/a b", "/a#b", "/a\u{7f}", "/a\tb"]
        {
            assert_eq!(read(refused.as_bytes()), Err(MetadataError::Ambiguous), "{refused:?}");
        }
        assert_eq!(read(b"page"), Err(MetadataError::Unreadable("uri")));
        assert_eq!(read(b""), Err(MetadataError::Unreadable("uri")));
    }
}
