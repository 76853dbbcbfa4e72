//! Settings that must be equal on all nodes. The cluster compares them by digest, and a node that differs is not ready.
//!
//! Every section is destructured here field by field, so that a new setting does not compile until it is classified as
//! shared or not.

use super::{Authorization, Config, HttpConfig, Login, ThrottleConfig, TokensConfig};

impl Config {
    /// The shared settings by name, in a canonical form. Secrets and settings of a single machine are not included.
    pub fn shared(&self) -> Vec<(String, String)> {
        let mut shared = Vec::new();
        let mut add = |name: &str, value: String| shared.push((name.to_owned(), value));
        let HttpConfig {
            listen: _,
            public_url: _,
            trusted_proxies,
            max_body_bytes,
            template_dir: _,
            drain_delay: _,
            cookie_domain,
            app_domains,
            tls: _,
            ..
        } = &self.http;
        add("http.public_url", self.http.public_url().map(|url| url.to_string()).unwrap_or_default());
        add("http.trusted_proxies", sorted(trusted_proxies));
        add("http.max_body_bytes", max_body_bytes.to_string());
        add("http.cookie_domain", format!("{cookie_domain:?}"));
        add("http.app_domains", sorted(app_domains));
        let Login { session_ttl, flow_ttl, throttle, .. } = &self.login;
        add("login.session_ttl", format!("{session_ttl:?}"));
        add("login.flow_ttl", format!("{flow_ttl:?}"));
        let ThrottleConfig { account_failures, address_failures, window } = throttle;
        // Written out: a member of another version must write an equal text, whatever its type is called.
        add(
            "login.throttle",
            format!(
                "Throttle {{ account_failures: {account_failures}, address_failures: {address_failures}, window: {window:?} }}"
            ),
        );
        let TokensConfig {
            access_ttl,
            code_ttl,
            refresh_ttl,
            refresh_retry_window,
            signing_key_ttl,
            signing_key_notice,
        } = &self.tokens;
        add("tokens.access_ttl", format!("{access_ttl:?}"));
        add("tokens.code_ttl", format!("{code_ttl:?}"));
        add("tokens.refresh_ttl", format!("{refresh_ttl:?}"));
        add("tokens.refresh_retry_window", format!("{refresh_retry_window:?}"));
        add("tokens.signing_key_ttl", format!("{signing_key_ttl:?}"));
        add("tokens.signing_key_notice", format!("{signing_key_notice:?}"));
        let Authorization {
            require_pushed,
            registration,
            client_documents,
            pushed_ttl,
            device_ttl,
            device_interval,
        } = &self.authorization;
        add("authorization.require_pushed", require_pushed.to_string());
        add("authorization.registration", format!("{registration:?}"));
        add("authorization.client_documents", sorted(client_documents));
        add("authorization.pushed_ttl", format!("{pushed_ttl:?}"));
        add("authorization.device_ttl", format!("{device_ttl:?}"));
        add("authorization.device_interval", format!("{device_interval:?}"));
        add("outbound.allow", sorted(&self.outbound.allow));
        add("cluster.checks", format!("{:?}", self.cluster.checks));
        add("policy.geoip.fail_open", self.policy.geoip.fail_open.to_string());
        add("archive.target", format!("{:?}", self.archive.target));
        shared
    }
}

/// The values of a list whose order has no meaning.
fn sorted<T: std::fmt::Debug>(values: &[T]) -> String {
    let mut texts: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    texts.sort_unstable();
    texts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_list_means_nothing_and_what_belongs_to_one_machine_is_not_shared() {
        let read = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("conclave.toml");
            std::fs::write(&file, text).unwrap();
            Config::from_sources(Some(&file), &super::super::Environment::default()).unwrap().shared()
        };
        let one = read("[http]\ntrusted_proxies = [\"10.0.0.1\", \"10.0.0.2\"]\n");
        let other = read(
            "[http]\ntrusted_proxies = [\"10.0.0.2\", \"10.0.0.1\"]\n[node]\ndata_dir = \"/elsewhere\"\n",
        );
        assert_eq!(one, other);
        assert_ne!(one, read(""));
    }
}
