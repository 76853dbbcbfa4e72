//! `[outbound]`: private addresses that this node may contact if a client or an operator names them.

use serde::{Deserialize, Serialize};

use super::http::networks;
use conclave_policy::Cidr;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboundConfig {
    /// Private addresses or networks that may be contacted, by http as well: `["10.1.0.0/16", "127.0.0.1"]`. Default
    /// none: public addresses by https only. Servers that users name to sign in with Atmosphere are always contacted at
    /// public addresses only.
    #[serde(deserialize_with = "networks", serialize_with = "super::parse::write_texts")]
    pub allow: Vec<Cidr>,
}
