//! `[policy]`: the decision log of this node, and its databases of countries.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// One of this many admitted requests is recorded; 0 = none. Denials are always recorded.
    pub sample_allows: u64,
    pub geoip: GeoIp,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeoIp {
    /// A MaxMind database (.mmdb) with countries, read at start and whenever it changes.
    pub country_file: Option<PathBuf>,
    /// A MaxMind database (.mmdb) with autonomous systems, read at start and whenever it changes.
    pub asn_file: Option<PathBuf>,
    /// Without a database, treat an address as having no location, instead of denying by every policy that requires
    /// one.
    pub fail_open: bool,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { sample_allows: 100, geoip: GeoIp::default() }
    }
}
