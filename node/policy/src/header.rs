//! Extra headers: the names that an operator may use. A name with a meaning to the protocol, to the proxy or to this
//! product would let a policy assert what only those may assert.

/// Longest name.
const MAX_NAME_BYTES: usize = 64;

/// Names that carry the identity itself, which a policy must not change. Families are recognised by their prefix.
pub const NAMES_THAT_ARE_OURS: [&str; 4] = ["x-authentik-", "x-auth-request-", "remote-", "x-conclave-"];

/// Families of names that proxies and protocols own.
const FAMILIES: [&str; 10] = [
    "x-forwarded-",
    "x-original-",
    "x-real-",
    "x-envoy-",
    "x-accel-",
    "access-control-",
    "content-",
    "proxy-",
    "sec-",
    "cf-",
];

/// Single names: hop-by-hop headers (RFC 9110 §7.6.1), framing, credentials, cookies, and headers that decide the
/// target of a request.
const NAMES: [&str; 37] = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "expect",
    "host",
    "authorization",
    "authentication-info",
    "www-authenticate",
    "cookie",
    "set-cookie",
    "set-cookie2",
    "forwarded",
    "location",
    "origin",
    "referer",
    "range",
    "if-range",
    "vary",
    "date",
    "server",
    "age",
    "cache-control",
    "pragma",
    "strict-transport-security",
    "clear-site-data",
    "x-http-method-override",
    "x-method-override",
    "x-http-method",
    "x-frame-options",
    "x-rewrite-url",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
];

/// The reason for which the name may not be used for an extra header; none if it may.
pub fn refusal(name: &str) -> Option<String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(fits) {
        return Some(format!(
            "{name:?} is not a header name; it may have only lower-case letters, digits and '-'"
        ));
    }
    let is_of = |families: &[&str]| {
        families.iter().any(|prefix| name.starts_with(prefix) || name == prefix.trim_end_matches('-'))
    };
    if is_of(&NAMES_THAT_ARE_OURS) {
        return Some(format!("{name} is one of the identity headers"));
    }
    if is_of(&FAMILIES) || NAMES.contains(&name) {
        return Some(format!("{name} has a meaning to proxies or to HTTP itself"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn names_that_mean_something_already_are_refused() {
        for name in [
            "host",
            "cookie",
            "set-cookie",
            "authorization",
            "content-length",
            "content-type",
            "transfer-encoding",
            "connection",
            "x-forwarded-for",
            "x-forwarded-host",
            "forwarded",
            "x-original-url",
            "true-client-ip",
            "x-accel-redirect",
            "remote-user",
            "x-authentik-username",
            "x-auth-request-user",
            "proxy-authorization",
            "upgrade",
            "X-Role",
            "x_role",
            "x.role",
            "x role",
            "",
            "x-role\r\nhost",
        ] {
            assert!(refusal(name).is_some(), "{name:?}");
        }
        for name in ["x-role", "x-webauth-user", "x-grafana-org"] {
            assert_eq!(refusal(name), None, "{name}");
        }
    }
}
