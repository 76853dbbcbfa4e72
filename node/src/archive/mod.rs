//! **The archive**: the log, what was taken away, and snapshots, copied elsewhere all the time, so that a cluster can
//! be brought back that has lost every disk (design.md §8).
//!
//! | file | owns |
//! |---|---|
//! | `target`, `s3` | the place: a directory or a bucket, every call bounded; nothing is ever overwritten |
//! | [`names`], [`segment`] | what objects are called, and how a piece of the log is sealed |
//! | `source` | what is archived, as little of the cluster as that takes |
//! | `shipper` | the log and the journal, within a second, by the leader |
//! | `keeper`, [`keep`] | snapshots on schedule, and what may go |
//! | `progress`, `coverage` | how far it is |
//! | [`read`] | reading it back, without a cluster |
//!
//! It promises that nothing is lost while the target is away: the log keeps what the archive lacks, up to a bound, and
//! past the bound a whole snapshot begins a new chain. It never holds up a write, a check or the start of a node, and
//! refuses to write over anything, or behind the log of another copy of the same cluster.

mod coverage;
mod error;
pub mod keep;
mod keeper;
pub mod names;
mod progress;
pub mod read;
mod s3;
pub mod segment;
mod shipper;
mod source;
mod target;
#[cfg(test)]
mod tests;

pub use coverage::{Run, runs};
pub use error::ArchiveError;
pub use keeper::Pruned;
pub use progress::ALARM;
pub use target::{Measure, Target};

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{sync::Mutex, task::AbortHandle};

use conclave_base::runtime::Runtime;
use conclave_cluster::Cluster;
use conclave_config as config;
use conclave_crypto::keys::ClusterKeys;
use conclave_store::snapshot::SealingKey;
use keep::Policy;
use keeper::Keeper;
use names::Object;
use progress::{Matter, Progress};
use shipper::Shipper;
use source::Source;

/// How long a stop may wait for the tail of the log to be shipped; what is left the next leader ships.
const TAIL_LIMIT: Duration = Duration::from_secs(2);
/// How often a target is tried that could not be opened.
const OPEN_PERIOD: Duration = Duration::from_secs(5);
/// Beyond the life of the last thing that can be revoked: clocks, and a day to act.
const JOURNAL_MARGIN: Duration = Duration::from_hours(24);

/// What an archive is made from.
pub struct Options {
    pub settings: config::Archive,
    /// The longest that a session or a refresh token lives.
    pub longest_life: Duration,
    pub keys: Arc<ClusterKeys>,
    pub runtime: Runtime,
}

/// This node's archive. Cheap to clone.
#[derive(Clone)]
pub struct Archive {
    parts: Arc<OnceLock<Parts>>,
    cluster: [u8; 16],
    policy: Policy,
    runtime: Runtime,
    tasks: Arc<Vec<AbortHandle>>,
}

struct Parts {
    target: Target,
    shipper: Arc<Mutex<Shipper>>,
}

impl Archive {
    /// Begins to archive this cluster, if a target is set. One that cannot be opened is tried again and again, and
    /// named in the node's status meanwhile: a node serves without its archive.
    pub fn start(options: Options, cluster: Cluster) -> Option<Self> {
        let target = options.settings.target.clone()?;
        let progress = Arc::new(Progress::new(&target, options.settings.hold_back));
        let life = options.longest_life.saturating_add(JOURNAL_MARGIN);
        let journal_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        let policy = Policy { keep: options.settings.keep.clone(), journal_ms };
        let (parts, runtime) = (Arc::new(OnceLock::new()), options.runtime.clone());
        let cluster_id = cluster.lineage().cluster;
        let running = run(options, policy.clone(), Arc::new(cluster), progress, Arc::clone(&parts));
        let tasks = Arc::new(vec![tokio::spawn(running).abort_handle()]);
        Some(Self { parts, cluster: cluster_id, policy, runtime, tasks })
    }

    /// Ships what is left, within a bound: for a node that stops.
    pub async fn ship_tail(&self) {
        let Some(parts) = self.parts.get() else { return };
        let shipping = async { parts.shipper.lock().await.tick().await };
        if tokio::time::timeout(TAIL_LIMIT, shipping).await.is_err() {
            tracing::warn!("the end of the log was not archived in time; the next leader does it");
        }
    }

    /// Ends it. What was on its way may arrive or not.
    pub fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }

    /// What lies in the archive of this cluster.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn objects(&self) -> Result<Vec<Object>, ArchiveError> {
        keeper::everything(self.target()?, &self.cluster).await
    }

    /// Removes what nothing kept needs; with `dry_run` only says what that is.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn prune(&self, dry_run: bool) -> Result<Pruned, ArchiveError> {
        let now = self.runtime.clock.now_ms();
        keeper::prune(self.target()?, self.cluster, &self.policy, now, dry_run).await
    }

    fn target(&self) -> Result<&Target, ArchiveError> {
        let not_open =
            || ArchiveError::Log("the target could not be opened yet; see `conclave archive status`".into());
        self.parts.get().map(|parts| &parts.target).ok_or_else(not_open)
    }
}

/// Opens the target, then ships and keeps until it is dropped.
async fn run(
    options: Options,
    policy: Policy,
    source: Arc<dyn Source>,
    progress: Arc<Progress>,
    parts: Arc<OnceLock<Parts>>,
) {
    let clock = Arc::clone(&options.runtime.clock);
    let target = loop {
        match Target::open(&options.settings) {
            Ok(target) => break target,
            Err(error) => progress.failed(Matter::Log, &error, &*clock),
        }
        progress.tell(&*source, &*clock);
        tokio::time::sleep(OPEN_PERIOD).await;
    };
    tracing::info!(target = target.shown(), "archiving to {}", target.shown());
    let key = Arc::new(SealingKey::ring(&options.keys));
    let shipper = Arc::new(Mutex::new(Shipper::new(
        Arc::clone(&source),
        target.clone(),
        key,
        options.runtime.clone(),
        Arc::clone(&progress),
    )));
    let keeper = Keeper {
        source,
        target: target.clone(),
        runtime: options.runtime,
        progress,
        schedule: options.settings.schedule,
        policy,
    };
    // Set once, here.
    let _ = parts.set(Parts { target, shipper: Arc::clone(&shipper) });
    let shipping = async {
        loop {
            let pause = shipper.lock().await.tick().await;
            tokio::time::sleep(pause).await;
        }
    };
    let keeping = async {
        loop {
            tokio::time::sleep(keeper.tick().await).await;
        }
    };
    // Neither ends by itself.
    let ((), ()) = tokio::join!(shipping, keeping);
}
