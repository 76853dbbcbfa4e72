//! `[envoy]`: the gRPC listener for Envoy's checks.

use serde::{Deserialize, Serialize};

use super::{http::HttpConfig, parse::ListenAddr};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Envoy {
    /// Address on which this node listens for `envoy.service.auth.v3.Authorization`, without TLS. It only serves
    /// `http.trusted_proxies`. Default none: Envoy can also check over HTTP, which needs no setting here.
    pub listen: Option<ListenAddr>,
}

impl Envoy {
    pub(super) fn check(&self, http: &HttpConfig, problems: &mut Vec<String>) {
        if self.listen.is_some() && http.trusted_proxies.is_empty() {
            problems.push(
                "envoy.listen: no proxy would be served; add Envoy's address to http.trusted_proxies".into(),
            );
        }
    }
}
