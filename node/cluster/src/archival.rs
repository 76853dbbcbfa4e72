//! The archive's interface to the cluster: committed and applied log entries, log retention while the archive lags
//! behind, and a place to publish the archive's status.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use conclave_proto::cluster::v1 as pb;

use conclave_store::{LogRecord, retention::ArchiveHold};

use super::Cluster;

/// The last report of this node's archive. Empty on a node without an archive.
#[derive(Default)]
pub(crate) struct ArchiveSlot(Mutex<Said>);

#[derive(Default)]
struct Said {
    hold: Option<ArchiveHold>,
    status: Option<pb::ArchiveStatus>,
    last_verified_at_ms: u64,
    last_drill_error: String,
}

impl ArchiveSlot {
    /// The entries that the log must keep for the archive.
    pub(crate) fn hold(&self) -> Option<ArchiveHold> {
        self.said().hold
    }

    /// The status of the archive.
    pub(crate) fn status(&self) -> Option<pb::ArchiveStatus> {
        let said = self.said();
        let status = said.status.clone()?;
        Some(pb::ArchiveStatus {
            last_verified_at_ms: said.last_verified_at_ms,
            last_drill_error: said.last_drill_error.clone(),
            ..status
        })
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Returns the committed and applied entries from index `from` on as they are stored in the log, including blank
    /// and membership entries. The payload is limited to about `max_bytes`, but at least one entry is returned if there
    /// is one. The first entry is later than `from` if the log was purged there.
    ///
    /// # Errors
    /// An error if the log cannot be read, or if this node stops.
    pub async fn log_entries(&self, from: u64, max_bytes: usize) -> io::Result<Vec<LogRecord>> {
        let end = self.view().index().saturating_add(1);
        let log = self.inner.leader.log().clone();
        let reading = async move { log.records(from, end, max_bytes).await };
        self.on_consensus(reading).await.unwrap_or_else(|| Err(io::Error::other("this node stops")))
    }

    /// The index of the first entry that the log still has.
    pub fn log_first_index(&self) -> Option<u64> {
        self.inner.leader.log().first_index()
    }

    /// Reports the archive's progress to the log, which keeps the remaining entries for a while, and publishes the
    /// archive's status.
    pub fn report_archive(&self, hold: ArchiveHold, status: pb::ArchiveStatus) {
        let mut said = self.inner.leader.archive().said();
        (said.hold, said.status) = (Some(hold), Some(status));
    }

    /// Publishes the result of a drill: the time at which it passed, or the reason why it failed.
    pub fn report_drill(&self, passed_at_ms: Option<u64>, error: String) {
        let mut said = self.inner.leader.archive().said();
        said.last_verified_at_ms = passed_at_ms.unwrap_or(said.last_verified_at_ms);
        said.last_drill_error = error;
    }
}
