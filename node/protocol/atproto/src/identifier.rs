//! The identifier that a user types for an Atmosphere sign-in: a handle, a DID, or the address of their server.

use conclave_state::upstream::Who;
use url::Url;

use super::{did::Did, error::AtmosphereError};

/// Maximum length of an accepted text: a DID, a handle and a server are all shorter.
const MAX_BYTES: usize = 512;
/// Top-level domains that a handle may not end in (atproto handle spec).
const FORBIDDEN: [&str; 8] = ["alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion"];
/// The top-level domain for tests.
const TEST: &str = "test";

/// A user, or the server at which they sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identifier {
    Handle(AtprotoHandle),
    Did(Did),
    /// An origin without a trailing slash. The user is known only at the end.
    Server(String),
}

impl Identifier {
    /// The login hint for the user's server, in normalized spelling, because servers accept no other.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Handle(handle) => Some(handle.as_str()),
            Self::Did(did) => Some(did.as_str()),
            Self::Server(_) => None,
        }
    }
}

/// A domain name of at least two labels, lower case, that can exist on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AtprotoHandle(String);

impl AtprotoHandle {
    /// Parses a handle.
    ///
    /// # Errors
    /// [`AtmosphereError::BadIdentifier`]
    pub(crate) fn parse(text: &str, dev: bool) -> Result<Self, AtmosphereError> {
        let Ok(Who::Handle(handle)) = Who::parse(text) else { return Err(AtmosphereError::BadIdentifier) };
        let top = handle.rsplit('.').next().unwrap_or_default();
        if FORBIDDEN.contains(&top) || (top == TEST && !dev) {
            return Err(AtmosphereError::BadIdentifier);
        }
        Ok(Self(handle.to_string()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Parses a typed identifier. With `dev`, names for tests and plain http are accepted.
///
/// # Errors
/// [`AtmosphereError::BadIdentifier`], [`AtmosphereError::DidUnsupported`]
pub(crate) fn parse(typed: &str, dev: bool) -> Result<Identifier, AtmosphereError> {
    if typed.len() > MAX_BYTES {
        return Err(AtmosphereError::BadIdentifier);
    }
    let text: String = typed.chars().filter(|c| !is_invisible(*c)).collect();
    let text = text.trim();
    let text = text.strip_prefix("at://").unwrap_or(text);
    let text = text.strip_prefix('@').unwrap_or(text);
    if text.starts_with("did:") {
        return Did::parse(text, dev).map(Identifier::Did);
    }
    if text.starts_with("https://") || (dev && text.starts_with("http://")) {
        return server(text).map(Identifier::Server).ok_or(AtmosphereError::BadIdentifier);
    }
    AtprotoHandle::parse(text, dev).map(Identifier::Handle)
}

/// True for invisible characters that pasted text may contain: text direction marks, joiners, a byte order mark.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || c.is_control()
}

/// The origin, if nothing but a slash follows it.
pub(crate) fn server(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let is_plain =
        url.username().is_empty() && url.password().is_none() && matches!(url.scheme(), "https" | "http");
    let origin = url.origin();
    (is_bare && is_plain && origin.is_tuple()).then(|| origin.ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_who_they_are_in_many_ways() {
        let handle = |text: &str| Identifier::Handle(AtprotoHandle(text.into()));
        for (typed, meant) in [
            ("alice.example.com", handle("alice.example.com")),
            (" @Alice.Example.com ", handle("alice.example.com")),
            ("at://alice.example.com", handle("alice.example.com")),
            ("\u{202a}alice.example.com\u{202c}", handle("alice.example.com")),
            ("https://pds.example.com/", Identifier::Server("https://pds.example.com".into())),
            ("https://pds.example.com:8443", Identifier::Server("https://pds.example.com:8443".into())),
        ] {
            assert_eq!(parse(typed, false), Ok(meant), "{typed}");
        }
        let did = parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz", false);
        assert!(matches!(did, Ok(Identifier::Did(_))), "{did:?}");
    }

    #[test]
    fn what_the_network_cannot_have_is_nobody() {
        for typed in [
            "",
            "alice",
            "alice.local",
            "alice.onion",
            "alice.internal",
            "alice.test",
            "a b.com",
            "127.0.0.1",
            "https://a.com/path",
            "https://u@a.com",
            "http://a.com",
            "ftp://a.com",
            "alice.example.com/..",
            "*.example.com",
            &format!("{}.com", "a".repeat(300)),
        ] {
            assert!(parse(typed, false).is_err(), "{typed}");
        }
        assert!(parse("alice.test", true).is_ok() && parse("http://localhost:2583", true).is_ok());
    }
}
