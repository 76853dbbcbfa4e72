//! One sled directory: keys, records in pieces, and the steps that make a write durable.
//!
//! Records are cut into pieces of [`PIECE_BYTES`], because sled writes a page that outgrows a quarter of its segment
//! (128 KiB) to a file of its own *without ever syncing it*. A leaf holds at most 16 items before it splits (20 while
//! two leaves merge), so 20 pieces must stay below that. Then all our bytes are in the one file that we sync.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::super::StoreError;
use super::super::log::LogRecord;
use super::super::record::{self, Chained, Facts};

/// The size of a value. 20 of these and their keys stay well below sled's 128 KiB.
const PIECE_BYTES: usize = 5 * 1024;

/// sled's page cache. Recent entries are read from memory by the layer above, so this only serves followers that lag.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// The attempts to get the lock of a database that was closed a moment ago: 2 s in total.
const LOCK_ATTEMPTS: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

const FACTS_KEY: &[u8] = b"f";
const RECORD_PREFIX: u8 = b'r';

/// An open sled directory and a second handle of its data file.
pub(super) struct Engine {
    dir: PathBuf,
    file: File,
    db: sled::Db,
}

/// The changes of one atomic batch.
#[derive(Default)]
pub(super) struct Writes(sled::Batch);

impl Writes {
    pub(super) fn record(&mut self, index: u64, bytes: &[u8]) {
        for (piece, part) in (0_u16..).zip(bytes.chunks(PIECE_BYTES)) {
            self.0.insert(&key(index, piece), part);
        }
    }

    pub(super) fn facts(&mut self, facts: &Facts) {
        self.0.insert(FACTS_KEY, facts.encode());
    }
}

impl Engine {
    /// Opens or creates the directory. sled panics on some kinds of damage; this becomes an error like any other.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        remove_unfinished_snapshots(dir)?;
        let db = open_db(dir)?.map_err(|e| match e {
            sled::Error::Io(source) => StoreError::io("open log", dir)(source),
            other => StoreError::damaged(dir, other.to_string()),
        })?;
        let data = dir.join("db");
        let file =
            File::options().read(true).write(true).open(&data).map_err(StoreError::io("open", &data))?;
        Ok(Self { dir: dir.to_owned(), file, db })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn write(&self, writes: Writes) -> Result<(), StoreError> {
        self.db.apply_batch(writes.0).map_err(|e| self.failed(e))
    }

    /// Brings everything written to stable storage. sled's `flush` passes its buffers to the kernel (`pwrite`, then
    /// `sync_file_range`, which gives no durability). `fdatasync` works on the inode, so another handle of the file is
    /// enough. Never called again after it failed.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|e| self.failed(e))?;
        self.file.sync_data().map_err(StoreError::io("fdatasync", &self.dir.join("db")))
    }

    pub(super) fn facts(&self) -> Result<Option<Facts>, StoreError> {
        match self.db.get(FACTS_KEY).map_err(|e| self.failed(e))? {
            Some(bytes) => Facts::decode(&bytes).map(Some).map_err(|e| StoreError::damaged(&self.dir, e)),
            None => Ok(None),
        }
    }

    /// The entry at `index`, if the log has it.
    pub(super) fn record(&self, index: u64) -> Result<Option<Chained>, StoreError> {
        self.records(index, index.saturating_add(1)).next().transpose()
    }

    /// The entries in `from..to` with their place in the chain, checked one by one.
    pub(super) fn records(
        &self,
        from: u64,
        to: u64,
    ) -> impl Iterator<Item = Result<Chained, StoreError>> + '_ {
        self.raw_records(from, to).map(|raw| {
            let (index, bytes) = raw?;
            let damaged = |detail| StoreError::damaged(&self.dir, format!("entry {index}: {detail}"));
            let chained = record::decode(&bytes).map_err(damaged)?;
            if chained.record.index == index {
                return Ok(chained);
            }
            Err(damaged(format!("holds entry {}", chained.record.index)))
        })
    }

    /// The entries in `from..to` as bytes, joined from their pieces.
    pub(super) fn raw_records(&self, from: u64, to: u64) -> RawRecords<'_> {
        let range = if from < to { key(from, 0)..key(to, 0) } else { key(from, 0)..key(from, 0) };
        RawRecords { engine: self, pieces: self.db.range(range), ahead: None }
    }

    pub(super) fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<LogRecord>, StoreError> {
        let mut bytes = 0;
        let mut out: Vec<LogRecord> = Vec::new();
        for chained in self.records(from, to) {
            let record = chained?.record;
            if out.last().is_some_and(|last| last.index + 1 != record.index) {
                return Err(StoreError::damaged(&self.dir, format!("a hole before entry {}", record.index)));
            }
            bytes += record.payload.len();
            if !out.is_empty() && bytes > max_bytes {
                break;
            }
            out.push(record);
        }
        Ok(out)
    }

    /// Marks the entries `from..=to` for removal and returns their sizes.
    pub(super) fn remove(
        &self,
        writes: &mut Writes,
        from: u64,
        to: u64,
    ) -> Result<BTreeMap<u64, usize>, StoreError> {
        let mut removed = BTreeMap::new();
        for item in self.db.range(key(from, 0)..=key(to, u16::MAX)) {
            let (name, value) = item.map_err(|e| self.failed(e))?;
            if let Some((index, _)) = parse_key(&name) {
                *removed.entry(index).or_insert(0) += value.len();
            }
            writes.0.remove(name);
        }
        Ok(removed)
    }

    pub(super) fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.db.size_on_disk().map_err(|e| self.failed(e))
    }

    fn failed(&self, error: sled::Error) -> StoreError {
        match error {
            sled::Error::Io(source) => StoreError::io("log engine", &self.dir)(source),
            sled::Error::Corruption { .. } => StoreError::damaged(&self.dir, error.to_string()),
            other => StoreError::Engine { path: self.dir.clone(), detail: other.to_string() },
        }
    }
}

