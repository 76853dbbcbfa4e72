//! `conclave serve`: runs one node as a process: configuration in, signals, exit code out.

use std::{io::Read as _, path::PathBuf};

use tokio_util::sync::CancellationToken;

use crate::{
    boot::{self, BootError},
    telemetry,
};
use conclave_base::runtime::Runtime;
use conclave_config::Config;

/// The options of the command line.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    pub config: Option<PathBuf>,
    /// Stops when the standard input closes, for a node that must end with the tool that started it.
    pub exit_with_parent: bool,
}

/// Runs a node until it is stopped.
///
/// # Errors
/// [`BootError`].
pub async fn run(options: ServeOptions) -> Result<(), BootError> {
    let config = Config::load(options.config.as_deref())?;
    let telemetry = telemetry::init(&config.log, &config.telemetry, config.node.id)
        .map_err(|error| BootError::Machine(error.to_string()))?;
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    if options.exit_with_parent {
        stop_with_parent(stop.clone());
    }
    let result = boot::run(config, Runtime::system(), stop).await;
    if let Err(error) = &result {
        tracing::error!("{error}");
    }
    telemetry.shutdown();
    result
}

async fn stop_on_signal(stop: CancellationToken) {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
}

/// A thread, since a blocked read cannot be cancelled; it ends with the process.
fn stop_with_parent(stop: CancellationToken) {
    std::thread::spawn(move || {
        let mut sink = [0; 64];
        while std::io::stdin().lock().read(&mut sink).is_ok_and(|read| read > 0) {}
        stop.cancel();
    });
}
