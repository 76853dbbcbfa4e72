//! `[atmosphere]`: lookup of identities on the Atmosphere network (atproto). `conclave upstream add` enables sign-in
//! with them.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use url::Url;

use super::{PublicUrl, login::within, parse::duration};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Atmosphere {
    /// Directories of `did:plc` identities, tried in this order. Default `["https://plc.directory"]`.
    pub plc_directories: Vec<String>,
    /// Nameservers for handles, with their ports: `["192.0.2.53:53"]`. Default: those of the machine.
    pub nameservers: Vec<SocketAddr>,
    /// Interval at which the handle of an admitted user is verified again. Default `"24h"`, at least an hour.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub reverify: Duration,
    /// Time for which an unconfirmed handle still admits its user. Default `"7d"`.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub reverify_patience: Duration,
    /// Import the public profile from a user's own server: the name of a new user, and the picture. Default true.
    pub import_profile: bool,
    /// Accept names for tests and plain http. Only if `http.public_url` is on this machine. Default false.
    pub unsafe_dev: bool,
}

impl Default for Atmosphere {
    fn default() -> Self {
        Self {
            plc_directories: vec!["https://plc.directory".into()],
            nameservers: Vec::new(),
            reverify: DAY,
            reverify_patience: 7 * DAY,
            import_profile: true,
            unsafe_dev: false,
        }
    }
}

impl Atmosphere {
    pub(super) fn check(&self, public_url: Option<&PublicUrl>, problems: &mut Vec<String>) {
        let is_web = |text: &String| {
            Url::parse(text)
                .is_ok_and(|url| url.scheme() == "https" || (self.unsafe_dev && url.scheme() == "http"))
        };
        if self.plc_directories.is_empty() || !self.plc_directories.iter().all(is_web) {
            problems.push("atmosphere.plc_directories must name https addresses, one at least".into());
        }
        within(problems, "atmosphere.reverify", self.reverify, HOUR, 30 * DAY);
        within(problems, "atmosphere.reverify_patience", self.reverify_patience, Duration::ZERO, 90 * DAY);
        if self.unsafe_dev && public_url.is_none_or(PublicUrl::is_secure) {
            problems.push(
                "atmosphere.unsafe_dev is for development on this machine; http.public_url must be a loopback address".into(),
            );
        }
    }
}
