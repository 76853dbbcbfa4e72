//! `[http]`: the public listener, for users and proxies.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::parse::{self, ListenAddr};
use super::public_url::PublicUrl;
use super::tls::{Mtls, Tls};
use conclave_policy::Cidr;

/// Bounds of `max_body_bytes`: a login form must fit, and a request must not exhaust the memory.
const BODY_BYTES: std::ops::RangeInclusive<usize> = 4 * 1024..=16 * 1024 * 1024;

/// Supervisors kill a process that does not end in time; most wait 30 s or longer, and requests in flight need part of
/// that.
const MAX_DRAIN_DELAY: Duration = Duration::from_secs(15);

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address on which this node listens. Default `127.0.0.1:9000`.
    pub listen: ListenAddr,
    /// The URL of the whole cluster, and the OIDC issuer. Must be equal on every node. Default `http://` + `listen` if
    /// that is loopback; required otherwise.
    pub public_url: Option<PublicUrl>,
    /// Addresses or networks whose `X-Forwarded-*` headers are trusted: `["10.0.0.7", "fd00::/8"]`. Default none.
    #[serde(deserialize_with = "networks", serialize_with = "super::parse::write_texts")]
    pub trusted_proxies: Vec<Cidr>,
    /// Maximum length of a request body in bytes. Default 65536.
    pub max_body_bytes: usize,
    /// Folder with templates that replace the built-in pages. Default none.
    pub template_dir: Option<PathBuf>,
    /// Time for which a stopping node still serves requests while its readiness already reports the stop: as long as
    /// load balancers take to notice. Default 1s.
    #[serde(deserialize_with = "parse::duration", serialize_with = "super::parse::write_duration")]
    pub drain_delay: Duration,
    /// Parent domain for cookies shared between hosts (`example.org`). Default none: cookies of one host only.
    pub cookie_domain: Option<String>,
    /// Parent domains of applications' hosts (`["example.org", "example.net"]`): all hosts below such a domain share
    /// one sign-in. Every host below it can see and overwrite that cookie, so name only domains that are yours alone.
    /// Default none: a sign-in for each host.
    pub app_domains: Vec<String>,
    /// A second listener, with TLS. Default none: a proxy in front terminates TLS.
    pub tls: Option<Tls>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: ListenAddr(SocketAddr::from((Ipv4Addr::LOCALHOST, 9000))),
            public_url: None,
            trusted_proxies: Vec::new(),
            max_body_bytes: 64 * 1024,
            template_dir: None,
            drain_delay: Duration::from_secs(1),
            cookie_domain: None,
            app_domains: Vec::new(),
            tls: None,
        }
    }
}

impl HttpConfig {
    /// The URL of the cluster. `None` only before [`Config`](super::Config) was checked.
    pub fn public_url(&self) -> Option<PublicUrl> {
        self.public_url.clone().or_else(|| PublicUrl::of_loopback(self.listen.0))
    }

    /// The settings for client certificates.
    pub fn mtls(&self) -> Mtls {
        self.tls.as_ref().map(Tls::mtls).unwrap_or_default()
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if let Some(tls) = &self.tls {
            tls.check(problems);
        }
        if !BODY_BYTES.contains(&self.max_body_bytes) {
            let (least, most) = (BODY_BYTES.start(), BODY_BYTES.end());
            problems.push(format!("http.max_body_bytes: must be between {least} and {most}"));
        }
        if self.drain_delay > MAX_DRAIN_DELAY {
            problems.push(format!("http.drain_delay: at most {} s", MAX_DRAIN_DELAY.as_secs()));
        }
        if let Some(dir) = self.template_dir.as_ref().filter(|dir| !dir.is_dir()) {
            problems.push(format!("http.template_dir: {} is not a folder", dir.display()));
        }
        for domain in self.app_domains.iter().filter(|domain| !is_domain(domain)) {
            problems.push(format!(
                "http.app_domains: {domain:?} must be a domain of two labels or more, lower case, written without a leading dot"
            ));
        }
        let Some(public_url) = self.public_url() else {
            problems.push(format!(
                "http.public_url: must be set when http.listen ({}) is not loopback; write the https URL that users open",
                self.listen.0
            ));
            return;
        };
        if let Some(domain) =
            self.cookie_domain.as_ref().filter(|domain| !is_parent(domain, public_url.host()))
        {
            problems.push(format!(
                "http.cookie_domain: {domain:?} is not {} or a parent domain of it, written without a leading dot",
                public_url.host()
            ));
        }
    }
}

/// True for a name under which browsers may share cookies between hosts; international names as `xn--`.
fn is_domain(domain: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    domain.contains('.') && domain.split('.').all(label) && domain.parse::<Ipv4Addr>().is_err()
}

/// True if browsers accept a cookie for `domain` from `host` (RFC 6265 §5.1.3); a bare top-level domain is not
/// accepted.
fn is_parent(domain: &str, host: &str) -> bool {
    let suffix = host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    suffix && domain.contains('.') && !domain.starts_with('.') && domain.parse::<Ipv4Addr>().is_err()
}

pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cidr>, D::Error> {
    parse::list(deserializer, |text| {
        text.parse()
            .map_err(|_| format!("{text:?} is not an address or network; write for example 10.0.0.0/8"))
    })
}
