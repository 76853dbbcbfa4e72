//! `[authorization]`: what authorization requests must be like, and how long those last that do not come by a browser.

use std::time::Duration;

use serde::Deserialize;

use super::{login::within, parse::duration};

const SECOND: Duration = Duration::from_secs(1);

/// Who may register clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    #[default]
    Off,
    Token,
    Open,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    /// Take pushed requests only (RFC 9126), whatever the client. The same on every node. Default false.
    pub require_pushed: bool,
    /// Who may register clients at `/oidc/register` (RFC 7591): `off`, `token` (who holds an API token of the role registrar or
    /// admin) or `open` (everybody). Default off.
    pub registration: Registration,
    /// How long a browser may take to bring a pushed request. Default 60s.
    #[serde(deserialize_with = "duration")]
    pub pushed_ttl: Duration,
    /// How long a device waits for a person. Default 10m.
    #[serde(deserialize_with = "duration")]
    pub device_ttl: Duration,
    /// How often a device may ask. Default 5s.
    #[serde(deserialize_with = "duration")]
    pub device_interval: Duration,
}

impl Default for Authorization {
    fn default() -> Self {
        Self {
            require_pushed: false,
            registration: Registration::Off,
            pushed_ttl: 60 * SECOND,
            device_ttl: 600 * SECOND,
            device_interval: 5 * SECOND,
        }
    }
}

impl Authorization {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        within(problems, "authorization.pushed_ttl", self.pushed_ttl, 5 * SECOND, 90 * SECOND);
        within(problems, "authorization.device_ttl", self.device_ttl, 60 * SECOND, 1_800 * SECOND);
        within(problems, "authorization.device_interval", self.device_interval, SECOND, 60 * SECOND);
    }
}
