//! A snapshot of this node's state for download or for the archive. It is the file that Raft itself would take and send
//! (docs/design/restore.md), kept under a second name while it is used, since housekeeping removes older files.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::async_runtime::WatchReceiver as _;
use tokio::time::timeout;

use conclave_store::snapshot::{MAX_SNAPSHOT_BYTES, SealingKey, SnapshotError, SnapshotFile};

use super::{
    Cluster,
    leader::{Leader, free_bytes},
    machine::LocalSnapshots,
    offline_state::{OfflineState, OfflineStateError},
    rt,
};

/// The time limit of a snapshot: a million users on a slow disk, several times over.
const LIMIT: Duration = Duration::from_mins(10);
/// The time after which a snapshot is requested again, in case the first request was lost: rarely enough to cost
/// nothing.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The reason why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("the snapshot could not be taken: {0}")]
    Raft(String),
    #[error("the snapshot took longer than {} minutes", LIMIT.as_secs() / 60)]
    TooSlow,
    #[error(transparent)]
    File(#[from] SnapshotError),
    #[error("the snapshot cannot be kept: {0}")]
    Io(#[from] std::io::Error),
    #[error(
        "the file has {size_bytes} bytes, and this node's disk has room for {room_bytes}: half of what is free, since a node whose \
         disk is full stops; make room, or ask another node"
    )]
    NoRoom { size_bytes: u64, room_bytes: u64 },
}

/// A snapshot whose file is kept while this value exists.
#[derive(Debug)]
pub struct SavedSnapshot {
    /// The description of the file. Its path is valid only as long as this value exists.
    pub file: SnapshotFile,
    held: Held,
}

impl SavedSnapshot {
    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.held.0
    }
}

#[derive(Debug)]
struct Held(PathBuf);

impl Drop for Held {
    fn drop(&mut self) {
        // The sweep at the next start removes a file that is left behind.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file from outside that is being received. Nothing in it is trusted.
pub struct Upload {
    held: Held,
    file: std::fs::File,
    size_bytes: u64,
    key: Arc<SealingKey>,
}

impl Upload {
    /// The path of the file meanwhile.
    pub fn path(&self) -> &Path {
        &self.held.0
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// [`SaveError`]; then the file is removed.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SaveError> {
        self.size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        if self.size_bytes > MAX_SNAPSHOT_BYTES {
            let (size, limit) = (self.size_bytes, MAX_SNAPSHOT_BYTES);
            return Err(SnapshotError::TooLarge { what: "a snapshot", size, limit }.into());
        }
        Ok(self.file.write_all(bytes)?)
    }

    /// Reads the file and verifies it to its last byte. The file is removed afterwards.
    ///
    /// # Errors
    /// [`OfflineStateError`].
    pub fn open(self) -> Result<OfflineState, OfflineStateError> {
        OfflineState::of_file(&self.held.0, &self.key, |_| {})
    }
}

impl Cluster {
    /// Begins to receive a snapshot file of this size from outside, beside this node's own files.
    ///
    /// # Errors
    /// [`SaveError::Io`], [`SaveError::NoRoom`].
    pub fn begin_upload(&self, size_bytes: u64) -> Result<Upload, SaveError> {
        let snapshots = self.inner.leader.snapshots();
        let room_bytes = free_bytes(snapshots.dir.path()) / 2;
        if size_bytes > room_bytes {
            return Err(SaveError::NoRoom { size_bytes, room_bytes });
        }
        let held = Held(held_path(snapshots.dir.path()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&held.0)?;
        Ok(Upload { held, file, size_bytes: 0, key: Arc::clone(&snapshots.key) })
    }

    /// Returns a snapshot of this node's state at `at_least` or later, verified to its last byte. Writes continue
    /// meanwhile.
    ///
    /// # Errors
    /// [`SaveError`].
    pub async fn save_snapshot(&self, at_least: u64) -> Result<SavedSnapshot, SaveError> {
        let leader = self.inner.leader.clone();
        let saving = async move { timeout(LIMIT, save(&leader, at_least)).await };
        match self.on_consensus(saving).await {
            Some(Ok(saved)) => saved,
            Some(Err(_)) => Err(SaveError::TooSlow),
            None => Err(SaveError::Raft("this node stops".into())),
        }
    }
}

async fn save(leader: &Leader, at_least: u64) -> Result<SavedSnapshot, SaveError> {
    let stopped = |what: &dyn std::fmt::Display| SaveError::Raft(what.to_string());
    let state = leader.view().reach(at_least).await.ok_or_else(|| stopped(&"this node has stopped"))?;
    let mut metrics = leader.raft().metrics();
    loop {
        let taken = metrics.borrow_watched().snapshot.as_ref().map(|id| id.index);
        if taken.is_some_and(|taken| taken >= state.index()) {
            let snapshots = leader.snapshots().clone();
            let held = rt::background(move || hold(&snapshots)).await?;
            return held;
        }
        // A snapshot that is being taken may be of an earlier index: then another is taken after it.
        leader.raft().trigger().snapshot().await.map_err(|e| stopped(&e))?;
        // Only another snapshot is a reason to ask again. The metrics change at each step of the log, and at each such
        // request too: asking at each change kept a processor busy for as long as the snapshot took.
        let another = async {
            while metrics.borrow_watched().snapshot.as_ref().map(|id| id.index) == taken {
                metrics.changed().await.map_err(|e| stopped(&e))?;
            }
            Ok::<(), SaveError>(())
        };
        // The timeout covers a request that was lost.
        timeout(ASK_AGAIN, another).await.unwrap_or(Ok(()))?;
    }
}

fn hold(snapshots: &LocalSnapshots) -> Result<SavedSnapshot, SaveError> {
    let newest = snapshots.dir.latest(&snapshots.key)?;
    let mut file = newest.ok_or_else(|| SaveError::Raft("it is gone already".into()))?;
    let held = Held(held_path(snapshots.dir.path()));
    std::fs::hard_link(&file.path, &held.0)?;
    file.path.clone_from(&held.0);
    Ok(SavedSnapshot { file, held })
}

/// A unique name, which the sweep at the next start would remove.
fn held_path(dir: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    dir.join(format!("held-{}.tmp", NEXT.fetch_add(1, Ordering::Relaxed)))
}
