//! The writer: order, groups, and the stop at the first error.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use conclave_store::{Flush, LogReader, LogState, LogStore, LogWriter, MemLog, Op, StoreError};

use super::record;

/// A store that waits for a signal before each commit, records its groups and can fail or panic.
struct Scripted {
    log: MemLog,
    nods: Receiver<Nod>,
    groups: Arc<Mutex<Vec<(usize, Flush)>>>,
}

enum Nod {
    Go,
    Fail,
    Panic,
}

impl LogStore for Scripted {
    fn commit(&mut self, ops: Vec<Op>, flush: Flush) -> Result<(), StoreError> {
        self.groups.lock().unwrap().push((ops.len(), flush));
        match self.nods.recv().unwrap() {
            Nod::Go => self.log.commit(ops, flush),
            Nod::Fail => Err(StoreError::Misuse("scripted".to_owned())),
            Nod::Panic => panic!("scripted"),
        }
    }

    fn state(&self) -> LogState {
        self.log.state()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.log.reader()
    }
}

type Completions = Receiver<(u64, Result<(), StoreError>)>;

struct Bench {
    writer: LogWriter,
    nod: Sender<Nod>,
    groups: Arc<Mutex<Vec<(usize, Flush)>>>,
    tell: Sender<(u64, Result<(), StoreError>)>,
    told: Completions,
}

impl Bench {
    fn new() -> Self {
        let (nod, nods) = channel();
        let groups = Arc::new(Mutex::new(Vec::new()));
        let store = Scripted { log: MemLog::new(), nods, groups: Arc::clone(&groups) };
        let (tell, told) = channel();
        Self { writer: LogWriter::start(store).unwrap(), nod, groups, tell, told }
    }

    async fn append(&self, index: u64, flush: Flush) {
        let tell = self.tell.clone();
        let done = Box::new(move |result| tell.send((index, result)).unwrap());
        self.writer.submit(vec![Op::Append(vec![record(1, index, b"x")])], flush, done).await;
    }
}

#[tokio::test]
async fn jobs_queued_during_a_commit_become_one_group_and_complete_in_order() {
    let bench = Bench::new();
    bench.append(0, Flush::Durable).await;
    while bench.groups.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
    for index in 1..6 {
        bench.append(index, if index == 3 { Flush::Durable } else { Flush::Buffered }).await;
    }
    assert!(bench.told.try_recv().is_err(), "nothing completes before the store has returned");
    bench.nod.send(Nod::Go).unwrap();
    bench.nod.send(Nod::Go).unwrap();
    for index in 0..6 {
        let (got, result) = bench.told.recv().unwrap();
        assert_eq!(got, index);
        result.unwrap();
    }
    assert_eq!(*bench.groups.lock().unwrap(), [(1, Flush::Durable), (5, Flush::Durable)]);
}

async fn stops(last: Nod) -> String {
    let bench = Bench::new();
    let mut failure = bench.writer.failure();
    bench.nod.send(Nod::Go).unwrap();
    bench.append(0, Flush::Durable).await;
    bench.told.recv().unwrap().1.unwrap();
    assert!(failure.borrow().is_none());
    bench.nod.send(last).unwrap();
    bench.append(1, Flush::Durable).await;
    bench.told.recv().unwrap().1.unwrap_err();
    failure.changed().await.unwrap();
    let words = failure.borrow().as_ref().unwrap().to_string();
    bench.append(1, Flush::Buffered).await;
    bench.told.recv().unwrap().1.unwrap_err();
    assert_eq!(bench.groups.lock().unwrap().len(), 2, "the store is not touched again");
    words
}

#[tokio::test]
async fn the_first_error_is_reported_and_the_store_never_touched_again() {
    assert!(stops(Nod::Fail).await.contains("scripted"));
}

#[tokio::test]
async fn a_panic_in_the_engine_is_an_error_like_another() {
    assert!(stops(Nod::Panic).await.contains("panicked"));
}

#[tokio::test]
async fn what_is_queued_is_written_before_the_last_handle_is_gone() {
    let log = MemLog::new();
    let writer = LogWriter::start(log.clone()).unwrap();
    for index in 0..100 {
        let op = Op::Append(vec![record(1, index, b"x")]);
        writer.submit(vec![op], Flush::Durable, Box::new(|_| {})).await;
    }
    drop(writer);
    assert_eq!(super::all(&log).len(), 100);
}
