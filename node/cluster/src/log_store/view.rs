//! The log as of the last accepted call, before the disk has it. Pure bookkeeping behind one short lock.

use std::collections::VecDeque;
use std::io;

use super::{RECENT_BYTES, codec};
use crate::types::{RaftLogEntry, Vote};
use conclave_store::{LogId, LogRecord, LogState, StoreError};

pub(super) struct View {
    state: LogState,
    /// The vote on disk. Unlike the log, it is visible only once it is durable.
    pub(super) vote: Option<Vote>,
    /// Counts truncations and purges, so that a read notices one between its steps.
    changes: u64,
    /// The last entries of the log, without a gap. Every entry that is not on disk is here.
    recent: VecDeque<Recent>,
    recent_bytes: usize,
    /// The last accepted append, and the last completed one.
    accepted: u64,
    flushed: u64,
}

struct Recent {
    entry: RaftLogEntry,
    bytes: usize,
    batch: u64,
}

impl View {
    pub(super) fn new(state: &LogState) -> io::Result<Self> {
        let vote = state.vote.as_deref().map(codec::decode_vote).transpose()?;
        let (state, recent) = (state.clone(), VecDeque::new());
        Ok(Self { state, vote, changes: 0, recent, recent_bytes: 0, accepted: 0, flushed: 0 })
    }

    pub(super) fn state(&self) -> &LogState {
        &self.state
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Narrows `from..to` to the entries that the log has. Also returns the index at which the recent entries begin
    /// (`cut`, at most `to`).
    pub(super) fn clamp(&self, from: u64, to: u64) -> (u64, u64, u64, u64) {
        let end = self.state.last.map_or(0, |last| last.index.saturating_add(1));
        let from = from.max(self.state.first_index.unwrap_or(0));
        let to = to.min(end);
        let cut = self.recent.front().map_or(end, |front| front.entry.log_id.index);
        (self.changes, from, to, cut.min(to))
    }

    /// Appends the recent entries of `from..to` to `out` within the limit.
    pub(super) fn recent(
        &self,
        from: u64,
        to: u64,
        max_bytes: usize,
        bytes: &mut usize,
        out: &mut Vec<RaftLogEntry>,
    ) {
        let front = self.recent.front().map_or(from, |front| front.entry.log_id.index);
        let skip = usize::try_from(from.saturating_sub(front)).unwrap_or(usize::MAX);
        for recent in self.recent.iter().skip(skip).take_while(|recent| recent.entry.log_id.index < to) {
            *bytes = bytes.saturating_add(recent.bytes);
            if !out.is_empty() && *bytes > max_bytes {
                break;
            }
            out.push(recent.entry.clone());
        }
    }

    /// Adds entries. The returned number is passed to [`Self::flushed`] once the disk has them.
    pub(super) fn append(
        &mut self,
        entries: Vec<RaftLogEntry>,
        records: &[LogRecord],
    ) -> Result<u64, StoreError> {
        self.state.check_append(records)?;
        self.state.appended(records);
        self.accepted += 1;
        let batch = self.accepted;
        for (entry, record) in entries.into_iter().zip(records) {
            let bytes = record.payload.len();
            self.recent_bytes += bytes;
            self.recent.push_back(Recent { entry, bytes, batch });
        }
        self.evict();
        Ok(batch)
    }

    pub(super) fn flushed(&mut self, batch: u64) {
        self.flushed = self.flushed.max(batch);
        self.evict();
    }

    pub(super) fn truncate(&mut self, after: Option<LogId>) -> Result<(), StoreError> {
        self.state.check_truncate(after.map(|id| id.index))?;
        let Some(last) = self.state.last.filter(|last| after.is_none_or(|after| after.index < last.index))
        else {
            return Ok(());
        };
        self.changes += 1;
        let first = self.state.first_index.unwrap_or(last.index);
        let kept = after.filter(|after| after.index >= first);
        self.state.truncated(kept);
        while self
            .recent
            .back()
            .is_some_and(|back| kept.is_none_or(|kept| back.entry.log_id.index > kept.index))
        {
            self.forget(VecDeque::pop_back);
        }
        Ok(())
    }

    pub(super) fn purge(&mut self, id: LogId) {
        if !self.state.purged_upto(id) {
            return;
        }
        self.changes += 1;
        while self.recent.front().is_some_and(|front| front.entry.log_id.index <= id.index) {
            self.forget(VecDeque::pop_front);
        }
    }

    pub(super) fn save_committed(&mut self, id: Option<LogId>) {
        self.state.committed = id;
    }

    fn evict(&mut self) {
        while self.recent_bytes > RECENT_BYTES
            && self.recent.front().is_some_and(|front| front.batch <= self.flushed)
        {
            self.forget(VecDeque::pop_front);
        }
    }

    fn forget(&mut self, pop: impl FnOnce(&mut VecDeque<Recent>) -> Option<Recent>) {
        if let Some(gone) = pop(&mut self.recent) {
            self.recent_bytes = self.recent_bytes.saturating_sub(gone.bytes);
        }
    }
}
