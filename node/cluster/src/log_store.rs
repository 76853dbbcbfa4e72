//! openraft's log storage over [`conclave_store::LogWriter`].
//!
//! It owns the node's *view* of the log: the facts as of the last accepted call, and the recent entries. Appends,
//! truncations and purges change the view at once and travel to the disk in order; completions come back in order. So a
//! reader sees what was appended before it is flushed, as openraft demands, and most reads never reach the disk.
//!
//! Two things wait for the disk: an append's completion, and a vote. A truncation needs no wait of its own, since every
//! later completion is behind it in one queue. A crash may undo a purge: the log is then longer, and nothing else
//! changes.

mod codec;
mod view;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::{Semaphore, oneshot, watch};

pub use self::codec::{command_entry, decode_stored_membership, encode_stored_membership};
pub(super) use self::codec::{decode_entry, encode_vote, raft_id};
use self::view::View;
use crate::{
    rt,
    types::{Config, RaftLogEntry, RaftLogId, Vote},
};
use conclave_store::writer::{CommitCount, Done};
use conclave_store::{Flush, LogReader, LogRecord, LogWriter, Op, StoreError};

/// Entries kept in memory for followers and for apply.
pub const RECENT_BYTES: usize = 8 * 1024 * 1024;

/// The limit of entries that are appended and not yet on disk; an append waits above it. Together with [`RECENT_BYTES`]
/// it bounds the memory of a log, since entries that are not on disk must be readable from memory.
pub const PENDING_BYTES: usize = 32 * 1024 * 1024;

/// Payload bytes of one read for replication.
pub const READ_BYTES: usize = 1024 * 1024;

/// A read starts again when a truncation or a purge overtakes it. Both are rare; this many in a row mean a defect.
const READ_ATTEMPTS: usize = 16;

type Guard = dyn Any + Send + Sync;

/// The log as openraft sees it. Clones are readers of the same log.
#[derive(Clone)]
pub struct LogStorage {
    writer: LogWriter,
    pending: Arc<Semaphore>,
    // Last: the guard in it must outlive every other handle of the log.
    source: Source,
}

/// The source of entries: the disk, and the entries on their way to it.
#[derive(Clone)]
struct Source {
    reader: Arc<dyn LogReader>,
    view: Arc<Mutex<View>>,
    /// True if reads must leave the caller's thread because the disk may make them wait.
    may_block: bool,
    guard: Option<Arc<Guard>>,
}

/// A handle for the size and the entries of a log that is kept open elsewhere. It keeps the log open only during a
/// read.
#[derive(Clone)]
pub struct LogGauge {
    reader: Weak<dyn LogReader>,
    view: Weak<Mutex<View>>,
    may_block: bool,
    guard: Option<Weak<Guard>>,
}

impl LogGauge {
    /// The bytes of the entries above `index`, for the snapshot rule ([`conclave_store::retention`]). 0 for a closed
    /// log.
    pub fn bytes_after(&self, index: u64) -> u64 {
        self.reader.upgrade().map_or(0, |reader| reader.bytes_after(index))
    }

    /// The index of the first entry present, or of the next one if there is none. `None` for a closed or untouched log.
    pub fn first_index(&self) -> Option<u64> {
        self.open().and_then(|source| source.view().state().first_index)
    }

    /// The entries present in `from..to` as they are stored on disk: about `max_bytes` of payload at most, but at least
    /// one.
    ///
    /// # Errors
    /// An error if the disk fails, or if the log is closed.
    pub async fn records(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<LogRecord>> {
        let source = self.open().ok_or_else(|| io::Error::other("the log is closed"))?;
        let entries = source.entries(from, to, max_bytes).await?;
        Ok(entries.iter().map(codec::encode_entry).collect())
    }

    fn open(&self) -> Option<Source> {
        let guard = match &self.guard {
            Some(guard) => Some(guard.upgrade()?),
            None => None,
        };
        let (reader, view) = (self.reader.upgrade()?, self.view.upgrade()?);
        Some(Source { reader, view, may_block: self.may_block, guard })
    }
}

impl LogStorage {
    /// Takes over the writer's log in its current state.
    pub fn new(writer: LogWriter) -> io::Result<Self> {
        let view = View::new(writer.initial_state())?;
        let (reader, may_block) = (writer.reader(), writer.may_block());
        let source = Source { reader, view: Arc::new(Mutex::new(view)), may_block, guard: None };
        Ok(Self { writer, pending: Arc::new(Semaphore::new(PENDING_BYTES)), source })
    }

    /// Keeps `guard`, the lock of the log's directory, until the log is closed.
    #[must_use]
    pub fn guarded_by(mut self, guard: impl Any + Send + Sync) -> Self {
        self.source.guard = Some(Arc::new(guard));
        self
    }

    /// Returns a handle that measures and reads the log without keeping it open.
    pub fn gauge(&self) -> LogGauge {
        let Source { reader, view, may_block, guard } = &self.source;
        LogGauge {
            reader: Arc::downgrade(reader),
            view: Arc::downgrade(view),
            may_block: *may_block,
            guard: guard.as_ref().map(Arc::downgrade),
        }
    }

    /// See [`LogWriter::commits`].
    pub fn commits(&self) -> Arc<CommitCount> {
        self.writer.commits()
    }

