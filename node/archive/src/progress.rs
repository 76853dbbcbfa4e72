//! The progress of the archive as this node knows it. The shipper and the keeper share it, and the rest of the node
//! reads it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conclave_proto::cluster::v1 as pb;

use super::{ArchiveError, source::Source};
use conclave_base::runtime::Clock;
use conclave_store::retention::ArchiveHold;

/// The lag above which the archive is in alarm.
pub const ALARM: Duration = Duration::from_secs(10);
/// The interval at which a repeated failure is logged.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// The progress that this node knows of.
#[derive(Debug, Clone, Default)]
pub(crate) struct ArchivePosition {
    /// True once the archive has been read since this node leads.
    pub found: bool,
    /// Every entry up to this one is in the archive, except for gaps.
    pub archived: Option<u64>,
    /// The entries before this one are not in the archive, or only before a gap: a snapshot must cover them.
    pub chain_from: u64,
    /// The index and time of the newest snapshot in the archive.
    pub snapshot: Option<(u64, u64)>,
    /// The log time since which the secret was in use when this node last took a snapshot. That time may be ahead of
    /// the clock that snapshots are named by, and one snapshot for each secret is enough.
    pub snapshot_for_secret_of: u64,
    /// The monotonic time at which everything that was applied was in the archive.
    pub caught_up: Duration,
    /// The current errors, and the time since when (Unix milliseconds): of the log, and of snapshots.
    errors: [Option<(String, u64)>; 2],
    warned: Option<Duration>,
}

/// The task of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiveTask {
    Log,
    Snapshot,
}

impl ArchivePosition {
    fn error(&mut self, task: ArchiveTask) -> &mut Option<(String, u64)> {
        let [log, snapshot] = &mut self.errors;
        match task {
            ArchiveTask::Log => log,
            ArchiveTask::Snapshot => snapshot,
        }
    }

    /// The first index after a gap that no snapshot covers, if there is one.
    pub(crate) fn gap(&self) -> Option<u64> {
        let covered = self.snapshot.map_or(0, |(index, _)| index.saturating_add(1));
        (self.chain_from > covered).then_some(self.chain_from)
    }
}

/// The shared progress, and the bound of what the log may hold back.
pub(crate) struct ArchiveProgress {
    known: Mutex<ArchivePosition>,
    target: String,
    hold_back: u64,
}

impl ArchiveProgress {
    pub(crate) fn new(target: &str, hold_back: u64) -> Self {
        Self { known: Mutex::default(), target: target.to_owned(), hold_back }
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, ArchivePosition> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a failure, and logs it if it has not been logged lately.
    pub(crate) fn record_failure(&self, task: ArchiveTask, error: &ArchiveError, clock: &dyn Clock) {
        let mut known = self.known();
        let now = clock.monotonic();
        *known.error(task) = Some((error.to_string(), clock.now_ms()));
        if known.warned.is_none_or(|warned| now.saturating_sub(warned) >= WARN_EVERY) {
            known.warned = Some(now);
            tracing::warn!(%error, "the archive fails: {error}");
        }
    }

    /// Records a success after failures.
    pub(crate) fn record_success(&self, task: ArchiveTask) {
        let mut known = self.known();
        if known.error(task).take().is_some() {
            known.warned = None;
            let what = if task == ArchiveTask::Log { "entries" } else { "snapshots" };
            tracing::info!(archived = known.archived.unwrap_or(0), "the archive accepts {what} again");
        }
    }

    /// Publishes the progress to the log and to the node's status.
    pub(crate) fn publish(&self, source: &dyn Source, clock: &dyn Clock) {
        let known = self.known().clone();
        let hold = ArchiveHold { archived: known.archived, limit_bytes: self.hold_back };
        source.report(hold, self.status(&known, source, clock));
    }

    fn status(&self, known: &ArchivePosition, source: &dyn Source, clock: &dyn Clock) -> pb::ArchiveStatus {
        let behind_entries = known.archived.map_or_else(
            || source.applied().saturating_add(1),
            |archived| source.applied().saturating_sub(archived),
        );
        let waited = clock.monotonic().saturating_sub(known.caught_up);
        let behind_ms =
            if behind_entries == 0 { 0 } else { u64::try_from(waited.as_millis()).unwrap_or(u64::MAX) };
        let (last_error, last_error_at_ms) =
            known.errors.iter().flatten().next().cloned().unwrap_or_default();
        let (last_snapshot_index, last_snapshot_at_ms) = known.snapshot.unwrap_or_default();
        pb::ArchiveStatus {
            target: self.target.clone(),
            ships: source.leads(),
            archived_index: known.archived.unwrap_or(0),
            behind_entries,
            behind_ms,
            last_error,
            last_error_at_ms,
            last_snapshot_at_ms,
            last_snapshot_index,
            gap_before_index: known.gap().unwrap_or(0),
            // Set by the code that runs drills.
            ..pb::ArchiveStatus::default()
        }
    }
}
