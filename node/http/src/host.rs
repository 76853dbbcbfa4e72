//! Hosts and authorities in canonical form from the moment they are parsed: lower case, without a trailing dot and
//! without the scheme's default port; IPv6 addresses in brackets in their short form (RFC 5952); international names as
//! `xn--` (UTS 46).
//!
//! Every host that is compared, signed or shown passes through here. Otherwise two spellings of one host would be two
//! hosts.

use std::net::Ipv6Addr;

/// Maximum length of a host name (RFC 1035 §2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// The canonical form of `host` or `host:port`, for the scheme `http` or `https`. Returns `None` for anything else,
/// such as a user name, a list or a path.
pub fn canonical_authority(scheme: &str, authority: &str) -> Option<String> {
    // Nearly every authority is already canonical, and every check runs this.
    if is_canonical_name(authority) {
        return Some(authority.to_owned());
    }
    let (host, port) = split_port(authority)?;
    let host = canonical_host(host)?;
    let default = if scheme == "https" { 443 } else { 80 };
    Some(match port {
        Some(port) if port != default => format!("{host}:{port}"),
        _ => host,
    })
}

/// The canonical form of a host without a port. Returns `None` if it is not a name or an address.
pub fn canonical_host(host: &str) -> Option<String> {
    if is_canonical_name(host) {
        return Some(host.to_owned());
    }
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let canonical = if name.is_ascii() { name.to_ascii_lowercase() } else { international(name)? };
    is_canonical_name(&canonical).then_some(canonical)
}

/// The host and the port of an authority; the colons of an IPv6 address in brackets are its own.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_address = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority.get(after_address..)?.rfind(':') else { return Some((authority, None)) };
    let (host, port) = authority.split_at_checked(after_address + colon)?;
    let digits = port.strip_prefix(':')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u16>().ok().filter(|number| is_number && *number != 0)?;
    Some((host, Some(number)))
}

/// A name as it is in DNS. `url` would decode escapes and read numbers as addresses, so such names are refused.
fn international(name: &str) -> Option<String> {
    if name.contains('%') {
        return None;
    }
    match url::Host::parse(name).ok()? {
        url::Host::Domain(domain) => Some(domain),
        url::Host::Ipv4(_) | url::Host::Ipv6(_) => None,
    }
}

fn is_canonical_name(host: &str) -> bool {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    !host.is_empty() && host.len() <= MAX_HOST_BYTES && !host.ends_with('.') && host.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_form() {
        for (scheme, read, canonical) in [
            ("https", "wiki.example.org", "wiki.example.org"),
            ("https", "Wiki.Example.ORG", "wiki.example.org"),
            ("https", "wiki.example.org:443", "wiki.example.org"),
            ("http", "wiki.example.org:443", "wiki.example.org:443"),
            ("http", "wiki.example.org:80", "wiki.example.org"),
            ("https", "wiki.example.org:0443", "wiki.example.org"),
            ("https", "wiki.example.org.", "wiki.example.org"),
            ("https", "wiki.example.org.:8443", "wiki.example.org:8443"),
            ("https", "bücher.example", "xn--bcher-kva.example"),
            ("https", "BÜCHER.example:443", "xn--bcher-kva.example"),
            ("https", "[2001:DB8::0007]:443", "[2001:db8::7]"),
            ("https", "[::1]:8443", "[::1]:8443"),
            ("http", "10.0.0.7:8080", "10.0.0.7:8080"),
            ("http", "my_app.lan", "my_app.lan"),
        ] {
            assert_eq!(canonical_authority(scheme, read).as_deref(), Some(canonical), "{scheme} {read}");
        }
    }

    #[test]
    fn what_is_not_one_host_is_none() {
        for bad in [
            "",
            ".",
            "..",
            "a..",
            ":443",
            "a:",
            "a:0",
            "a:99999",
            "a:+1",
            "a:x",
            "user@a",
            "a,b",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a%2eb",
            "ü%2e",
            "[::1",
            "::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[1.2.3.4]",
            "[]",
            "１２７.0.0.1",
            "a\u{0}b",
        ] {
            assert_eq!(canonical_authority("https", bad), None, "{bad:?}");
        }
        assert_eq!(canonical_host(&"a".repeat(254)), None);
    }
}
