//! What an archive of the log needs of this room: the entries that are committed and applied, the log's patience while
//! the archive is behind, and a place where its word is kept for whoever asks this node how it is.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use conclave_proto::cluster::v1 as pb;

use conclave_store::{LogRecord, retention::ArchiveHold};

use super::Cluster;

/// What the archive of this node last said; nothing on a node without one.
#[derive(Default)]
pub struct ArchiveSlot(Mutex<Said>);

#[derive(Default)]
struct Said {
    hold: Option<ArchiveHold>,
    status: Option<pb::ArchiveStatus>,
    last_verified_at_ms: u64,
    last_drill_error: String,
}

impl ArchiveSlot {
    /// What the log must keep for the archive.
    pub fn hold(&self) -> Option<ArchiveHold> {
        self.said().hold
    }

    /// How the archive is.
    pub fn status(&self) -> Option<pb::ArchiveStatus> {
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
    /// The committed and applied entries from `from` on, as they lie in the log, blanks and memberships included: at
    /// most about `max_bytes` of payload, but at least one if there is one. They begin later than asked where the log
    /// was purged.
    ///
    /// # Errors
    /// When the log cannot be read, or this node stops.
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

    /// Tells the log what the archive has, so that it keeps the rest for a while, and everybody else how the archive
    /// is.
    pub fn report_archive(&self, hold: ArchiveHold, status: pb::ArchiveStatus) {
        let mut said = self.inner.leader.archive().said();
        (said.hold, said.status) = (Some(hold), Some(status));
    }

    /// Tells everybody how a drill went: when it was passed, or why not.
    pub fn report_drill(&self, passed_at_ms: Option<u64>, error: String) {
        let mut said = self.inner.leader.archive().said();
        said.last_verified_at_ms = passed_at_ms.unwrap_or(said.last_verified_at_ms);
        said.last_drill_error = error;
    }
}