    /// See [`LogWriter::failure`].
    pub fn failure(&self) -> watch::Receiver<Option<StoreError>> {
        self.writer.failure()
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.source.view()
    }
}

impl Source {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries present in `from..to`: about `max_bytes` at most, but at least one.
    async fn entries(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<RaftLogEntry>> {
        for _ in 0..READ_ATTEMPTS {
            let (changes, from, to, cut) = self.view().clamp(from, to);
            if from >= to {
                return Ok(Vec::new());
            }
            let stored = self.stored(from, cut, max_bytes).await?;
            let view = self.view();
            if view.changes() != changes {
                continue;
            }
            return join(&view, &stored, (from, to, cut), max_bytes);
        }
        Err(io::Error::other("the log kept changing while it was read"))
    }

    /// Reads the entries below the recent ones, on a thread that may block.
    async fn stored(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<LogRecord>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let reader = Arc::clone(&self.reader);
        let read = move || reader.read(from, to, max_bytes);
        let records =
            if self.may_block { rt::blocking(read).await.map_err(io::Error::other)? } else { read() };
        records.map_err(io::Error::from)
    }
}

/// Joins entries from the disk with the recent entries, and checks that none is missing in between.
fn join(
    view: &View,
    stored: &[LogRecord],
    (from, to, cut): (u64, u64, u64),
    max_bytes: usize,
) -> io::Result<Vec<RaftLogEntry>> {
    let mut bytes: usize = stored.iter().map(|record| record.payload.len()).sum();
    let mut entries = stored.iter().map(codec::decode_entry).collect::<io::Result<Vec<_>>>()?;
    let next = entries.last().map_or(from, |last| last.log_id.index.saturating_add(1));
    let starts = entries.first().is_none_or(|first| first.log_id.index == from);
    let short = next < cut.min(to);
    if !starts || (short && (entries.is_empty() || max_bytes == usize::MAX)) {
        return Err(io::Error::other(format!(
            "the log on disk lacks entry {}",
            if starts { next } else { from }
        )));
    }
    if !short {
        view.recent(next, to, max_bytes, &mut bytes, &mut entries);
    }
    Ok(entries)
}

impl RaftLogReader<Config> for LogStorage {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftLogEntry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(at) => at.saturating_add(1),
            Bound::Excluded(at) => *at,
            Bound::Unbounded => u64::MAX,
        };
        self.source.entries(from, to, usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftLogEntry>, io::Error> {
        self.source.entries(start, end, READ_BYTES).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.view().vote)
    }
}

impl RaftLogStorage<Config> for LogStorage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Config>, io::Error> {
        let view = self.view();
        let state = view.state();
        Ok(LogState {
            last_purged_log_id: state.purged.map(codec::raft_id),
            last_log_id: state.last_or_purged().map(codec::raft_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (tell, told) = oneshot::channel();
        let done: Done = Box::new(move |result| {
            let _ = tell.send(result);
        });
        self.writer.submit(vec![Op::SaveVote(codec::encode_vote(vote))], Flush::Durable, done).await;
        told.await.unwrap_or(Err(StoreError::Closed))?;
        self.view().vote = Some(*vote);
        Ok(())
    }

    /// Not synced: it is a hint that lets a restarted node apply the entries it knew to be committed before it hears
    /// from a leader. An older value only loses that head start. It can never name an entry that the log lost, because
    /// it is written behind that entry in one file.
    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        let committed = committed.map(codec::plain);
        self.view().save_committed(committed);
        self.writer.submit(vec![Op::SaveCommitted(committed)], Flush::Buffered, ignore()).await;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        Ok(self.view().state().committed.map(codec::raft_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Config>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftLogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<RaftLogEntry> = entries.into_iter().collect();
        let records: Vec<LogRecord> = entries.iter().map(codec::encode_entry).collect();
        let bytes = records.iter().map(|record| record.payload.len()).sum::<usize>().min(PENDING_BYTES);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.pending).acquire_many_owned(permits).await.map_err(io::Error::other)?;
        let batch = self.view().append(entries, &records)?;
        let view = Arc::clone(&self.source.view);
        let done: Done = Box::new(move |result| {
            if result.is_ok() {
                view.lock().unwrap_or_else(PoisonError::into_inner).flushed(batch);
            }
            drop(permit);
            callback.io_completed(result.map_err(io::Error::from));
        });
        self.writer.submit(vec![Op::Append(records)], Flush::Durable, done).await;
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> Result<(), io::Error> {
        let after = last_log_id.map(codec::plain);
        self.view().truncate(after)?;
        self.writer.submit(vec![Op::TruncateAfter(after.map(|id| id.index))], Flush::Durable, ignore()).await;
        Ok(())
    }

    async fn purge(&mut self, log_id: RaftLogId) -> Result<(), io::Error> {
        let id = codec::plain(log_id);
        self.view().purge(id);
        self.writer.submit(vec![Op::Purge(id)], Flush::Buffered, ignore()).await;
        Ok(())
    }
}

/// A completion for changes that no caller waits for. Their failure stops the node through [`LogWriter::failure`] and
/// fails every later call.
fn ignore() -> Done {
    Box::new(|_| {})
}
