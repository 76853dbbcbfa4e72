//! **Live**: real `conclave serve` processes with a real disk and mTLS, faults from outside, traffic from many sides,
//! and a judge who knows only which operations were acknowledged, and when.
//!
//! | file | owns |
//! |---|---|
//! | `environment` | the environment of the nodes: ports of loopback, or network namespaces that can be partitioned |
//! | `relay` | a slow link |
//! | `disk` | a disk that can become full |
//! | `cluster` | processes: start, kill, stop, pause, wait until ready; the node at each place |
//! | `client` | a browser and its actions: sign in to an application, be checked, redeem a code |
//! | `traffic` | clients at all nodes, an operator who revokes, and one who creates users |
//! | `final_checks` | the final checks of everything that was acknowledged |
//! | `nemesis` | the faults |
//! | `failover` | the time until the next write when a leader fails |
//! | `revocation` | the cost of a revocation |
//!
//! All times are those of this process, so "later" is certain: an operation that starts after another has returned.

mod client;
mod cluster;
mod disk;
mod environment;
mod failover;
mod final_checks;
mod nemesis;
mod relay;
mod revocation;
mod traffic;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;

pub use failover::How;
pub use nemesis::Scenario;
pub use relay::serve as serve_relay;

use cluster::LiveCluster;
use environment::EnvironmentKind;

use crate::{
    history::History,
    promise::{Broken, Promise},
};

/// Options of a run.
pub struct LiveOptions {
    /// The `conclave` binary to run.
    pub binary: PathBuf,
    /// The duration of the faults.
    pub duration: Duration,
    /// The seed for the choice of faults and of clients; timing depends on the machine.
    pub seed: u64,
}

/// The results of a run.
pub struct Findings {
    /// Name and count.
    pub counts: Vec<(&'static str, u64)>,
    /// A description of each broken promise.
    pub violations: Vec<Broken>,
}

/// Time limit for everything to work again after the faults have stopped.
const HEALED_WITHIN: Duration = Duration::from_secs(10);

/// Runs one scenario and judges it.
///
/// # Errors
/// A cluster that cannot be set up, or a machine that does not allow the faults.
pub async fn run(scenario: Scenario, options: &LiveOptions) -> anyhow::Result<Findings> {
    let cluster =
        Arc::new(LiveCluster::start(&options.binary, scenario.environment(), scenario.small_disks()).await?);
    let history = Arc::new(History::default());
    let traffic = traffic::start(&cluster, &history, options.seed).await?;
    let faults = nemesis::run(scenario, &cluster, options).await.context("a fault could not be made")?;
    let healed = tokio::time::timeout(HEALED_WITHIN, cluster.works()).await;
    let mut violations = Vec::new();
    if healed.is_err() {
        let how = format!("{} s after the faults the cluster does not work", HEALED_WITHIN.as_secs());
        violations.push(Promise::WorksAgain.broken(how));
    }
    let held = traffic.stop().await;
    violations.extend(history.judge());
    violations.extend(final_checks::judge(&cluster, &history, &held).await);
    match cluster.digests().await {
        Ok(digests) if digests.windows(2).all(|pair| pair.first() == pair.last()) => {}
        Ok(digests) => {
            let how = format!("digests differ at one index: {digests:?}");
            violations.push(Promise::EqualDigests.broken(how));
        }
        Err(error) => {
            let how = format!("digests cannot be compared: {error:#}");
            violations.push(Promise::WorksAgain.broken(how));
        }
    }
    let mut counts = history.counts();
    counts.push(("faults", faults));
    counts.push(("violations", violations.len() as u64));
    Ok(Findings { counts, violations })
}

/// Measures `runs` failovers.
///
/// # Errors
/// A cluster that cannot be set up.
pub async fn measure(how: How, runs: u32, options: &LiveOptions) -> anyhow::Result<failover::Times> {
    let cluster = Arc::new(LiveCluster::start(&options.binary, how.environment(), 0).await?);
    failover::measure(how, runs, &cluster).await
}

/// Measures `runs` revocations.
///
/// # Errors
/// A cluster that cannot be set up.
pub async fn revocations(
    frozen: bool,
    runs: u32,
    options: &LiveOptions,
) -> anyhow::Result<revocation::Costs> {
    let cluster = Arc::new(LiveCluster::start(&options.binary, EnvironmentKind::Plain, 0).await?);
    revocation::measure(frozen, runs, &cluster).await
}

/// The value below which `permille` of the times are.
#[must_use]
pub fn quantile(times: &[Duration], permille: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let place = (sorted.len().saturating_sub(1) * permille).div_ceil(1000);
    sorted.get(place).copied().unwrap_or_default()
}
