//! The log on disk, over sled 0.34.7. This module adds the guarantees that the engine lacks:
//!
//! - its `flush()` writes but never syncs on Linux, so a durable commit is: write, `flush()`, then `fdatasync` on a
//!   second handle of its `db` file (`engine`);
//! - after a crash it silently goes back to what it can read, so a *mark* outside of it counts the batches reported
//!   durable, and the entries form a chain of checksums; a log that is inconsistent does not open (`mark`,
//!   `verify`);
//! - its files grow, so a log far larger on disk than its entries is copied into a fresh directory (`place`).
//!
//! One batch of the engine carries the entries and the facts beside them, so both change together.

mod engine;
mod mark;
mod place;
mod sizes;
mod verify;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use self::engine::{Engine, Writes};
use self::mark::Mark;
use self::place::Place;
use self::sizes::Sizes;
use super::StoreError;
use super::log::{Flush, LogId, LogReader, LogRecord, LogState, LogStore, MAX_VOTE_BYTES, Op};
use super::record::{self, Facts};

/// A log directory far larger than its entries is rewritten: if it is this many times larger …
pub const REWRITE_FACTOR: u64 = 8;
/// … and at least this large, because the engine's own minimum is a few segments of 512 KiB.
pub const REWRITE_MIN_BYTES: u64 = 64 * 1024 * 1024;

/// The durable log of one node. One per directory, one writer.
pub struct SledLog {
    place: Place,
    mark: Mark,
    facts: Facts,
    shared: Arc<Shared>,
    /// The first error. It stays for ever.
    stopped: Option<String>,
    /// True if a purge happened since the size on disk was last checked.
    purged: bool,
}

/// The part that readers share. A rewrite exchanges the engine.
struct Shared {
    engine: RwLock<Engine>,
    sizes: Mutex<Sizes>,
}

impl SledLog {
    /// Creates an empty log in `root`, which must not hold one. Removes the remains of an interrupted creation.
    pub fn create(root: &Path) -> Result<Self, StoreError> {
        let (place, engine) = Place::create(root)?;
        let mark = Mark::open(&place.mark())?;
        Ok(Self::assemble(place, mark, engine, Facts::default(), Sizes::default()))
    }

