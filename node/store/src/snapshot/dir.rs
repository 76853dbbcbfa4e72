//! The directory of snapshots: names, the latest valid one, old ones, and files received from another node.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::write::Temp;
use super::{MAX_SNAPSHOT_BYTES, SealingKey, SnapshotError, SnapshotFile, SnapshotReader, read::Peeked};
use crate::{LogId, files};

const SUFFIX: &str = ".snapshot";

/// The directory that snapshots are kept in. Names sort as log ids do.
#[derive(Debug, Clone)]
pub struct SnapshotDir {
    path: PathBuf,
}

impl SnapshotDir {
    /// Uses `path`, created if missing.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        files::create_dir(path)?;
        Ok(Self { path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest file that is complete, verified to its end. A damaged file is logged and skipped. A file sealed under
    /// another key is an error: then the key is wrong, and the node must not start without its state.
    pub fn latest(&self, key: &SealingKey) -> Result<Option<SnapshotFile>, SnapshotError> {
        for path in self.newest_first()? {
            match SnapshotReader::open(&path, key).and_then(SnapshotReader::verify) {
                Ok(summary) => return Ok(Some(summary.file)),
                Err(error) if error.is_damage() => {
                    tracing::warn!(%error, "passing over a snapshot that cannot be used");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Removes all but the newest `keep`. Call it after a snapshot was written and verified.
    pub fn prune(&self, keep: usize) -> Result<(), SnapshotError> {
        for path in self.newest_first()?.into_iter().skip(keep) {
            fs::remove_file(&path).map_err(SnapshotError::io("remove", &path))?;
        }
        Ok(files::sync_dir(&self.path)?)
    }

    /// Removes files that a crash left half written. Call it at start-up, before anything is written here.
    pub fn sweep_temp(&self) -> Result<(), SnapshotError> {
        for path in self.list()? {
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(&path).map_err(SnapshotError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Begins to receive a file from another node.
    pub fn receive(&self) -> Result<IncomingSnapshot, SnapshotError> {
        let temp = Temp(temp_path(&self.path));
        let file = files::create_file(&temp.0)?;
        Ok(IncomingSnapshot { dir: self.path.clone(), temp, file, size_bytes: 0 })
    }

    /// The log ids of the files present, newest first, not verified.
    pub fn log_ids(&self) -> Result<Vec<LogId>, SnapshotError> {
        Ok(self.newest_first()?.iter().filter_map(|path| parse_name(path)).collect())
    }

    /// The size in bytes of the newest file present, not verified; `None` if there is no file.
    pub fn latest_size(&self) -> Option<u64> {
        let newest = self.newest_first().ok()?.into_iter().next()?;
        fs::metadata(newest).ok().map(|file| file.len())
    }

    /// True if the newest file present is sealed under another key than the current one of the ring. Nothing in it is
    /// verified.
    pub fn latest_is_under_other_key(&self, key: &SealingKey) -> Result<bool, SnapshotError> {
        let Some(path) = self.newest_first()?.into_iter().next() else { return Ok(false) };
        Ok(!Peeked::read(&path, None)?.is_under(key)?)
    }

    fn newest_first(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut named: Vec<_> =
            self.list()?.into_iter().filter_map(|path| parse_name(&path).map(|id| (id, path))).collect();
        named.sort();
        Ok(named.into_iter().rev().map(|(_, path)| path).collect())
    }

    fn list(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let entries = fs::read_dir(&self.path).map_err(SnapshotError::io("list", &self.path))?;
        entries
            .map(|entry| entry.map(|entry| entry.path()).map_err(SnapshotError::io("list", &self.path)))
            .collect()
    }
}

/// A file that is being received. If dropped unfinished, it leaves nothing.
pub struct IncomingSnapshot {
    dir: PathBuf,
    temp: Temp,
    file: File,
    size_bytes: u64,
}

impl IncomingSnapshot {
    /// Adds the next bytes of the file.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        if self.size_bytes > MAX_SNAPSHOT_BYTES {
            let (size, limit) = (self.size_bytes, MAX_SNAPSHOT_BYTES);
            return Err(SnapshotError::TooLarge { what: "a snapshot", size, limit });
        }
        self.file.write_all(bytes).map_err(SnapshotError::io("write", &self.temp.0))
    }

    /// Verifies the whole file, then gives it its name. An invalid file is removed and changes nothing.
    pub fn finish(self, key: &SealingKey) -> Result<SnapshotFile, SnapshotError> {
        self.file.sync_all().map_err(SnapshotError::io("sync", &self.temp.0))?;
        let mut file = SnapshotReader::open(&self.temp.0, key)?.verify()?.file;
        file.path = self.dir.join(file_name(file.header.last));
        files::rename(&self.temp.0, &file.path)?;
        Ok(file)
    }
}

/// Term, then index, zero-padded.
pub(super) fn file_name(last: Option<LogId>) -> String {
    let LogId { term, index } = last.unwrap_or(LogId { term: 0, index: 0 });
    format!("{term:020}-{index:020}{SUFFIX}")
}

/// A name that no other writer of this process uses; the data directory's lock excludes other processes.
pub(super) fn temp_path(dir: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    dir.join(format!("{}.tmp", NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn parse_name(path: &Path) -> Option<LogId> {
    let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    let (term, index) = name.split_once('-')?;
    Some(LogId { term: term.parse().ok()?, index: index.parse().ok()? })
}
