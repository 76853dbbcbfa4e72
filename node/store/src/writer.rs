//! The one thread that writes the log. Votes, appends, truncations, purges and the committed id pass through a single
//! ordered queue, because a vote that overtakes an append, or the reverse, can lose committed entries.
//!
//! Group commit: the thread takes the queued jobs, writes them as one group, syncs once if any job of the group
//! requires it, and then completes the jobs in order. At the first error it completes every job with that error,
//! reports it through [`LogWriter::failure`] and never touches the log again. The node must then be stopped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, watch};

use super::StoreError;
use super::log::{Flush, LogReader, LogState, LogStore, Op};

/// Jobs waiting for the thread. Consensus waits above this; a node produces a few dozen between two syncs.
pub const QUEUE_JOBS: usize = 1024;

/// Jobs written and synced together, so that the first of a group does not wait for an unbounded one.
pub const GROUP_JOBS: usize = 256;

/// Called once, on the writer's thread, when the job is done or has failed. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The numbers of commits that the log has begun and done. A commit that stays unfinished for long waits for its disk.
#[derive(Debug, Default)]
pub struct CommitCount {
    begun: AtomicU64,
    done: AtomicU64,
}

impl CommitCount {
    /// The number of the commit in progress, if there is one.
    pub fn waiting(&self) -> Option<u64> {
        let begun = self.begun.load(Ordering::Acquire);
        (begun > self.done.load(Ordering::Acquire)).then_some(begun)
    }

    fn during<T>(&self, commit: impl FnOnce() -> T) -> T {
        self.begun.fetch_add(1, Ordering::AcqRel);
        let result = commit();
        self.done.fetch_add(1, Ordering::AcqRel);
        result
    }
}

struct Job {
    ops: Vec<Op>,
    flush: Flush,
    done: Done,
}

/// A handle of the writer. Clones share one queue; the log closes when the last is dropped.
#[derive(Clone)]
pub struct LogWriter {
    inner: Arc<Inner>,
}

struct Inner {
    initial: LogState,
    reader: Arc<dyn LogReader>,
    failure: watch::Receiver<Option<StoreError>>,
    commits: Arc<CommitCount>,
    backend: Backend,
}

enum Backend {
    /// `None` only while dropping: closing the queue first lets the thread end.
    Thread { queue: Option<mpsc::Sender<Job>>, thread: Option<JoinHandle<()>> },
    /// Commits on the caller's stack, for callers that must avoid the nondeterminism of a thread.
    Inline(Mutex<(Core, watch::Sender<Option<StoreError>>)>),
}

impl LogWriter {
    /// Starts the writer's thread over `store`.
    pub fn start(store: impl LogStore) -> Result<Self, StoreError> {
        let (report, failure) = watch::channel(None);
        let (queue, jobs) = mpsc::channel(QUEUE_JOBS);
        let (initial, reader) = (store.state(), store.reader());
        let core = Core { store: Box::new(store), stopped: None, commits: Arc::default() };
        let commits = Arc::clone(&core.commits);
        let thread = thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || run(core, jobs, &report))
            .map_err(StoreError::io("start thread", std::path::Path::new("raft-log")))?;
        let backend = Backend::Thread { queue: Some(queue), thread: Some(thread) };
        Ok(Self { inner: Arc::new(Inner { initial, reader, failure, commits, backend }) })
    }

    /// A writer without a thread: every submitted job commits before the call returns.
    pub fn inline(store: impl LogStore) -> Self {
        let (report, failure) = watch::channel(None);
        let (initial, reader) = (store.state(), store.reader());
        let core = Core { store: Box::new(store), stopped: None, commits: Arc::default() };
        let commits = Arc::clone(&core.commits);
        let backend = Backend::Inline(Mutex::new((core, report)));
        Self { inner: Arc::new(Inner { initial, reader, failure, commits, backend }) }
    }

    /// A writer that is a task of the caller's runtime and takes its time, for the simulator. Its writes may be on the
    /// disk at once; after the pause that `pace` returns, they must be.
    #[cfg(any(test, feature = "testing"))]
    pub fn paced(
        store: impl LogStore,
        mut pace: impl FnMut() -> std::time::Duration + Send + 'static,
    ) -> Self {
        let (report, failure) = watch::channel(None);
        let (queue, mut jobs) = mpsc::channel(QUEUE_JOBS);
        let (initial, reader) = (store.state(), store.reader());
        let mut core = Core { store: Box::new(store), stopped: None, commits: Arc::default() };
        let commits = Arc::clone(&core.commits);
        tokio::spawn(async move {
            while let Some(first) = jobs.recv().await {
                let mut group = Group::default();
                group.add(first);
                while group.done.len() < GROUP_JOBS
                    && let Ok(job) = jobs.try_recv()
                {
                    group.add(job);
                }
                let Group { ops, flush, done } = group;
                let mut result = core.commit(ops, Flush::Buffered, &report);
                if flush == Flush::Durable && result.is_ok() {
                    tokio::time::sleep(pace()).await;
                    result = core.commit(Vec::new(), flush, &report);
                }
                complete(done, &result);
            }
        });
        let backend = Backend::Thread { queue: Some(queue), thread: None };
        Self { inner: Arc::new(Inner { initial, reader, failure, commits, backend }) }
    }

    /// Queues `ops`; waits while the queue is full. `done` is called in the order of submission; with
    /// [`Flush::Durable`], only after the disk has everything up to and including `ops`.
    pub async fn submit(&self, ops: Vec<Op>, flush: Flush, done: Done) {
        let job = Job { ops, flush, done };
        match &self.inner.backend {
            Backend::Thread { queue: Some(queue), .. } => {
                if let Err(mpsc::error::SendError(job)) = queue.send(job).await {
                    (job.done)(Err(self.stopped()));
                }
            }
            Backend::Thread { queue: None, .. } => (job.done)(Err(StoreError::Closed)),
            Backend::Inline(core) => {
                let mut core = core.lock().unwrap_or_else(PoisonError::into_inner);
                let (core, report) = &mut *core;
                core.group(vec![job], report);
            }
        }
    }

    /// The log's facts when the writer started.
    pub fn initial_state(&self) -> &LogState {
        &self.inner.initial
    }

    pub fn reader(&self) -> Arc<dyn LogReader> {
        Arc::clone(&self.inner.reader)
    }

    /// Becomes `Some` at the first error and stays so. The node must stop then: it can no longer keep its promises.
    pub fn failure(&self) -> watch::Receiver<Option<StoreError>> {
        self.inner.failure.clone()
    }

    /// The counter that shows if the disk answers.
    pub fn commits(&self) -> Arc<CommitCount> {
        Arc::clone(&self.inner.commits)
    }

    /// True if reads must leave the caller's thread because the disk may make them wait.
    pub fn may_block(&self) -> bool {
        matches!(self.inner.backend, Backend::Thread { thread: Some(_), .. })
    }

    fn stopped(&self) -> StoreError {
        self.inner.failure.borrow().clone().unwrap_or(StoreError::Closed)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Backend::Thread { queue, thread } = &mut self.backend {
            queue.take();
            // Queued jobs are still written: a new process must be able to open the log once this returns. A completion
            // may hold the last handle, and a thread cannot wait for itself.
            if let Some(thread) = thread.take().filter(|t| t.thread().id() != thread::current().id()) {
                let _ = thread.join();
            }
        }
    }
}