    /// Opens an existing log and verifies all of it. [`StoreError::Damaged`] means that the node must not vote.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let (place, engine) = Place::open(root)?;
        let mark = Mark::open(&place.mark())?;
        let (facts, sizes) = verify::verify(&engine, mark.sequence())?;
        let mut log = Self::assemble(place, mark, engine, facts, sizes);
        log.rewrite_if_bloated()?;
        Ok(log)
    }

    fn assemble(place: Place, mark: Mark, engine: Engine, facts: Facts, sizes: Sizes) -> Self {
        let shared = Arc::new(Shared { engine: RwLock::new(engine), sizes: Mutex::new(sizes) });
        Self { place, mark, facts, shared, stopped: None, purged: false }
    }

    /// Copies the log into a fresh directory and continues there. A crash at any point leaves one valid copy.
    pub fn rewrite(&mut self) -> Result<(), StoreError> {
        let copy = self.shared.with_engine(|old| self.place.copy(old))?;
        let old = {
            let mut engine = self.shared.engine.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *engine, copy)
        };
        drop(old);
        self.place.advance()
    }

    fn rewrite_if_bloated(&mut self) -> Result<(), StoreError> {
        let live = self.shared.sizes().total();
        let on_disk = self.shared.with_engine(Engine::size_on_disk)?;
        if on_disk <= REWRITE_MIN_BYTES || on_disk / REWRITE_FACTOR <= live {
            return Ok(());
        }
        tracing::info!(on_disk, live, "the log is far larger on disk than its entries, rewriting it");
        self.rewrite()
    }

    fn try_commit(&mut self, ops: Vec<Op>, flush: Flush) -> Result<(), StoreError> {
        let mut writes = Writes::default();
        for op in ops {
            match op {
                Op::Append(records) => self.append(&mut writes, &records)?,
                Op::SaveVote(vote) if vote.len() > MAX_VOTE_BYTES => {
                    return Err(StoreError::Misuse(format!("a vote of {} bytes", vote.len())));
                }
                Op::SaveVote(vote) => self.facts.state.vote = Some(vote),
                Op::SaveCommitted(id) => self.facts.state.committed = id,
                // Both read the entries written so far, so those go to the engine first.
                Op::TruncateAfter(after) => {
                    self.write(std::mem::take(&mut writes))?;
                    self.truncate(&mut writes, after)?;
                }
                Op::Purge(id) => {
                    self.write(std::mem::take(&mut writes))?;
                    self.purge(&mut writes, id)?;
                }
            }
        }
        self.write(writes)?;
        if flush == Flush::Durable {
            self.shared.with_engine(Engine::sync)?;
            self.mark.set(self.facts.sequence)?;
        }
        Ok(())
    }

    /// Writes one atomic batch: the entries and the facts that belong to them.
    fn write(&mut self, mut writes: Writes) -> Result<(), StoreError> {
        self.facts.sequence += 1;
        writes.facts(&self.facts);
        self.shared.with_engine(|engine| engine.write(writes))
    }

    fn append(&mut self, writes: &mut Writes, records: &[LogRecord]) -> Result<(), StoreError> {
        self.facts.state.check_append(records)?;
        let mut sizes = self.shared.sizes();
        for record in records {
            let (bytes, crc) = record::encode(record, self.facts.last_crc);
            sizes.add(record.index, bytes.len());
            writes.record(record.index, &bytes);
            self.facts.last_crc = crc;
        }
        self.facts.state.appended(records);
        Ok(())
    }

    fn truncate(&mut self, writes: &mut Writes, after: Option<u64>) -> Result<(), StoreError> {
        let state = &mut self.facts.state;
        state.check_truncate(after)?;
        let Some(last) = state.last.filter(|last| after.is_none_or(|after| after < last.index)) else {
            return Ok(());
        };
        let kept = match after {
            Some(index) => self.shared.with_engine(|engine| engine.record(index))?,
            None => None,
        };
        self.shared.remove(writes, after.map_or(0, |after| after + 1), last.index)?;
        state.truncated(kept.as_ref().map(|kept| kept.record.id()));
        self.facts.last_crc = kept.map_or(self.facts.anchor_crc, |kept| kept.crc);
        Ok(())
    }

    fn purge(&mut self, writes: &mut Writes, id: LogId) -> Result<(), StoreError> {
        if !self.facts.state.purged_upto(id) {
            return Ok(());
        }
        self.purged = true;
        let removed = self.shared.with_engine(|engine| engine.record(id.index))?;
        self.shared.remove(writes, 0, id.index)?;
        let empty = self.facts.state.last.is_none();
        match removed {
            Some(removed) => self.facts.anchor_crc = removed.crc,
            // The log continues after an installed snapshot: there is no entry to link to, so a new chain begins.
            None if empty => self.facts.anchor_crc = 0,
            None => {}
        }
        if empty {
            self.facts.last_crc = self.facts.anchor_crc;
        }
        Ok(())
    }
}

impl LogStore for SledLog {
    fn commit(&mut self, ops: Vec<Op>, flush: Flush) -> Result<(), StoreError> {
        if let Some(why) = &self.stopped {
            return Err(StoreError::Stopped(why.clone()));
        }
        let result = self.try_commit(ops, flush);
        if let Err(error) = &result {
            self.stopped = Some(error.to_string());
        }
        result
    }

    fn state(&self) -> LogState {
        self.facts.state.clone()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::clone(&self.shared) as Arc<dyn LogReader>
    }

    fn idle(&mut self) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.purged) || self.stopped.is_some() {
            return Ok(());
        }
        let result = self.rewrite_if_bloated();
        if let Err(error) = &result {
            self.stopped = Some(error.to_string());
        }
        result
    }
}

impl Shared {
    fn with_engine<T>(&self, read: impl FnOnce(&Engine) -> Result<T, StoreError>) -> Result<T, StoreError> {
        read(&self.engine.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn sizes(&self) -> std::sync::MutexGuard<'_, Sizes> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the removal of the entries `from..=to` to `writes`.
    fn remove(&self, writes: &mut Writes, from: u64, to: u64) -> Result<(), StoreError> {
        let removed = self.with_engine(|engine| engine.remove(writes, from, to))?;
        let mut sizes = self.sizes();
        for (index, bytes) in removed {
            sizes.remove(index, bytes);
        }
        Ok(())
    }
}

impl LogReader for Shared {
    fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<LogRecord>, StoreError> {
        self.with_engine(|engine| engine.read(from, to, max_bytes))
    }

    fn bytes_after(&self, index: u64) -> u64 {
        self.sizes().above(index)
    }
}
