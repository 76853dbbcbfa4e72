//! Logs and traces: set up once at start, for the whole process.
//!
//! Logs go to standard error, as text on a terminal and as JSON lines elsewhere; standard output is for commands.
//! Traces are exported only when a collector is configured. One trace then spans a follower and the leader, carried by
//! [`propagation`](conclave_base::propagation). Nothing in here may stop or slow the node: if a collector is
//! unreachable, spans are lost.

pub mod metrics;
mod one_line;

use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use self::one_line::OneLine;
use conclave_config::{LogConfig, LogFormat, Telemetry};

/// Time limit for exporting the last spans when the node stops.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Time limit for exporting one batch of spans.
const EXPORT_LIMIT: Duration = Duration::from_secs(5);

/// Crates that the exporter itself uses: exporting their spans would create more of them.
const EXPORTER_TARGETS: [&str; 5] = ["h2", "hyper", "tonic", "tower", "opentelemetry"];

/// The reason why logs or traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log.level: not a level or filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("telemetry.otlp_endpoint: cannot set up the exporter")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("logging was set up before")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// The tracer provider to flush when the process ends.
#[derive(Debug)]
#[must_use = "the last spans are flushed by `shutdown`"]
pub struct TelemetryGuard(Option<SdkTracerProvider>);

impl TelemetryGuard {
    /// Exports the remaining spans, for at most two seconds. Blocks: call it last.
    pub fn shutdown(self) {
        let Some(provider) = self.0 else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_LIMIT) {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}

/// Sets up logs and traces of the process. Needs a tokio runtime around it when a collector is configured.
pub fn init(log: &LogConfig, telemetry: &Telemetry, node_id: u64) -> Result<TelemetryGuard, TelemetryError> {
    let provider = match &telemetry.otlp_endpoint {
        Some(endpoint) => Some(provider(endpoint.as_str(), node_id)?),
        None => None,
    };
    let json = match log.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    subscriber(&log.level, json, io::stderr, provider.as_ref())?.try_init()?;
    Ok(TelemetryGuard(provider))
}

/// The subscriber itself, for tests that read its output.
fn subscriber<W>(
    level: &str,
    json: bool,
    writer: W,
    provider: Option<&SdkTracerProvider>,
) -> Result<impl Subscriber + Send + Sync + 'static, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let traces = provider.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("conclave"))
            .with_filter(filter_fn(is_our_own))
    });
    Ok(Registry::default()
        .with(EnvFilter::try_new(with_quiet_raft(&of_crates(level)))?)
        .with(lines(json, writer))
        .with(traces))
}

/// An unreachable peer would log a warning for each heartbeat, twenty a second; the cluster room logs it once.
const QUIET_RAFT: &str = "openraft=error";

/// Adds [`QUIET_RAFT`] to the filter. openraft logs each vote and heartbeat at `info`; the cluster room logs the
/// important ones itself. A filter that names openraft is not changed.
fn with_quiet_raft(level: &str) -> String {
    if level.contains("openraft") { level.to_owned() } else { format!("{level},{QUIET_RAFT}") }
}

/// The filter with the targets of today. Rooms were modules of `conclave_node` once, and configurations name them.
fn of_crates(level: &str) -> String {
    let directives = level.split(',').map(|directive| {
        let (target, rest) = directive.find(['=', '[']).map_or((directive, ""), |at| directive.split_at(at));
        let target = target.trim();
        let Some(module) = target.strip_prefix("conclave_node") else { return directive.to_owned() };
        let path: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
        let path = if path.first() == Some(&"protocol") { path.get(1..).unwrap_or_default() } else { &path };
        let target = match path {
            // A prefix of the names of all crates.
            [] => "conclave".to_owned(),
            ["runtime" | "text", ..] => "conclave_base".to_owned(),
            ["auth", "pages", rest @ ..] => ["conclave_web::pages", &rest.join("::")].join("::"),
            ["boot" | "cli" | "demo" | "doors" | "health" | "metrics" | "serve" | "telemetry", ..] => {
                target.to_owned()
            }
            [room, rest @ ..] => [&format!("conclave_{room}"), rest.join("::").as_str()].join("::"),
        };
        format!("{}{rest}", target.trim_end_matches(':'))
    });
    directives.collect::<Vec<_>>().join(",")
}

fn lines<S, W>(json: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer();
    if json {
        // The message and the fields of the event at the top level, those of its spans under `span` and `spans`.
        layer.json().flatten_event(true).with_writer(writer).boxed()
    } else {
        layer.with_ansi(io::stderr().is_terminal()).with_target(false).with_writer(OneLine(writer)).boxed()
    }
}

fn is_our_own(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    !EXPORTER_TARGETS.iter().any(|other| target.split("::").next() == Some(other))
}

fn provider(endpoint: &str, node_id: u64) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter =
        SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_LIMIT).build()?;
    let resource = Resource::builder()
        .with_service_name("conclave")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", node_id.to_string()))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// An error with all its causes on one line, for logs and command lines.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
