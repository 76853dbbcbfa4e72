//! The log in memory, for tests and for the simulator. It obeys the rules of the disk log and forgets everything when
//! dropped. Clones share one log, so a "restarted" node finds the entries of its predecessor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::log::{Flush, LogId, LogReader, LogRecord, LogState, LogStore, Op};
use super::{StoreError, log};

/// A log that lives in memory.
#[derive(Debug, Clone, Default)]
pub struct MemLog {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Clone, Default)]
struct Inner {
    state: LogState,
    records: BTreeMap<u64, LogRecord>,
}

impl MemLog {
    pub fn new() -> Self {
        Self::default()
    }

    /// A separate log with equal entries.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { inner: Arc::new(Mutex::new(self.lock().clone())) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogStore for MemLog {
    fn commit(&mut self, ops: Vec<Op>, _flush: Flush) -> Result<(), StoreError> {
        let mut inner = self.lock();
        ops.into_iter().try_for_each(|op| inner.apply(op))
    }

    fn state(&self) -> LogState {
        self.lock().state.clone()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(self.clone())
    }
}

impl Inner {
    fn apply(&mut self, op: Op) -> Result<(), StoreError> {
        match op {
            Op::Append(records) => self.append(records)?,
            Op::TruncateAfter(after) => self.truncate(after)?,
            Op::Purge(id) => self.purge(id),
            Op::SaveVote(vote) if vote.len() > log::MAX_VOTE_BYTES => {
                return Err(StoreError::Misuse(format!("a vote of {} bytes", vote.len())));
            }
            Op::SaveVote(vote) => self.state.vote = Some(vote),
            Op::SaveCommitted(id) => self.state.committed = id,
        }
        Ok(())
    }

    fn append(&mut self, records: Vec<LogRecord>) -> Result<(), StoreError> {
        self.state.check_append(&records)?;
        self.state.appended(&records);
        self.records.extend(records.into_iter().map(|record| (record.index, record)));
        Ok(())
    }

    fn truncate(&mut self, after: Option<u64>) -> Result<(), StoreError> {
        self.state.check_truncate(after)?;
        self.records.retain(|index, _| after.is_some_and(|after| *index <= after));
        self.state.truncated(self.records.values().next_back().map(LogRecord::id));
        Ok(())
    }

    fn purge(&mut self, id: LogId) {
        if self.state.purged_upto(id) {
            self.records = self.records.split_off(&id.index.saturating_add(1));
        }
    }
}

impl LogReader for MemLog {
    fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<LogRecord>, StoreError> {
        let inner = self.lock();
        let mut bytes = 0;
        let mut out = Vec::new();
        if from >= to {
            return Ok(out);
        }
        for record in inner.records.range(from..to).map(|(_, record)| record) {
            if !out.is_empty() && bytes + record.payload.len() > max_bytes {
                break;
            }
            bytes += record.payload.len();
            out.push(record.clone());
        }
        Ok(out)
    }

    fn bytes_after(&self, index: u64) -> u64 {
        let inner = self.lock();
        inner.records.range(index.saturating_add(1)..).map(|(_, record)| record.payload.len() as u64).sum()
    }
}
