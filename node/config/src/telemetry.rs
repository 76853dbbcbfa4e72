//! `[log]` and `[telemetry]`: logs, traces and metrics.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use url::Url;

use super::parse::ListenAddr;

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `human`, `json`, or `auto`: human on a terminal and JSON elsewhere. Default `auto`.
    pub format: LogFormat,
    /// A level, or a filter such as `info,conclave_cluster=debug`. Default `info`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Auto,
    Human,
    Json,
}

/// `[telemetry]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// OTLP collector over gRPC (`http://127.0.0.1:4317`). Default none: no traces are exported.
    pub otlp_endpoint: Option<Url>,
    /// Address on which this node serves its metrics (`127.0.0.1:9464`), at `/metrics`, in the OpenMetrics text format.
    /// They contain no secrets, but are served without authentication: do not expose them to the Internet. Default
    /// none.
    pub metrics_listen: Option<ListenAddr>,
}

impl LogConfig {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if let Err(error) = EnvFilter::try_new(&self.level) {
            problems.push(format!("log.level: {:?} is not a level or filter: {error}", self.level));
        }
    }
}

impl Telemetry {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.otlp_endpoint.as_ref().is_some_and(|url| url.scheme() != "http" || !url.has_host()) {
            problems
                .push("telemetry.otlp_endpoint: write http://host:port of a collector near this node".into());
        }
    }
}
