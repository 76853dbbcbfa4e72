//! openraft's view of the log beyond the tests of its suite: reads before the flush, reads across memory and disk.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use conclave_cluster::log_store::{LogStorage, READ_BYTES, RECENT_BYTES};
use conclave_cluster::types::{Config, Payload, RaftLogEntry, RaftLogId, Vote};
use conclave_store::{Flush, LogReader, LogState, LogStore, LogWriter, MemLog, Op, SledLog, StoreError};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::CommittedLeaderIdOf;
use openraft::{EntryPayload, RaftLogReader};

fn log_id(term: u64, index: u64) -> RaftLogId {
    RaftLogId::new(CommittedLeaderIdOf::<Config>::new(term), index)
}

fn entry(term: u64, index: u64, size: usize) -> RaftLogEntry {
    let bytes = vec![u8::try_from(term).unwrap(); size];
    RaftLogEntry { log_id: log_id(term, index), payload: EntryPayload::Normal(Payload(bytes)) }
}

fn terms(entries: &[RaftLogEntry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.log_id.leader_id.term).collect()
}

/// Commits only on a signal.
struct Held(MemLog, Receiver<()>);

/// Moved behind the log, so that a failing test releases the writer's thread before it waits for it.
fn dropped_first<T>(release: T) -> T {
    release
}

impl LogStore for Held {
    fn commit(&mut self, ops: Vec<Op>, flush: Flush) -> Result<(), StoreError> {
        self.1.recv().map_err(|_| StoreError::Closed)?;
        self.0.commit(ops, flush)
    }

    fn state(&self) -> LogState {
        self.0.state()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.0.reader()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_readable_before_they_are_flushed_and_complete_after() {
    let (release, held) = channel();
    let mut log = LogStorage::new(LogWriter::start(Held(MemLog::new(), held)).unwrap()).unwrap();
    let release = dropped_first(release);
    let (tell, told) = Config::oneshot();
    log.append([entry(1, 0, 10), entry(1, 1, 10)], IOFlushed::signal(tell)).await.unwrap();
    assert_eq!(log.get_log_reader().await.try_get_log_entries(0..9).await.unwrap().len(), 2);
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 1)));
    log.truncate_after(Some(log_id(1, 0))).await.unwrap();
    log.append([entry(2, 1, 10)], IOFlushed::noop()).await.unwrap();
    assert_eq!(terms(&log.try_get_log_entries(..).await.unwrap()), [1, 2]);
    let mut told = std::pin::pin!(told);
    assert!(futures_util::FutureExt::now_or_never(&mut told).is_none(), "completed before the store had it");
    (0..3).for_each(|_| release.send(()).unwrap_or_default());
    told.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_recent_bytes_stay_readable_until_the_disk_has_them() {
    let (release, held) = channel();
    let mut log = LogStorage::new(LogWriter::start(Held(MemLog::new(), held)).unwrap()).unwrap();
    let release = dropped_first(release);
    let count = (RECENT_BYTES / 50_000 + 30) as u64;
    for index in 0..count {
        log.append([entry(1, index, 50_000)], IOFlushed::noop()).await.unwrap();
    }
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len() as u64, count);
    (0..count).for_each(|_| release.send(()).unwrap_or_default());
    log.save_vote(&Vote::new(1, 1)).await.unwrap_or_default();
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len() as u64, count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_is_shown_only_once_it_is_durable_and_a_failed_store_refuses_it() {
    let (release, held) = channel();
    let mut log = LogStorage::new(LogWriter::start(Held(MemLog::new(), held)).unwrap()).unwrap();
    let release = dropped_first(release);
    let mut reader = log.clone();
    let vote = Vote::new(3, 1);
    let saving = tokio::spawn(async move {
        let saved = log.save_vote(&vote).await;
        (log, saved)
    });
    assert_eq!(reader.read_vote().await.unwrap(), None);
    release.send(()).unwrap();
    let (mut log, saved) = saving.await.unwrap();
    saved.unwrap();
    assert_eq!(reader.read_vote().await.unwrap(), Some(vote));
    drop(release);
    log.save_vote(&Vote::new(4, 1)).await.unwrap_err();
    assert_eq!(reader.read_vote().await.unwrap(), Some(vote));
    let (tell, told) = Config::oneshot();
    log.append([entry(1, 0, 1)], IOFlushed::signal(tell)).await.unwrap();
    told.await.unwrap().unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_from_disk_into_memory_without_a_seam_and_survive_a_restart() {
    const SIZE: usize = 50_000;
    let count = (RECENT_BYTES / SIZE + 60) as u64;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("log");
    let mut log = LogStorage::new(LogWriter::start(SledLog::create(&root).unwrap()).unwrap()).unwrap();
    for index in 0..count {
        let (tell, told) = Config::oneshot();
        log.append([entry(1 + index / 10, index, SIZE)], IOFlushed::signal(tell)).await.unwrap();
        told.await.unwrap().unwrap();
    }
    let expected: Vec<u64> = (0..count).map(|index| 1 + index / 10).collect();
    assert_eq!(terms(&log.try_get_log_entries(..).await.unwrap()), expected);
    let limited = log.limited_get_log_entries(3, count).await.unwrap();
    assert_eq!(limited[0].log_id.index, 3);
    assert!(limited.len() <= READ_BYTES / SIZE && limited.len() > 1, "{} entries", limited.len());
    log.save_committed(Some(log_id(1, 5))).await.unwrap();
    log.purge(log_id(1, 4)).await.unwrap();
    log.truncate_after(Some(log_id(expected[20], 20))).await.unwrap();
    let state = log.get_log_state().await.unwrap();
    drop(log);

    let mut log = LogStorage::new(LogWriter::start(SledLog::open(&root).unwrap()).unwrap()).unwrap();
    assert_eq!(log.get_log_state().await.unwrap(), state);
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 5)));
    assert_eq!(terms(&log.try_get_log_entries(..).await.unwrap()), expected[5..=20]);
}
