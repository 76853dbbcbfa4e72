//! The connection to a cluster and its credentials: a token, or the cluster secret of this machine's own node, from
//! which an operator assertion is made.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use conclave_client::{AdminClient, ClientBuilder};

use conclave_auth::operator;
use conclave_base::runtime::Runtime;
use conclave_config::{Config, find_secret};
use conclave_crypto::keys::ClusterKeys;
use conclave_http::outbound::authorities_file;

use super::{failure::Failure, output::Format};

/// The address at which a node without settings listens.
const DEFAULT_API: &str = "http://127.0.0.1:9200";

#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ApiArgs {
    /// URL of a node's admin API, http or https; may be given several times [default: the one in --config, then its
    /// peers, else http://127.0.0.1:9200]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "CONCLAVE_API",
        value_delimiter = ',',
        hide_env_values = true
    )]
    api: Vec<String>,
    /// PEM file of the certificate authorities that an https --api is checked against [default: those of this machine]
    #[arg(long, global = true, value_name = "FILE", env = "CONCLAVE_API_CA", hide_env_values = true)]
    api_ca: Option<PathBuf>,
    /// Bearer token; without one, the cluster secret of --config is used, else ./conclave-data/cluster.secret
    #[arg(long, global = true, value_name = "TOKEN", env = "CONCLAVE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Settings of a node: its cluster secret replaces a token, and its admin API is used [default: $CONCLAVE_CONFIG,
    /// else /etc/conclave/conclave.toml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The output format
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Format,
}

impl ApiArgs {
    /// The given settings, or the defaults; they contain the path of the secret of this machine's node.
    pub fn settings(&self) -> Result<Config, Failure> {
        Config::load(self.config.as_deref()).map_err(|error| Failure::usage(error.to_string()))
    }

    /// The given settings and their file; `None` if none are given.
    pub fn named_settings(&self) -> Result<Option<(Config, &std::path::Path)>, Failure> {
        match self.config.as_deref() {
            None => Ok(None),
            Some(file) => Ok(Some((self.settings()?, file))),
        }
    }

    pub fn connect(&self) -> Result<AdminClient, Failure> {
        let token = self.token.as_deref().filter(|token| !token.is_empty());
        let config = match (&self.config, token) {
            (None, Some(_)) => None,
            (file, _) => {
                Some(Config::load(file.as_deref()).map_err(|error| Failure::usage(error.to_string()))?)
            }
        };
        let endpoints = self.endpoints(config.as_ref());
        let builder =
            self.with_authorities(AdminClient::builder().endpoints(endpoints.clone()), &endpoints)?;
        let builder = match (token, &config) {
            (Some(token), _) => builder.token(token),
            (None, Some(config)) => as_operator(builder, config)?,
            (None, None) => builder,
        };
        builder.build().map_err(|error| Failure::usage(error.to_string()))
    }

    fn endpoints(&self, config: Option<&Config>) -> Vec<String> {
        if !self.api.is_empty() {
            return self.api.clone();
        }
        // Without a file, the defaults do not name an admin API.
        let named = config.filter(|config| config.source.is_some());
        named.map_or_else(|| vec![DEFAULT_API.to_owned()], Config::api_urls)
    }

    /// The authorities are read only if an https address is checked against them.
    fn with_authorities(
        &self,
        builder: ClientBuilder,
        endpoints: &[String],
    ) -> Result<ClientBuilder, Failure> {
        if !endpoints.iter().any(|url| url.starts_with("https://")) {
            return Ok(builder);
        }
        let named = self.api_ca.clone();
        let Some(file) = named.or_else(|| authorities_file().map(Path::to_owned)) else { return Ok(builder) };
        let pem = std::fs::read(&file)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
        Ok(builder.authorities(pem))
    }
}

fn as_operator(builder: ClientBuilder, config: &Config) -> Result<ClientBuilder, Failure> {
    let secret = find_secret(config).map_err(|error| Failure::usage(error.to_string()))?;
    let Some(secret) = secret else {
        return Err(Failure::unauthenticated(
            "no token is given and no cluster secret is found here; use --token, CONCLAVE_TOKEN, or --config FILE of a node (looked for at $CONCLAVE_CONFIG and /etc/conclave/conclave.toml)",
        ));
    };
    let (keys, runtime) = (Arc::new(ClusterKeys::ring(&secret)), Runtime::system());
    // Made anew for each attempt: an assertion is valid for two minutes.
    Ok(builder
        .token_source(move || operator::make(&keys.operator, runtime.clock.now_ms(), &*runtime.entropy)))
}

/// Omits the token.
impl std::fmt::Debug for ApiArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiArgs")
            .field("api", &self.api)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
