//! A snapshot of this node's state for somebody else: to be downloaded, or shipped. It is the file that Raft itself
//! would take and send (design.md §8), held under a second name while it is used, since housekeeping removes older
//! files.

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
    known::{Known, KnownError},
    leader::{Leader, free_bytes},
    machine::Snapshots,
    rt,
};

/// How long a snapshot may take: a million people on a slow disk, several times over.
const LIMIT: Duration = Duration::from_mins(10);
/// After this a snapshot is asked for again, in case nobody heard it: rarely enough to cost nothing.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why there is no snapshot.
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

/// A snapshot that stays where it is while this is held.
#[derive(Debug)]
pub struct SavedSnapshot {
    /// What it is of; its path is only good as long as this lives.
    pub file: SnapshotFile,
    held: Held,
}

impl SavedSnapshot {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.held.0
    }
}

#[derive(Debug)]
struct Held(PathBuf);

impl Drop for Held {
    fn drop(&mut self) {
        // The sweep at the next start takes what this leaves.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file that came from outside, on its way in. Nothing of it is believed.
pub struct Upload {
    held: Held,
    file: std::fs::File,
    size_bytes: u64,
    key: Arc<SealingKey>,
}

impl Upload {
    /// Where it lies meanwhile.
    pub fn path(&self) -> &Path {
        &self.held.0
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// [`SaveError`]; then the file is gone.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SaveError> {
        self.size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        if self.size_bytes > MAX_SNAPSHOT_BYTES {
            let (size, limit) = (self.size_bytes, MAX_SNAPSHOT_BYTES);
            return Err(SnapshotError::TooLarge { what: "a snapshot", size, limit }.into());
        }
        Ok(self.file.write_all(bytes)?)
    }

    /// What it holds, proven to its last byte. The file is gone afterwards.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn open(self) -> Result<Known, KnownError> {
        Known::of_file(&self.held.0, &self.key, |_| {})
    }
}

impl Cluster {
    /// Begins to take in a snapshot file of this size from outside, beside this node's own.
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

    /// A snapshot of this node's state at `at_least` or later, verified to its last byte. Writes go on meanwhile.
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
        // One that is being taken may be of an earlier index: then another is taken after it.
        leader.raft().trigger().snapshot().await.map_err(|e| stopped(&e))?;
        // Only another snapshot is a reason to ask again. The metrics change at each step of the log, and at each such
        // question too: whoever asked at each change kept a processor busy for as long as the snapshot took.
        let another = async {
            while metrics.borrow_watched().snapshot.as_ref().map(|id| id.index) == taken {
                metrics.changed().await.map_err(|e| stopped(&e))?;
            }
            Ok::<(), SaveError>(())
        };
        // Or that nobody heard the question.
        timeout(ASK_AGAIN, another).await.unwrap_or(Ok(()))?;
    }
}

fn hold(snapshots: &Snapshots) -> Result<SavedSnapshot, SaveError> {
    let newest = snapshots.dir.latest(&snapshots.key)?;
    let mut file = newest.ok_or_else(|| SaveError::Raft("it is gone already".into()))?;
    let held = Held(held_path(snapshots.dir.path()));
    std::fs::hard_link(&file.path, &held.0)?;
    file.path.clone_from(&held.0);
    Ok(SavedSnapshot { file, held })
}

/// A name of nobody else's, which the sweep at the next start would take.
fn held_path(dir: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    dir.join(format!("held-{}.tmp", NEXT.fetch_add(1, Ordering::Relaxed)))
}
