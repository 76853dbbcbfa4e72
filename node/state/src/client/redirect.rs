//! Matches redirect URIs: a registered URI must match exactly (RFC 9700 §2.1), except for the port of a native
//! application.
//!
//! A native application listens on any free port (RFC 8252 §7.3). So for a public client whose registered URI is http
//! on a loopback literal or localhost, any port matches. The rest of the URI must be the registered one.

use super::Client;

/// Prefixes of the URIs of native applications. No user name can stand before these hosts.
const LOOPBACK: [&str; 3] = ["http://127.0.0.1", "http://[::1]", "http://localhost"];

impl Client {
    /// True if a code may be sent to this URI.
    pub fn may_be_answered_at(&self, address: &str) -> bool {
        let is_registered = |registered: &String| {
            registered == address || (self.is_public() && differ_in_port_alone(registered, address))
        };
        self.redirect_uris.iter().any(is_registered)
    }
}

fn differ_in_port_alone(registered: &str, address: &str) -> bool {
    LOOPBACK.iter().any(|host| {
        let rest = |text| portless(str::strip_prefix(text, *host)?);
        matches!((rest(registered), rest(address)), (Some(known), Some(given)) if known == given)
    })
}

/// The path and query after the host and port; none if the text between them is not a port.
fn portless(rest: &str) -> Option<&str> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (port, path) = rest.split_at(end);
    let Some(digits) = port.strip_prefix(':') else { return port.is_empty().then_some(path) };
    let is_port = !digits.starts_with(['0', '+']) && digits.parse::<u16>().is_ok();
    is_port.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_application_may_listen_on_any_port_and_nothing_else_may_differ() {
        for (registered, address, same) in [
            ("http://127.0.0.1/cb", "http://127.0.0.1:51004/cb", true),
            ("http://127.0.0.1:8000/cb", "http://127.0.0.1/cb", true),
            ("http://[::1]:1/cb?x=1", "http://[::1]:2/cb?x=1", true),
            ("http://localhost/cb", "http://localhost:3118/cb", true),
            ("http://127.0.0.1", "http://127.0.0.1:8", true),
            ("http://127.0.0.1/cb", "http://127.0.0.1:8/cb/", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:8/cb?x=1", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1.evil.test/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:8@evil.test/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1@evil.test/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:65536/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:+80/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:080/cb", false),
            ("http://127.0.0.1/cb", "http://localhost:8/cb", false),
            ("http://localhost/cb", "http://localhost.evil.test/cb", false),
            ("https://127.0.0.1/cb", "https://127.0.0.1:8/cb", false),
            ("https://app.test/cb", "https://app.test:8/cb", false),
        ] {
            assert_eq!(differ_in_port_alone(registered, address), same, "{registered} {address}");
        }
    }
}
