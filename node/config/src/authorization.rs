//! `[authorization]`: what authorization requests must be like, and how long those last that do not come by a browser.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{login::within, parse::duration};

const SECOND: Duration = Duration::from_secs(1);

/// Who may register clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    #[default]
    Off,
    Token,
    Open,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    /// Take pushed requests only (RFC 9126), whatever the client. The same on every node. Default false.
    pub require_pushed: bool,
    /// Who may register clients at `/oidc/register` (RFC 7591): `off`, `token` (who holds an API token of the role
    /// registrar or admin) or `open` (everybody). Default off.
    pub registration: Registration,
    /// Hosts whose documents describe clients (Client ID Metadata Documents): names, `*.example.com` for all names
    /// below one, or `*` for any. Default none.
    pub client_documents: Vec<String>,
    /// How long a browser may take to bring a pushed request. Default 60s.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub pushed_ttl: Duration,
    /// How long a device waits for a person. Default 10m.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub device_ttl: Duration,
    /// How often a device may ask. Default 5s.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub device_interval: Duration,
}

impl Default for Authorization {
    fn default() -> Self {
        Self {
            require_pushed: false,
            registration: Registration::Off,
            client_documents: Vec::new(),
            pushed_ttl: 60 * SECOND,
            device_ttl: 600 * SECOND,
            device_interval: 5 * SECOND,
        }
    }
}

impl Authorization {
    /// Whether a document on this host may describe a client.
    pub fn takes_documents_of(&self, host: &str) -> bool {
        self.client_documents.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(domain) => {
                host.strip_suffix(domain).is_some_and(|below| below.len() > 1 && below.ends_with('.'))
            }
            None => pattern == "*" || pattern == host,
        })
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        for pattern in self.client_documents.iter().filter(|pattern| !is_host_pattern(pattern)) {
            problems.push(format!(
                "authorization.client_documents: {pattern:?} is no host; write app.example.com, *.example.com or *"
            ));
        }
        within(problems, "authorization.pushed_ttl", self.pushed_ttl, 5 * SECOND, 90 * SECOND);
        within(problems, "authorization.device_ttl", self.device_ttl, 60 * SECOND, 1_800 * SECOND);
        within(problems, "authorization.device_interval", self.device_interval, SECOND, 60 * SECOND);
    }
}

fn is_host_pattern(text: &str) -> bool {
    let host = text.strip_prefix("*.").unwrap_or(text);
    let is_host = |host: &str| {
        !host.contains('*') && url::Host::parse(host).is_ok_and(|parsed| parsed.to_string() == host)
    };
    text == "*" || is_host(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_taken_of_the_named_hosts_alone() {
        let of = |patterns: &[&str]| Authorization {
            client_documents: patterns.iter().map(ToString::to_string).collect(),
            ..Authorization::default()
        };
        assert!(!of(&[]).takes_documents_of("app.test"));
        let some = of(&["app.test", "*.example.com"]);
        for (host, taken) in [
            ("app.test", true),
            ("x.app.test", false),
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            (".example.com", false),
            ("notexample.com", false),
            ("*.example.com", true),
        ] {
            assert_eq!(some.takes_documents_of(host), taken, "{host}");
        }
        assert!(of(&["*"]).takes_documents_of("any.test"));
        for (pattern, good) in [
            ("*", true),
            ("*.a.test", true),
            ("127.0.0.1", true),
            ("A.test", false),
            ("https://a", false),
            ("a.*.b", false),
            ("", false),
        ] {
            let mut problems = Vec::new();
            of(&[pattern]).check(&mut problems);
            assert_eq!(problems.is_empty(), good, "{pattern}");
        }
    }
}
