//! The source of an archive: a log that grows, and a state to take snapshots of. The cluster is one; tests have others.

use std::any::Any;

use async_trait::async_trait;
use conclave_proto::cluster::v1 as pb;

use super::ArchiveError;
use conclave_cluster::Cluster;
use conclave_store::{LogRecord, retention::ArchiveHold, snapshot::SnapshotFile};

/// A snapshot whose file is kept while this value exists.
pub(crate) struct Taken {
    pub file: SnapshotFile,
    #[expect(dead_code, reason = "it is there to be dropped")]
    pub held: Box<dyn Any + Send + Sync>,
}

/// The log that is archived.
#[async_trait]
pub(crate) trait Source: Send + Sync + 'static {
    /// True if this node is the one that ships.
    fn leads(&self) -> bool;
    fn node(&self) -> u64;
    fn cluster(&self) -> [u8; 16];
    fn epoch(&self) -> u64;
    /// The last entry that is committed and applied.
    fn applied(&self) -> u64;
    /// The log time since which the secret that seals snapshots is in use; 0 if there has only ever been one.
    fn secret_since_ms(&self) -> u64;
    /// The first entry that the log still has; `None` before there is any.
    fn first_index(&self) -> Option<u64>;
    /// Returns applied entries from `from` on: about `max_bytes` of payload, but at least one if there is one.
    async fn entries(&self, from: u64, max_bytes: usize) -> Result<Vec<LogRecord>, ArchiveError>;
    /// Takes a snapshot of everything applied now, or later.
    async fn take_snapshot(&self) -> Result<Taken, ArchiveError>;
    /// Reports to the log what it must keep, and publishes the archive's status.
    fn report(&self, hold: ArchiveHold, status: pb::ArchiveStatus);
}

#[async_trait]
impl Source for Cluster {
    fn leads(&self) -> bool {
        self.is_leader()
    }

    fn node(&self) -> u64 {
        self.node_id()
    }

    fn cluster(&self) -> [u8; 16] {
        self.lineage().cluster
    }

    fn epoch(&self) -> u64 {
        self.lineage().epoch
    }

    fn applied(&self) -> u64 {
        self.view().index()
    }

    fn secret_since_ms(&self) -> u64 {
        self.view().meta().secret.as_ref().map_or(0, |secret| secret.changed_at.0)
    }

    fn first_index(&self) -> Option<u64> {
        self.log_first_index()
    }

    async fn entries(&self, from: u64, max_bytes: usize) -> Result<Vec<LogRecord>, ArchiveError> {
        self.log_entries(from, max_bytes).await.map_err(|error| ArchiveError::Log(error.to_string()))
    }

    async fn take_snapshot(&self) -> Result<Taken, ArchiveError> {
        let saved = self.save_snapshot(self.view().index()).await;
        let saved = saved.map_err(|error| ArchiveError::Log(error.to_string()))?;
        Ok(Taken { file: saved.file.clone(), held: Box::new(saved) })
    }

    fn report(&self, hold: ArchiveHold, status: pb::ArchiveStatus) {
        self.report_archive(hold, status);
    }
}
