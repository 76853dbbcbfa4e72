//! The cluster's URL for users and relying parties: the OIDC issuer. It must be equal on every node.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::{Host, Url};

/// `scheme://host[:port]`, https unless the host is this machine.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicUrl {
    /// Without a trailing slash.
    text: String,
    host: String,
    secure: bool,
}

impl PublicUrl {
    /// The URL of a node without the setting: its listener's address, if that is loopback.
    pub fn of_loopback(listen: SocketAddr) -> Option<Self> {
        listen.ip().is_loopback().then(|| Self::parse(&format!("http://{listen}")).ok())?
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let url =
            Url::parse(text).map_err(|_| "is not a URL; write for example https://login.example.org")?;
        let host = url.host().ok_or("has no host")?;
        let secure = match url.scheme() {
            "https" => true,
            "http" if is_this_machine(&host) => false,
            "http" => return Err("must be https: browsers and OpenID Connect trust http on localhost only"),
            _ => return Err("must be https, or http on localhost"),
        };
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("must end after the host and port");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not name a user");
        }
        let host = host.to_string();
        Ok(Self { text: url.as_str().trim_end_matches('/').to_owned(), host, secure })
    }

    /// The issuer identifier: without a trailing slash, exactly as in every token.
    pub fn issuer(&self) -> &str {
        &self.text
    }

    /// The URL of a path, which starts with a slash.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    /// The host without a port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// True if browsers use https, so that cookies can be `Secure` and `__Host-`.
    pub fn is_secure(&self) -> bool {
        self.secure
    }
}

/// True for loopback addresses and names that browsers resolve to them (RFC 6761 §6.3).
fn is_this_machine(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
    }
}

impl fmt::Debug for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for PublicUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|fault| de::Error::custom(format!("{text:?} {fault}")))
    }
}
