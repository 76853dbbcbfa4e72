//! The interface between consensus and disk: the requirements on a durable log, in plain types. `sled_log` implements
//! it on a disk, `mem_log` in memory, and the simulator with faults. Nothing else of the disk is visible to other
//! rooms.

use super::StoreError;

/// The largest payload of one entry. A command is a few hundred bytes; the bound keeps a record below 64 KiB and one
/// group of writes below the engine's segment. Larger ones must be refused before proposing: this is the last check.
pub const MAX_PAYLOAD_BYTES: usize = 60 * 1024;

/// The largest opaque vote record.
pub const MAX_VOTE_BYTES: usize = 256;

/// The position of an entry: its term and its index in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId {
    pub term: u64,
    pub index: u64,
}

/// One entry of the log. The payload is opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    pub term: u64,
    pub index: u64,
    pub payload: Vec<u8>,
}

impl LogRecord {
    pub fn id(&self) -> LogId {
        LogId { term: self.term, index: self.index }
    }
}

/// One change of the log. Changes are applied in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Adds entries right after the last one. A gap, an overlap or a term that runs back is refused.
    Append(Vec<LogRecord>),
    /// Removes the entries above this index; all entries for `None`.
    TruncateAfter(Option<u64>),
    /// Removes the entries up to and including this one. It may be beyond the last entry: then the log is empty and
    /// continues after it (a snapshot was installed).
    Purge(LogId),
    /// Replaces the vote.
    SaveVote(Vec<u8>),
    /// Replaces the committed log id.
    SaveCommitted(Option<LogId>),
}

/// The durability that a commit requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Returns after the data are on stable storage.
    Durable,
    /// May return earlier. A crash may undo it, but only together with everything after it.
    Buffered,
}

/// The small facts that a log stores beside its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogState {
    /// The last entry removed by a purge.
    pub purged: Option<LogId>,
    /// The first entry's index, or the one that the next entry must have in an empty log. `None` in a log that never
    /// had an entry: it may begin anywhere.
    pub first_index: Option<u64>,
    /// The last entry present (not the purged one).
    pub last: Option<LogId>,
    pub vote: Option<Vec<u8>>,
    pub committed: Option<LogId>,
}

impl LogState {
    /// The last entry that the log has or had: Raft's last log id.
    pub fn last_or_purged(&self) -> Option<LogId> {
        self.last.or(self.purged)
    }

    /// The index that the next entry must have; `None` if any index is allowed.
    pub fn next_index(&self) -> Option<u64> {
        self.last.map(|last| last.index.saturating_add(1)).or(self.first_index)
    }

    /// Checks the records of an append, so that every implementation refuses in one way.
    pub fn check_append(&self, records: &[LogRecord]) -> Result<(), StoreError> {
        let mut next = self.next_index();
        let mut term = self.last_or_purged().map_or(0, |id| id.term);
        for record in records {
            if next.is_some_and(|next| next != record.index) {
                let next = next.unwrap_or_default();
                return Err(StoreError::Misuse(format!(
                    "entry {} appended where {next} is due",
                    record.index
                )));
            }
            if record.term < term {
                return Err(StoreError::Misuse(format!(
                    "entry {} goes back to term {}",
                    record.index, record.term
                )));
            }
            if record.payload.len() > MAX_PAYLOAD_BYTES {
                let (index, size) = (record.index, record.payload.len());
                return Err(StoreError::TooLarge { index, size, limit: MAX_PAYLOAD_BYTES });
            }
            term = record.term;
            next = Some(record.index.saturating_add(1));
        }
        Ok(())
    }

    /// The facts after `records` were added.
    pub fn appended(&mut self, records: &[LogRecord]) {
        if let (Some(first), Some(last)) = (records.first(), records.last()) {
            self.first_index.get_or_insert(first.index);
            self.last = Some(last.id());
        }
    }

    /// The facts after everything above `kept` was removed.
    pub fn truncated(&mut self, kept: Option<LogId>) {
        self.last = kept;
        if kept.is_none() && self.purged.is_none() {
            self.first_index = None;
        }
    }

    /// The facts after everything up to `id` was removed. Returns false if it had been removed before.
    pub fn purged_upto(&mut self, id: LogId) -> bool {
        if self.purged.is_some_and(|purged| purged >= id) {
            return false;
        }
        self.purged = Some(id);
        self.last = self.last.filter(|last| last.index > id.index);
        let next = id.index.saturating_add(1);
        self.first_index =
            self.first_index.filter(|first| self.last.is_some() && *first > next).or(Some(next));
        true
    }

    /// Checks that a truncation does not reach into the purged part.
    pub fn check_truncate(&self, after: Option<u64>) -> Result<(), StoreError> {
        match (self.purged, after) {
            (Some(purged), after) if after.is_none_or(|after| after < purged.index) => {
                Err(StoreError::Misuse(format!(
                    "truncation after {after:?} reaches below the purged entry {}",
                    purged.index
                )))
            }
            _ => Ok(()),
        }
    }
}

/// The blocking, single-writer half of a log. Owned by [`super::LogWriter`].
pub trait LogStore: Send + 'static {
    /// Applies the changes in order. With [`Flush::Durable`] everything committed so far, this batch included, is on
    /// stable storage when it returns. After an error of the disk every later call fails.
    fn commit(&mut self, ops: Vec<Op>, flush: Flush) -> Result<(), StoreError>;

    /// The facts as of the last commit.
    fn state(&self) -> LogState;

    /// A handle to read entries from other threads.
    fn reader(&self) -> std::sync::Arc<dyn LogReader>;

    /// Housekeeping while no job waits. May take long.
    fn idle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The reading half of a log, usable beside the writer. It sees everything that was committed, flushed or not.
pub trait LogReader: Send + Sync + 'static {
    /// The entries in `from..to`, in order and without gaps, beginning with the first one present. It stops early once
    /// the payloads exceed `max_bytes`, but returns at least one entry.
    fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<LogRecord>, StoreError>;

    /// The bytes that the entries above `index` take, to within a few hundred entries.
    fn bytes_after(&self, index: u64) -> u64;
}
