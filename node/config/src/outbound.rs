//! `[outbound]`: what this node may connect to when a client or an operator names an address.

use serde::{Deserialize, Serialize};

use super::http::networks;
use conclave_policy::Cidr;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outbound {
    /// Private addresses or networks that may be reached, by http as well: `["10.1.0.0/16", "127.0.0.1"]`. Default
    /// none: public addresses by https only. Servers that people name to sign in with Atmosphere are reached at public
    /// addresses all the same.
    #[serde(deserialize_with = "networks", serialize_with = "super::parse::write_texts")]
    pub allow: Vec<Cidr>,
}
