//! DIDs of the two methods of atproto: `did:plc`, from a directory, and `did:web`, from a host.

use url::{Host, Url};

use super::{error::AtmosphereError, identifier::AtprotoHandle};

/// `did:plc` is 24 characters of base32 after its name.
const PLC_CHARS: usize = 24;

/// A DID in its only valid spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Did(String);

impl Did {
    /// Parses a DID. With `dev`, a `did:web` of this machine with a port is accepted.
    ///
    /// # Errors
    /// [`AtmosphereError::DidUnsupported`]
    pub(crate) fn parse(text: &str, dev: bool) -> Result<Self, AtmosphereError> {
        let is_good = match text.split_once(':').and_then(|(_, rest)| rest.split_once(':')) {
            Some(("plc", id)) if text.starts_with("did:") => {
                id.len() == PLC_CHARS && id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
            }
            // A host name and nothing else: no path, no port, no IP address, no percent-encoding.
            Some(("web", host)) if text.starts_with("did:") => {
                AtprotoHandle::parse(host, dev).is_ok_and(|name| name.as_str() == host)
                    || (dev && is_this_machine(host))
            }
            _ => false,
        };
        if is_good { Ok(Self(text.to_owned())) } else { Err(AtmosphereError::DidUnsupported) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The address of its document, with the directory for a `did:plc`.
    pub(crate) fn document_url(&self, directory: &str) -> String {
        match self.0.strip_prefix("did:web:") {
            Some(host) if is_this_machine(host) => {
                format!("http://{}/.well-known/did.json", host.replace("%3A", ":"))
            }
            Some(host) => format!("https://{host}/.well-known/did.json"),
            None => format!("{}/{}", directory.trim_end_matches('/'), self.0),
        }
    }

    pub(crate) fn is_of_directory(&self) -> bool {
        self.0.starts_with("did:plc:")
    }
}

fn is_this_machine(host: &str) -> bool {
    let port = host.strip_prefix("localhost%3A");
    host == "localhost" || port.is_some_and(|port| port.parse::<u16>().is_ok_and(|number| number > 0))
}

/// True if requests to this server are allowed: by name only, because the address policy judges names; an IP address
/// only for this machine in development.
pub(crate) fn is_by_name(url: &str, dev: bool) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    match url.host() {
        Some(Host::Domain(name)) => name.contains('.') || (dev && name == "localhost"),
        Some(Host::Ipv4(ip)) => dev && ip.is_loopback(),
        Some(Host::Ipv6(ip)) => dev && ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_did_of_a_known_method_is_one() {
        for (text, good) in [
            ("did:plc:ewvi7nxzyoun6zhxrhs64oiz", true),
            ("did:plc:ewvi7nxzyoun6zhxrhs64oi", false),
            ("did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ", false),
            ("did:plc:ewvi7nxzyoun6zhxrhs64o/z", false),
            ("did:web:alice.example.com", true),
            ("did:web:alice", false),
            ("did:web:Alice.example.com", false),
            ("did:web:alice.example.com:path", false),
            ("did:web:alice.example.com%3A8443", false),
            ("did:web:alice%2eexample.com", false),
            ("did:web:u@alice.example.com", false),
            ("did:web:127.0.0.1", false),
            ("did:web:localhost", false),
            ("did:web:alice.local", false),
            ("did:key:z6Mk", false),
            ("xdid:plc:ewvi7nxzyoun6zhxrhs64oiz", false),
        ] {
            assert_eq!(Did::parse(text, false).is_ok(), good, "{text}");
        }
        assert!(Did::parse("did:web:localhost%3A8080", true).is_ok());
        for (text, url) in [
            ("did:web:localhost%3A8080", "http://localhost:8080/.well-known/did.json"),
            ("did:web:localhost.example.com", "https://localhost.example.com/.well-known/did.json"),
        ] {
            assert_eq!(Did::parse(text, true).unwrap().document_url(""), url);
        }
        for url in [
            "https://127.0.0.1",
            "https://[::1]",
            "https://0x7f.1",
            "https://2130706433",
            "https://localhost",
        ] {
            assert!(!is_by_name(url, false), "{url}");
        }
        assert!(is_by_name("https://pds.example.com", false));
    }
}
