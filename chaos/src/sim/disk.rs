//! A disk that keeps everything synced, and after a crash some of the unsynced writes: any prefix of them, torn within
//! a write.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conclave_store::{Flush, LogReader, LogState, LogStore, LogWriter, MemLog, Op, StoreError};

use super::SimBug;
use crate::random::Random;

/// The reason for the end of a node whose disk failed.
pub(super) const FAILED: &str = "the disk failed";
/// Longest sync of a slow disk.
const SLOW_MS: u64 = 250;
/// Longest sync of a normal disk.
const USUAL_MS: u64 = 4;

/// The disk of one node. Clones are the same disk.
#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

struct Platter {
    random: Random,
    bug: SimBug,
    /// The content after a crash.
    synced: MemLog,
    /// The content that the process sees, and its unsynced part.
    written: MemLog,
    unsynced: Vec<Op>,
    slow: bool,
    fails: bool,
}

impl Disk {
    pub(super) fn new(seed: u64, bug: SimBug) -> Self {
        let platter = Platter {
            random: Random::new(seed),
            bug,
            synced: MemLog::new(),
            written: MemLog::new(),
            unsynced: Vec::new(),
            slow: false,
            fails: false,
        };
        Self(Arc::new(Mutex::new(platter)))
    }

    /// A writer for the process that starts now. Must be called on its runtime.
    pub(super) fn open(&self) -> LogWriter {
        let pacing = self.clone();
        LogWriter::paced(Handle { disk: self.clone(), log: self.locked().written.clone() }, move || {
            pacing.locked().pace()
        })
    }

    /// Simulates a crash of the process or the machine.
    pub(super) fn crash(&self) {
        let mut platter = self.locked();
        let platter = &mut *platter;
        let unsynced = std::mem::take(&mut platter.unsynced);
        let survive = platter.random.index(unsynced.len() + 1);
        let mut surviving: Vec<Op> = unsynced.into_iter().take(survive).collect();
        if let Some(Op::Append(records)) = surviving.last_mut() {
            let torn = platter.random.index(records.len() + 1);
            records.truncate(torn);
        }
        // Entries that were written in order can be written again.
        let _ = platter.synced.commit(surviving, Flush::Durable);
        platter.written = platter.synced.copy();
        platter.fails = false;
    }

    /// Replaces the disk with an empty one.
    pub(super) fn wipe(&self) {
        let mut platter = self.locked();
        platter.unsynced.clear();
        platter.synced = MemLog::new();
        platter.written = MemLog::new();
    }

    pub(super) fn slow(&self, slow: bool) {
        self.locked().slow = slow;
    }

    /// The next write fails, and every later one of this process.
    pub(super) fn fail(&self) {
        self.locked().fails = true;
    }

    fn locked(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platter {
    fn pace(&mut self) -> Duration {
        let most = if self.slow { SLOW_MS } else { USUAL_MS };
        Duration::from_micros(self.random.below(most * 1_000))
    }
}

/// The handle of a process to its disk. A crashed process sees a log of its own, and no longer changes the disk.
struct Handle {
    disk: Disk,
    log: MemLog,
}

impl LogStore for Handle {
    fn commit(&mut self, ops: Vec<Op>, flush: Flush) -> Result<(), StoreError> {
        let mut platter = self.disk.locked();
        if platter.fails {
            return Err(StoreError::Stopped(FAILED.into()));
        }
        self.log.commit(ops.clone(), flush)?;
        platter.unsynced.extend(ops);
        let forgets = platter.bug.forgets_to_sync(&mut platter.random);
        if flush == Flush::Durable && !forgets {
            let synced = std::mem::take(&mut platter.unsynced);
            platter.synced.commit(synced, flush)?;
        }
        Ok(())
    }

    fn state(&self) -> LogState {
        self.log.state()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.log.reader()
    }
}

#[cfg(test)]
mod tests {
    use conclave_store::LogRecord;

    use super::*;

    fn record(index: u64) -> LogRecord {
        LogRecord { term: 1, index, payload: vec![7; 3] }
    }

    fn handle(disk: &Disk) -> Handle {
        Handle { disk: disk.clone(), log: disk.locked().written.clone() }
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_some_beginning_of_the_rest() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let disk = Disk::new(seed, SimBug::None);
            let mut process = handle(&disk);
            process.commit(vec![Op::Append(vec![record(1), record(2)])], Flush::Durable).unwrap();
            process.commit(vec![Op::Append(vec![record(3), record(4)])], Flush::Buffered).unwrap();
            process.commit(vec![Op::SaveVote(vec![1])], Flush::Buffered).unwrap();
            assert_eq!(process.state().last.map(|id| id.index), Some(4), "the process sees all of it");
            disk.crash();
            let state = handle(&disk).state();
            let last = state.last.map_or(0, |id| id.index);
            assert!(last >= 2 && (state.vote.is_none() || last == 4), "{state:?}");
            lengths.insert((last, state.vote.is_some()));
        }
        assert_eq!(lengths.len(), 4, "{lengths:?}");
    }
}