/// Jobs that are written together.
struct Group {
    ops: Vec<Op>,
    flush: Flush,
    done: Vec<Done>,
}

impl Default for Group {
    fn default() -> Self {
        Self { ops: Vec::new(), flush: Flush::Buffered, done: Vec::new() }
    }
}

impl Group {
    fn add(&mut self, job: Job) {
        self.ops.extend(job.ops);
        if job.flush == Flush::Durable {
            self.flush = Flush::Durable;
        }
        self.done.push(job.done);
    }
}

fn complete(done: Vec<Done>, result: &Result<(), StoreError>) {
    for done in done {
        done(result.clone());
    }
}

struct Core {
    store: Box<dyn LogStore>,
    stopped: Option<StoreError>,
    commits: Arc<CommitCount>,
}

impl Core {
    /// Writes the jobs as one group, then completes them in order.
    fn group(&mut self, jobs: Vec<Job>, report: &watch::Sender<Option<StoreError>>) {
        let mut group = Group::default();
        jobs.into_iter().for_each(|job| group.add(job));
        let result = self.commit(group.ops, group.flush, report);
        complete(group.done, &result);
    }

    fn commit(
        &mut self,
        ops: Vec<Op>,
        flush: Flush,
        report: &watch::Sender<Option<StoreError>>,
    ) -> Result<(), StoreError> {
        let result = match &self.stopped {
            Some(error) => Err(error.clone()),
            None => self.commits.during(|| guarded(|| self.store.commit(ops, flush))),
        };
        self.note(&result, report);
        result
    }

    fn idle(&mut self, report: &watch::Sender<Option<StoreError>>) {
        if self.stopped.is_none() {
            let result = guarded(|| self.store.idle());
            self.note(&result, report);
        }
    }

    fn note(&mut self, result: &Result<(), StoreError>, report: &watch::Sender<Option<StoreError>>) {
        if let Err(error) = result
            && self.stopped.is_none()
        {
            tracing::error!(%error, "the raft log failed, this node must stop");
            self.stopped = Some(error.clone());
            report.send_replace(Some(error.clone()));
        }
    }
}

/// Turns a panic of the engine on a damaged file into an error, so that the node handles it like any other.
fn guarded(run: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(StoreError::Stopped("the log engine panicked".to_owned())))
}

fn run(mut core: Core, mut jobs: mpsc::Receiver<Job>, report: &watch::Sender<Option<StoreError>>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_JOBS
            && let Ok(job) = jobs.try_recv()
        {
            group.push(job);
        }
        core.group(group, report);
        if jobs.is_empty() {
            core.idle(report);
        }
    }
}
