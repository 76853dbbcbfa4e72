//! The one parser of addresses that users are redirected to (RFC 6749 §3.1.2, RFC 9700 §2.1, RFC 8252 §7 and §8).
//!
//! Redirect URIs are compared as exact strings later, so only the normalized spelling of an address is accepted. A text
//! that a browser might parse differently (backslashes, dot segments, unusual IP notations, user names before the host)
//! is refused, and the error tells the correct spelling.

use std::fmt;

use url::{Host, Url};

/// Maximum length of an address: what browsers and proxies carry safely, and the limit of the rules.
const MAX_BYTES: usize = 2048;

/// An address in its normalized spelling, safe to send a code to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUri(String);

/// The reason why a text is not an accepted address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectUriError {
    #[error("is empty or longer than {MAX_BYTES} bytes")]
    Length,
    #[error("holds white space, a control character, a backslash or a character outside ASCII")]
    Character,
    #[error("is not an absolute address such as https://app.example.org/callback")]
    NotAbsolute,
    #[error("has a fragment (#), which RFC 6749 §3.1.2 forbids")]
    Fragment,
    #[error("names a user before the host")]
    UserInfo,
    #[error("has a wildcard in its host; name each host")]
    Wildcard,
    #[error(
        "is http on a host that is not this machine; use https, or allow a confidential client http on private hosts (--allow-http true)"
    )]
    Insecure,
    #[error(
        "is http on a host that is not private; http is allowed to private addresses and to names without a dot or below .lan, .local, .internal, .home.arpa and .test alone"
    )]
    Public,
    #[error(
        "has the scheme {0}, which is neither https, nor http on localhost, nor an app's own with a dot in it (com.example.app); a client may be \
         allowed others (--allow-scheme)"
    )]
    Scheme(String),
    #[error("is not in its normal spelling; write {0}")]
    Spelling(String),
}

impl RedirectUri {
    /// Parses an address to which a code, or a user after logout, may be sent.
    ///
    /// # Errors
    /// [`RedirectUriError`].
    pub fn parse(text: &str) -> Result<Self, RedirectUriError> {
        let url = parse(text)?;
        match url.scheme() {
            "https" => {}
            "http" if is_this_machine(&url) => {}
            "http" => return Err(RedirectUriError::Insecure),
            // RFC 8252 §7.1: reverse domain names. `javascript`, `data` and similar schemes have no dot.
            scheme if scheme.contains('.') => {}
            scheme => return Err(RedirectUriError::Scheme(scheme.to_owned())),
        }
        Ok(Self(text.to_owned()))
    }

    /// Like [`Self::parse`], with the exceptions that an administrator allowed for the client.
    ///
    /// # Errors
    /// [`RedirectUriError`].
    pub fn parse_allowed(text: &str, allowed: RedirectExceptions<'_>) -> Result<Self, RedirectUriError> {
        match Self::parse(text) {
            Err(RedirectUriError::Insecure) if allowed.http => {
                let url = parse(text)?;
                if is_private(&url) { Ok(Self(text.to_owned())) } else { Err(RedirectUriError::Public) }
            }
            Err(RedirectUriError::Scheme(scheme)) if allowed.schemes.contains(&scheme) => {
                Ok(Self(text.to_owned()))
            }
            result => result,
        }
    }

