//! Writes snapshots to the archive when they are due, and removes objects that no kept object needs. It runs on the
//! leader, beside the shipping of the log, and never delays it.

use std::{sync::Arc, time::Duration};

use super::{
    ArchiveError, ArchiveTarget,
    keep::{self, RetentionPolicy},
    names::{NewName, Object, ObjectKind},
    progress::{ArchiveProgress, ArchiveTask},
    source::Source,
};
use conclave_base::runtime::Runtime;
use conclave_config::ScheduleConfig;

/// The interval between two rounds.
pub(crate) const PERIOD: Duration = Duration::from_secs(2);
/// The pause after a snapshot that could not be taken or written: a snapshot is large.
const PAUSE: Duration = Duration::from_secs(30);
/// Objects removed in one round; the rest is removed in the next.
const MAX_REMOVED: usize = 20_000;
/// Objects whose removal fails in one round: each costs a request, and is tried again in the next round.
const MAX_LEFT: u64 = 1_000;

/// The objects that were removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The names of the snapshots.
    pub snapshots: Vec<String>,
    pub segments: u64,
    pub revocation_journal: u64,
    pub size_bytes: u64,
    /// Objects that should be removed and cannot be now, most often because of an object lock.
    pub left: u64,
}

/// The task that takes snapshots and prunes.
pub(crate) struct Keeper {
    pub source: Arc<dyn Source>,
    pub target: ArchiveTarget,
    pub runtime: Runtime,
    pub progress: Arc<ArchiveProgress>,
    pub schedule: ScheduleConfig,
    pub policy: RetentionPolicy,
}

impl Keeper {
    /// Runs one round. Returns the time to wait before the next.
    pub(crate) async fn tick(&self) -> Duration {
        if !self.source.leads() {
            self.progress.known().snapshot = None;
            return PERIOD;
        }
        let (outcome, pause) = match self.is_due().await {
            Ok(true) => (self.snapshot_and_prune().await, PAUSE),
            Ok(false) => (Ok(()), PERIOD),
            Err(error) => (Err(error), PERIOD),
        };
        match outcome {
            Ok(()) => {
                self.progress.record_success(ArchiveTask::Snapshot);
                PERIOD
            }
            Err(error) => {
                self.progress.record_failure(ArchiveTask::Snapshot, &error, &*self.runtime.clock);
                pause
            }
        }
    }

    async fn is_due(&self) -> Result<bool, ArchiveError> {
        if !self.progress.known().found {
            return Ok(false);
        }
        if self.progress.known().snapshot.is_none() {
            let (cluster, epoch) = (self.source.cluster(), self.source.epoch());
            let there = self.target.list(&cluster, ObjectKind::Snapshot, epoch, None).await?;
            self.progress.known().snapshot = there.last().map(|newest| (newest.last, newest.at_ms));
        }
        let known = self.progress.known().clone();
        let now = self.runtime.clock.now_ms();
        // A node with only the current secret must be able to restore: the snapshots there are sealed under the earlier
        // one.
        let since = self.source.secret_since_ms();
        let is_of_earlier_secret = |at: u64| at < since && known.snapshot_for_secret_of != since;
        let is_due = |(_, at)| self.schedule.is_due(at, now) || is_of_earlier_secret(at);
        Ok(known.snapshot.is_none_or(is_due) || known.gap().is_some())
    }

    async fn snapshot_and_prune(&self) -> Result<(), ArchiveError> {
        self.snapshot().await?;
        let now = self.runtime.clock.now_ms();
        let pruned = prune(&self.target, self.source.cluster(), &self.policy, now, false).await?;
        if pruned != Pruned::default() {
            tracing::info!(
                snapshots = pruned.snapshots.len(),
                segments = pruned.segments,
                journal = pruned.revocation_journal,
                size_bytes = pruned.size_bytes,
                left = pruned.left,
                "the archive was pruned"
            );
        }
        Ok(())
    }

    async fn snapshot(&self) -> Result<(), ArchiveError> {
        let secret_since_ms = self.source.secret_since_ms();
        let taken = self.source.take_snapshot().await?;
        let file = &taken.file;
        let index = file.header.last.map_or(0, |last| last.index);
        let name = NewName {
            cluster: self.source.cluster(),
            kind: ObjectKind::Snapshot,
            epoch: self.source.epoch(),
            first: index,
            last: index,
            at_ms: file.header.created_at_ms,
            node: self.source.node(),
            random: u64::from_be_bytes(self.runtime.entropy.bytes()),
        };
        self.target.put_file(&name.text(), &file.path).await?;
        {
            let mut known = self.progress.known();
            known.snapshot = Some((index, file.header.created_at_ms));
            known.snapshot_for_secret_of = secret_since_ms;
        }
        self.progress.publish(&*self.source, &*self.runtime.clock);
        tracing::info!(raft.index = index, size_bytes = file.size_bytes, "a snapshot is in the archive");
        Ok(())
    }
}

/// Removes objects that no kept object needs; with `dry_run`, only reports them.
///
/// # Errors
/// [`ArchiveError`]; an object lock keeps objects for a while, and they are removed later.
pub(crate) async fn prune(
    target: &ArchiveTarget,
    cluster: [u8; 16],
    policy: &RetentionPolicy,
    now_ms: u64,
    dry_run: bool,
) -> Result<Pruned, ArchiveError> {
    let objects = everything(target, &cluster).await?;
    let (mut pruned, mut removed) = (Pruned::default(), 0);
    for object in keep::expired(&objects, policy, now_ms) {
        if removed == MAX_REMOVED || pruned.left == MAX_LEFT {
            break;
        }
        match if dry_run { Ok(()) } else { target.delete(&object.name).await } {
            Ok(()) => removed += 1,
            // An object that is locked for years must not keep the others here.
            Err(error @ ArchiveError::Store { .. }) => {
                tracing::debug!(%error, "an object stays in the archive for now: {error}");
                pruned.left += 1;
                continue;
            }
            Err(error) => return Err(error),
        }
        match object.kind {
            ObjectKind::Snapshot => pruned.snapshots.push(object.name.clone()),
            ObjectKind::Log => pruned.segments += 1,
            ObjectKind::RevocationJournal => pruned.revocation_journal += 1,
        }
        pruned.size_bytes += object.size_bytes;
    }
    Ok(pruned)
}

/// All objects of a cluster, sorted by kind, lineage and index.
///
/// # Errors
/// [`ArchiveError`].
pub(crate) async fn everything(
    target: &ArchiveTarget,
    cluster: &[u8; 16],
) -> Result<Vec<Object>, ArchiveError> {
    let mut all = Vec::new();
    for kind in [ObjectKind::Snapshot, ObjectKind::Log, ObjectKind::RevocationJournal] {
        all.extend(target.list_all(cluster, kind).await?);
    }
    Ok(all)
}
