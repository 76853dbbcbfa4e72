//! **The archive**: the log, revocations and snapshots, copied elsewhere all the time, so that a cluster that has lost
//! every disk can be restored (docs/design/restore.md).
//!
//! | file | owns |
//! |---|---|
//! | `target`, `s3` | the storage: a directory or a bucket, every call bounded; nothing is ever overwritten |
//! | [`names`], [`segment`] | the names of objects, and the sealing of a piece of the log |
//! | `source` | the archived log: the small part of the cluster that the archive uses |
//! | `shipper` | the log and the journal, shipped within a second by the leader |
//! | `keeper`, [`keep`] | snapshots on schedule, and the selection of removable objects |
//! | `progress`, `coverage` | the progress of the archive |
//! | [`read`] | reading the archive back, without a cluster |
//!
//! Nothing is lost while the target is unreachable: the log keeps what the archive lacks, up to a bound. Past the bound
//! a whole snapshot begins a new chain. The archive never delays a write, a check or the start of a node. It refuses to
//! overwrite any object, or to continue the log of another copy of the cluster.

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
pub use target::{ArchiveTarget, Measure};

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
use keep::RetentionPolicy;
use keeper::Keeper;
use names::Object;
use progress::{ArchiveProgress, ArchiveTask};
use shipper::Shipper;
use source::Source;

/// The time that a stop may wait for the tail of the log to be shipped; the next leader ships the rest.
const TAIL_LIMIT: Duration = Duration::from_secs(2);
/// The interval at which a target that could not be opened is tried again.
const OPEN_PERIOD: Duration = Duration::from_secs(5);
/// Added to the lifetime of the last thing that can be revoked: for clocks, and a day for the operator to act.
const JOURNAL_MARGIN: Duration = Duration::from_hours(24);

/// The inputs of an archive.
pub struct ArchiveOptions {
    pub settings: config::ArchiveConfig,
    /// The longest lifetime of a session or a refresh token.
    pub longest_session: Duration,
    pub keys: Arc<ClusterKeys>,
    pub runtime: Runtime,
}

/// This node's archive. Cheap to clone.
#[derive(Clone)]
pub struct Archive {
    parts: Arc<OnceLock<Parts>>,
    cluster: [u8; 16],
    policy: RetentionPolicy,
    runtime: Runtime,
    tasks: Arc<Vec<AbortHandle>>,
}

struct Parts {
    target: ArchiveTarget,
    shipper: Arc<Mutex<Shipper>>,
}

impl Archive {
    /// Begins to archive this cluster, if a target is set. A target that cannot be opened is tried again and again, and
    /// is named in the node's status meanwhile: a node serves without its archive.
    pub fn start(options: ArchiveOptions, cluster: Cluster) -> Option<Self> {
        let target = options.settings.target.clone()?;
        let progress = Arc::new(ArchiveProgress::new(&target, options.settings.hold_back));
        let window = options.longest_session.saturating_add(JOURNAL_MARGIN);
        let journal_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let policy = RetentionPolicy { keep: options.settings.keep.clone(), journal_ms };
        let (parts, runtime) = (Arc::new(OnceLock::new()), options.runtime.clone());
        let cluster_id = cluster.lineage().cluster;
        let running = run(options, policy.clone(), Arc::new(cluster), progress, Arc::clone(&parts));
        let tasks = Arc::new(vec![tokio::spawn(running).abort_handle()]);
        Some(Self { parts, cluster: cluster_id, policy, runtime, tasks })
    }

    /// Ships the rest of the log within a time limit, for a node that stops.
    pub async fn ship_tail(&self) {
        let Some(parts) = self.parts.get() else { return };
        let shipping = async { parts.shipper.lock().await.tick().await };
        if tokio::time::timeout(TAIL_LIMIT, shipping).await.is_err() {
            tracing::warn!("the end of the log was not archived in time; the next leader does it");
        }
    }

    /// Stops the archive. Requests in progress may complete or not.
    pub fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }

    /// The objects in the archive of this cluster.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn objects(&self) -> Result<Vec<Object>, ArchiveError> {
        keeper::everything(self.target()?, &self.cluster).await
    }

    /// Removes objects that no kept object needs; with `dry_run`, only reports them.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn prune(&self, dry_run: bool) -> Result<Pruned, ArchiveError> {
        let now = self.runtime.clock.now_ms();
        keeper::prune(self.target()?, self.cluster, &self.policy, now, dry_run).await
    }

    fn target(&self) -> Result<&ArchiveTarget, ArchiveError> {
        let not_open =
            || ArchiveError::Log("the target could not be opened yet; see `conclave archive status`".into());
        self.parts.get().map(|parts| &parts.target).ok_or_else(not_open)
    }
}

/// Opens the target, then ships the log and keeps snapshots until it is dropped.
async fn run(
    options: ArchiveOptions,
    policy: RetentionPolicy,
    source: Arc<dyn Source>,
    progress: Arc<ArchiveProgress>,
    parts: Arc<OnceLock<Parts>>,
) {
    let clock = Arc::clone(&options.runtime.clock);
    let target = loop {
        match ArchiveTarget::open(&options.settings) {
            Ok(target) => break target,
            Err(error) => progress.record_failure(ArchiveTask::Log, &error, &*clock),
        }
        progress.publish(&*source, &*clock);
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
    // Neither future ends by itself.
    let ((), ()) = tokio::join!(shipping, keeping);
}
