//! `[policy]`: what this node keeps of its decisions, and where it learns which country an address is in.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Of so many requests that were let in, one is recorded; 0 = none. What is denied is always recorded.
    pub sample_allows: u64,
    pub geoip: GeoIp,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeoIp {
    /// A MaxMind database (.mmdb) with countries, read when the node starts and whenever it changes.
    pub country_file: Option<PathBuf>,
    /// A MaxMind database (.mmdb) with autonomous systems, read when the node starts and whenever it changes.
    pub asn_file: Option<PathBuf>,
    /// Without a database an address is nowhere, instead of nobody being let in by a policy that asks.
    pub fail_open: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { sample_allows: 100, geoip: GeoIp::default() }
    }
}
