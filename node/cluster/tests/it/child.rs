//! The child process of the strace and kill tests: this binary again, running one test. It appends through the real
//! adapter and writes `ACK <index>` to its standard output at the moment at which openraft would be notified of the
//! completion.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use conclave_cluster::log_store::LogStorage;
use conclave_cluster::types::{Config, Payload, RaftLogEntry, RaftLogId};
use conclave_store::{Flush, LogReader, LogState, LogStore, LogWriter, Op, SledLog, StoreError};
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::CommittedLeaderIdOf;

const DIR: &str = "CONCLAVE_TEST_CHILD_DIR";
const COUNT: &str = "CONCLAVE_TEST_CHILD_COUNT";
const LYING: &str = "CONCLAVE_TEST_CHILD_LYING";

/// Arguments that make this binary run only [`entry`].
pub(crate) const ARGS: [&str; 4] = ["--exact", "child::entry", "--nocapture", "--test-threads=1"];

/// The behaviour of a child.
pub(crate) struct Orders<'a> {
    pub dir: &'a Path,
    pub count: u64,
    /// Acknowledge without waiting for the disk: the strace test must catch that.
    pub lying: bool,
}

impl Orders<'_> {
    pub(crate) fn give(&self, command: &mut Command) {
        command.env(DIR, self.dir).env(COUNT, self.count.to_string());
        if self.lying {
            command.env(LYING, "1");
        }
    }
}

/// The payload of entry `index`; the strace test searches for its beginning in the written bytes.
pub(crate) fn payload(index: u64) -> Vec<u8> {
    let mut bytes = format!("RECORD-{index}-").into_bytes();
    bytes.resize(300, b'.');
    bytes
}

#[expect(
    clippy::disallowed_methods,
    reason = "a child process gets its orders from its parent's environment"
)]
fn orders() -> Option<(PathBuf, u64, bool)> {
    let dir = std::env::var_os(DIR)?;
    let count = std::env::var(COUNT).unwrap().parse().unwrap();
    Some((dir.into(), count, std::env::var_os(LYING).is_some()))
}

/// Does nothing in an ordinary test run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entry() {
    let Some((dir, count, lying)) = orders() else { return };
    let root = dir.join("log");
    let log = if root.exists() { SledLog::open(&root) } else { SledLog::create(&root) }.unwrap();
    let writer = if lying { LogWriter::start(Lying(log)) } else { LogWriter::start(log) }.unwrap();
    let next = writer.initial_state().next_index().unwrap_or(0);
    let mut storage = LogStorage::new(writer.clone()).unwrap();
    let mut acks = Vec::new();
    for index in next..next + count {
        let (tell, told) = Config::oneshot();
        storage.append([appended(index)], IOFlushed::signal(tell)).await.unwrap();
        acks.push((index, told));
        // Batches of one to four, so that group commit is covered too.
        if index % 4 == 0 {
            for (index, told) in acks.drain(..) {
                told.await.unwrap().unwrap();
                ack(index);
            }
        }
        if index % 100 == 99 {
            storage.purge(log_id(index - 60)).await.unwrap();
        }
    }
    for (index, told) in acks {
        told.await.unwrap().unwrap();
        ack(index);
    }
}

fn appended(index: u64) -> RaftLogEntry {
    RaftLogEntry { log_id: log_id(index), payload: EntryPayload::Normal(Payload(payload(index))) }
}

fn log_id(index: u64) -> RaftLogId {
    RaftLogId::new(CommittedLeaderIdOf::<Config>::new(1), index)
}

/// Writes an acknowledgement by one `write` system call, bypassing the test harness's capture.
fn ack(index: u64) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("ACK {index}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// A store that reports "durable" without waiting for the disk.
struct Lying(SledLog);

impl LogStore for Lying {
    fn commit(&mut self, ops: Vec<Op>, _: Flush) -> Result<(), StoreError> {
        self.0.commit(ops, Flush::Buffered)
    }

    fn state(&self) -> LogState {
        self.0.state()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.0.reader()
    }
}
