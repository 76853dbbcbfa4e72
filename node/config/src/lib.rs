//! The settings of an operator: one TOML file, and `CONCLAVE_SECTION__KEY` in the environment, which takes precedence.
//!
//! Every setting has a working default: `conclave serve` without any setting is a single node on loopback. Unknown
//! keys, unreadable values and contradictory values are refused at start. All of them are reported at once, each with
//! its path and source. Only this room reads the environment and the secret file; the rest of the node receives typed
//! parts.

mod archive;
mod atmosphere;
mod authorization;
mod cluster;
mod environment;
mod envoy;
mod http;
mod login;
mod outbound;
mod parse;
mod policy;
mod problem;
mod public_url;
mod secret_file;
mod shared;
mod show;
mod telemetry;
mod tls;

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Format, Toml};
use serde::{Deserialize, Serialize};

pub use self::archive::{ArchiveConfig, Keep, ScheduleConfig};
pub use self::atmosphere::Atmosphere;
pub use self::authorization::{Authorization, Registration};
pub use self::cluster::{Api, ChecksConfig, ClusterConfig, MAX_PEERS, NodeConfig, PeerConfig};
pub use self::environment::{ENV_PREFIX, Environment};
pub use self::envoy::Envoy;
pub use self::http::HttpConfig;
pub use self::login::{Login, ThrottleConfig, TokensConfig};
pub use self::outbound::OutboundConfig;
pub use self::parse::{ListenAddr, SecretText, parse_duration};
pub use self::policy::{GeoIp, PolicyConfig};
pub use self::public_url::PublicUrl;
pub use self::secret_file::{find_secret, load_secret, write_new_secret};
pub use self::show::{Setting, SettingOrigin, effective};
pub use self::telemetry::{LogConfig, LogFormat, Telemetry};
pub use self::tls::{ClientCertificates, Mtls, Tls};

/// The configuration file of an installed node. A file in the working directory is never read implicitly: an attacker
/// with write access there could redirect the cluster secret.
pub const DEFAULT_FILE: &str = "/etc/conclave/conclave.toml";

/// The whole configuration of a node.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub node: NodeConfig,
    pub cluster: ClusterConfig,
    pub http: HttpConfig,
    pub envoy: Envoy,
    pub api: Api,
    pub login: Login,
    pub tokens: TokensConfig,
    pub authorization: Authorization,
    pub outbound: OutboundConfig,
    pub atmosphere: Atmosphere,
    pub policy: PolicyConfig,
    pub archive: ArchiveConfig,
    pub log: LogConfig,
    pub telemetry: Telemetry,
    /// The file that this was read from, for child processes that must read it too.
    #[serde(skip)]
    pub source: Option<PathBuf>,
}

/// The reason why a node does not start with this configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    /// Every line names the path of a setting and the error.
    #[error("{}", problems.join("\n"))]
    Invalid { problems: Vec<String> },
    #[error("{0}")]
    Secret(String),
}

impl Config {
    /// The file to read: the named one, else that of `CONCLAVE_CONFIG`, else [`DEFAULT_FILE`] if it exists.
    pub fn find(named: Option<&Path>) -> Option<PathBuf> {
        let installed = || Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists());
        named.map(Path::to_owned).or_else(environment::configuration_file).or_else(installed)
    }

    /// Reads the file that [`find`](Self::find) returns, if any, and the process's environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let file = Self::find(file);
        let file = file.as_deref();
        let config = Self::from_sources(file, &Environment::of_process())?;
        // Absolute, so that it is valid in every working directory.
        let source = file.map(|file| std::path::absolute(file).unwrap_or_else(|_| file.to_owned()));
        Ok(Self { source, ..config })
    }

    /// Like [`load`](Self::load), with the given environment.
    pub fn from_sources(file: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        Self::extract(&sources(file, environment)?)
    }

    /// The URLs of the admin APIs to try, this node's first. Peers are included if other machines can reach this node's
    /// API. Their URL has the host of their entry in `cluster.peers` and the port of this node's API, which is correct
    /// if the whole cluster uses one configuration.
    pub fn api_urls(&self) -> Vec<String> {
        let own = self.api.url();
        let Some(port) = self.api.port_for_others() else { return vec![own] };
        let others = self.cluster.peers.iter().filter(|peer| peer.id != self.node.id);
        let hosts = others.filter_map(|peer| peer.address.rsplit_once(':').map(|(host, _)| host));
        std::iter::once(own.clone())
            .chain(hosts.map(|host| format!("http://{host}:{port}")).filter(|url| *url != own))
            .collect()
    }

    fn extract(figment: &Figment) -> Result<Self, ConfigError> {
        let config: Self = figment
            .extract()
            .map_err(|error| ConfigError::Invalid { problems: problem::all::<Self>(figment, error) })?;
        config.checked()
    }

    fn checked(self) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        self.cluster.check(&self.node, &mut problems);
        self.api.check(&mut problems);
        self.http.check(&mut problems);
        self.envoy.check(&self.http, &mut problems);
        self.login.check(&mut problems);
        self.tokens.check(&mut problems);
        self.authorization.check(&mut problems);
        self.atmosphere.check(self.http.public_url().as_ref(), &mut problems);
        self.archive.check(&mut problems);
        self.log.check(&mut problems);
        self.telemetry.check(&mut problems);
        if problems.is_empty() { Ok(self) } else { Err(ConfigError::Invalid { problems }) }
    }
}

/// The settings of the file, overridden by those of the environment.
fn sources(file: Option<&Path>, environment: &Environment) -> Result<Figment, ConfigError> {
    let mistakes = environment.mistakes();
    let mut figment = Figment::new();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
        // Read first and parsed from the text, so that a missing file is an error and not an empty one.
        figment = figment.merge(problem::Named::new(path.display().to_string(), Toml::string(&text)));
    }
    if !mistakes.is_empty() {
        return Err(ConfigError::Invalid { problems: mistakes });
    }
    Ok(figment.merge(environment))
}

#[cfg(test)]
mod tests;