    /// Parses an address that the portal may link to: http or https on any host, since a link carries no secret.
    ///
    /// # Errors
    /// [`RedirectUriError`].
    pub fn parse_link(text: &str) -> Result<Self, RedirectUriError> {
        let url = parse(text)?;
        match url.scheme() {
            "https" | "http" => Ok(Self(text.to_owned())),
            scheme => Err(RedirectUriError::Scheme(scheme.to_owned())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Exceptions that an administrator allowed for one client.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedirectExceptions<'a> {
    /// Plain http on private hosts.
    pub http: bool,
    /// These schemes, although they have no dot.
    pub schemes: &'a [String],
}

/// The checks that apply to every scheme.
fn parse(text: &str) -> Result<Url, RedirectUriError> {
    if text.is_empty() || text.len() > MAX_BYTES {
        return Err(RedirectUriError::Length);
    }
    if text.chars().any(|c| !c.is_ascii_graphic() || c == '\\') {
        return Err(RedirectUriError::Character);
    }
    if text.contains('#') {
        return Err(RedirectUriError::Fragment);
    }
    let url = Url::parse(text).map_err(|_| RedirectUriError::NotAbsolute)?;
    // The parser drops an empty user name, but not every browser does, so the text itself is checked.
    let authority =
        text.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    if authority.contains('@') || !url.username().is_empty() || url.password().is_some() {
        return Err(RedirectUriError::UserInfo);
    }
    if authority.contains('*') {
        return Err(RedirectUriError::Wildcard);
    }
    // A bare origin is often written without its slash, and all parsers read both forms alike.
    if url.as_str() != text && url.as_str() != format!("{text}/") {
        return Err(RedirectUriError::Spelling(url.into()));
    }
    Ok(url)
}

/// True for loopback literals, and for localhost in development (RFC 8252 §7.3 and §8.3).
fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// Suffixes that no public name has (RFC 6762, RFC 8375, RFC 6761, and those of common home routers).
const PRIVATE_ENDINGS: [&str; 5] = [".lan", ".local", ".internal", ".home.arpa", ".test"];

/// True if the spelling of the host shows that it is on a private network.
fn is_private(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_private() || ip.is_link_local(),
        Some(Host::Ipv6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local(),
        Some(Host::Domain(name)) => {
            !name.contains('.') || PRIVATE_ENDINGS.iter().any(|ending| name.ends_with(ending))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_word_allows_http_on_private_hosts_and_schemes_by_name() {
        let schemes = ["oc".to_owned()];
        let allowed = RedirectExceptions { http: true, schemes: &schemes };
        for sound in [
            "http://10.0.0.20:8006/cb",
            "http://grafana.lan/login/generic_oauth",
            "http://nas:5000/cb",
            "http://[fd00::1]/cb",
            "oc://android.owncloud.com",
            "https://app.example.org/cb",
        ] {
            let parsed = RedirectUri::parse_allowed(sound, allowed);
            assert_eq!(parsed.as_ref().map(RedirectUri::as_str), Ok(sound));
        }
        for (bad, why) in [
            ("http://app.example.org/cb", RedirectUriError::Public),
            ("http://8.8.8.8/cb", RedirectUriError::Public),
            ("http://lan.example.org/cb", RedirectUriError::Public),
            ("cursor://x/cb", RedirectUriError::Scheme("cursor".into())),
            ("http://a@10.0.0.20/cb", RedirectUriError::UserInfo),
            ("oc://x/#f", RedirectUriError::Fragment),
        ] {
            assert_eq!(RedirectUri::parse_allowed(bad, allowed), Err(why), "{bad}");
        }
        let none = RedirectExceptions::default();
        assert_eq!(RedirectUri::parse_allowed("http://10.0.0.20/cb", none), Err(RedirectUriError::Insecure));
        assert!(RedirectUri::parse_allowed("oc://x", none).is_err());
    }

    #[test]
    fn sound_addresses_are_kept_as_they_were_written() {
        for sound in [
            "https://app.example.org/callback",
            "https://app.example.org",
            "https://app.example.org/",
            "https://app.example.org:8443/cb?tenant=1&x=%20",
            "https://[2001:db8::1]/cb",
            "https://xn--bcher-kva.example/cb",
            "http://localhost:3000/cb",
            "http://app.localhost/cb",
            "http://127.0.0.1:9/cb",
            "http://[::1]:9/cb",
            "com.example.app:/callback",
            "com.example.app://callback/x",
        ] {
            assert_eq!(RedirectUri::parse(sound).as_ref().map(RedirectUri::as_str), Ok(sound));
        }
    }

    #[test]
    fn what_a_browser_may_read_otherwise_is_refused() {
        use RedirectUriError as E;
        let long = format!("https://a.example/{}", "x".repeat(MAX_BYTES));
        for (nasty, expected) in [
            ("", E::Length),
            (long.as_str(), E::Length),
            (" https://a.example/", E::Character),
            ("https://a.example/ b", E::Character),
            ("https://a.example/\t", E::Character),
            ("https://a.example/\r\nLocation: x", E::Character),
            ("https://a.example\\@evil.example/", E::Character),
            ("https:\\\\a.example", E::Character),
            ("https://a.example/\0", E::Character),
            ("https://аpple.example/", E::Character),
            ("/callback", E::NotAbsolute),
            ("//a.example/callback", E::NotAbsolute),
            ("callback", E::NotAbsolute),
            ("https://", E::NotAbsolute),
            ("https://a.example:99999/", E::NotAbsolute),
            ("https://a.example/#", E::Fragment),
            ("https://a.example/cb#x", E::Fragment),
            ("https://good.example@evil.example/", E::UserInfo),
            ("https://@a.example/", E::UserInfo),
            ("https://u:p@a.example/", E::UserInfo),
            ("https://*.example/", E::Wildcard),
            ("http://a.example/cb", E::Insecure),
            ("http://localhost.evil.example/", E::Insecure),
            ("http://127.0.0.1.evil.example/", E::Insecure),
            ("http://notlocalhost/", E::Insecure),
            ("http://10.0.0.1/", E::Insecure),
            ("http://0.0.0.0/", E::Insecure),
        ] {
            assert_eq!(RedirectUri::parse(nasty), Err(expected), "{nasty:?}");
        }
        for scheme in [
            "javascript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "app:/cb",
            "blob:x",
            "urn:x:y",
        ] {
            assert!(matches!(RedirectUri::parse(scheme), Err(E::Scheme(_))), "{scheme}");
        }
        for odd in [
            "HTTPS://a.example/",
            "https:/a.example/",
            "https:a.example",
            "https:///a.example/",
            "https://A.example/",
            "https://a.example/x/../y",
            "https://a.example/%2e%2e/y",
            "https://a.example:443/",
            "http://0x7f.1/",
            "http://2130706433/",
            "https://a.example/<x>",
        ] {
            assert!(
                matches!(RedirectUri::parse(odd), Err(E::Spelling(_))),
                "{odd}: {:?}",
                RedirectUri::parse(odd)
            );
        }
    }

    #[test]
    fn a_link_may_be_plain_http_and_nothing_stranger() {
        assert!(RedirectUri::parse_link("http://intranet.example/").is_ok());
        assert!(matches!(RedirectUri::parse_link("com.example.app:/x"), Err(RedirectUriError::Scheme(_))));
        assert!(matches!(RedirectUri::parse_link("javascript:alert(1)"), Err(RedirectUriError::Scheme(_))));
    }
}