/// Opens sled, and retries if its lock is held. sled's threads, or a process that is just being spawned, may hold the
/// lock a moment longer than the database it belonged to. Another node cannot be the holder: the data directory has a
/// lock of its own.
fn open_db(dir: &Path) -> Result<sled::Result<sled::Db>, StoreError> {
    let open = || sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).open();
    for _ in 0..LOCK_ATTEMPTS {
        match guarded(dir, open)? {
            Err(sled::Error::Io(e)) if e.to_string().contains("could not acquire lock") => {
                thread::sleep(LOCK_PAUSE);
            }
            other => return Ok(other),
        }
    }
    guarded(dir, open)
}

/// Runs code that may panic inside the engine when the files are damaged.
pub(super) fn guarded<T>(dir: &Path, run: impl FnOnce() -> T) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|_| StoreError::damaged(dir, "the log engine gave up while reading its files"))
}

pub(super) struct RawRecords<'a> {
    engine: &'a Engine,
    pieces: sled::Iter,
    /// The first piece of the next entry, read while the entry before it was joined.
    ahead: Option<(u64, Vec<u8>)>,
}

impl Iterator for RawRecords<'_> {
    type Item = Result<(u64, Vec<u8>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut whole = self.ahead.take();
        let mut due = 1_u16;
        for item in self.pieces.by_ref() {
            let (name, value) = match item {
                Ok(item) => item,
                Err(e) => return Some(Err(self.engine.failed(e))),
            };
            let damaged = |detail: String| Some(Err(StoreError::damaged(&self.engine.dir, detail)));
            let Some((index, piece)) = parse_key(&name) else {
                return damaged("a key that is not ours".to_owned());
            };
            match (&mut whole, piece) {
                (Some((at, bytes)), piece) if *at == index && piece == due => {
                    bytes.extend_from_slice(&value);
                    due += 1;
                }
                (None, 0) => whole = Some((index, value.to_vec())),
                (Some(_), 0) => {
                    self.ahead = Some((index, value.to_vec()));
                    break;
                }
                _ => return damaged(format!("entry {index} lacks a piece before its piece {piece}")),
            }
        }
        whole.map(Ok)
    }
}

fn key(index: u64, piece: u16) -> [u8; 11] {
    let mut out = [RECORD_PREFIX; 11];
    let (_, rest) = out.split_at_mut(1);
    let (at, part) = rest.split_at_mut(8);
    at.copy_from_slice(&index.to_be_bytes());
    part.copy_from_slice(&piece.to_be_bytes());
    out
}

fn parse_key(name: &[u8]) -> Option<(u64, u16)> {
    let rest = name.strip_prefix(&[RECORD_PREFIX])?;
    let (index, piece) = rest.split_first_chunk::<8>()?;
    let piece: [u8; 2] = piece.try_into().ok()?;
    Some((u64::from_be_bytes(*index), u16::from_be_bytes(piece)))
}

/// Removes `snap.*.generating`. A crash while sled writes its start-up snapshot leaves this file; sled then takes it
/// for a snapshot and never opens again. The file is never needed.
fn remove_unfinished_snapshots(dir: &Path) -> Result<(), StoreError> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(
                file = name,
                "removing an unfinished start-up snapshot of the log engine, left by a crash"
            );
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
    }
    Ok(())
}
