//! `[authorization]`: requirements for authorization requests, and lifetimes of those outside a browser.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{login::within, parse::duration};

const SECOND: Duration = Duration::from_secs(1);

/// The clients that may register themselves.
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
    /// Accept pushed requests only (RFC 9126), from every client. Must be equal on every node. Default false.
    pub require_pushed: bool,
    /// Access to client registration at `/oidc/register` (RFC 7591): `off`, `token` (with an API token of the role
    /// registrar or admin) or `open` (every client). Default off.
    pub registration: Registration,
    /// Hosts whose documents describe clients (Client ID Metadata Documents): names, `*.example.com` for all names
    /// below one, or `*` for all. Default none.
    pub client_documents: Vec<String>,
    /// Lifetime of a pushed request until the browser presents it. Default 60s.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub pushed_ttl: Duration,
    /// Time for which a device waits for the user. Default 10m.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub device_ttl: Duration,
    /// Minimum interval between two polls of a device. Default 5s.
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
    /// True if a document on this host may describe a client.
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
                "authorization.client_documents: {pattern:?} is not a host; write app.example.com, *.example.com or *"
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
