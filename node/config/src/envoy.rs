//! `[envoy]`: where Envoy asks about requests by gRPC.

use serde::{Deserialize, Serialize};

use super::{http::Http, parse::ListenAddr};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Envoy {
    /// Where this node listens for `envoy.service.auth.v3.Authorization`, without TLS. Only `http.trusted_proxies` are
    /// answered. Default none: Envoy may ask over HTTP as well, and then needs nothing here.
    pub listen: Option<ListenAddr>,
}

impl Envoy {
    pub(super) fn check(&self, http: &Http, problems: &mut Vec<String>) {
        if self.listen.is_some() && http.trusted_proxies.is_empty() {
            problems.push(
                "envoy.listen: nobody would be answered; name Envoy's address in http.trusted_proxies".into(),
            );
        }
    }
}
