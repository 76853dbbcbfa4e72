//! The hashing threads, the queue before them, and the memory they hash in.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use argon2::Block;
use tokio::sync::oneshot;

use super::PasswordError;

/// The most jobs waiting. At some 50 hashes a second on two cores the last one waits five seconds, which is about as
/// long as a user waits before pressing the button again.
pub const MAX_WAITING: usize = 256;

/// A thread without work for this long releases its memory: an idle node is promised to be small.
const IDLE_RELEASE: Duration = Duration::from_secs(5);

/// Room reserved per thread, in blocks of 1 KiB. Only the used part becomes resident. Above 32 MiB the C library's
/// allocator always maps and unmaps, so that a release really returns the memory. Below, it keeps freed memory for
/// itself after the first time.
const RESERVED_BLOCKS: usize = 33 * 1024;

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

#[derive(Clone)]
pub(super) struct Pool(Arc<Owner>);

struct Owner {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    /// In order of arrival.
    jobs: VecDeque<Job>,
    open: bool,
}

impl Pool {
    pub(super) fn start(threads: NonZeroUsize) -> io::Result<Self> {
        let queue = Queue { jobs: VecDeque::new(), open: true };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() });
        let mut owner = Owner { shared, threads: Vec::with_capacity(threads.get()) };
        for number in 0..threads.get() {
            let shared = Arc::clone(&owner.shared);
            let thread = thread::Builder::new().name(format!("argon2-{number}"));
            owner.threads.push(thread.spawn(move || shared.work())?);
        }
        Ok(Self(Arc::new(owner)))
    }

    /// Runs `work` on one of the threads. A caller that is dropped before its turn costs nothing.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let (reply, answer) = oneshot::channel();
        self.0.shared.enqueue(Box::new(move |memory| {
            if !reply.is_closed() {
                // A caller that was dropped meanwhile is not an error.
                reply.send(work(memory)).ok();
            }
        }))?;
        answer.await.map_err(|_| PasswordError::Stopped)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} threads)", self.0.threads.len())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.lock();
            queue.open = false;
            queue.jobs.clear();
        }
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // Each thread ends after its current hash. A thread that panicked has nothing left to stop.
            thread.join().ok();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, job: Job) -> Result<(), PasswordError> {
        let mut queue = self.lock();
        if !queue.open {
            return Err(PasswordError::Stopped);
        }
        if queue.jobs.len() >= MAX_WAITING {
            return Err(PasswordError::Busy);
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.changed.notify_one();
        Ok(())
    }

    fn work(&self) {
        let mut memory = Memory::default();
        while let Some(job) = self.next(&mut memory) {
            // If a job panics, its caller gets `Stopped` (its channel closes), and the thread serves the next.
            if catch_unwind(AssertUnwindSafe(|| job(&mut memory))).is_err() {
                memory.release();
            }
            memory.release_if_outsized();
        }
    }

    /// The next job, or `None` once closed. Releases the memory if no job arrives for [`IDLE_RELEASE`].
    fn next(&self, memory: &mut Memory) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if !queue.open {
                return None;
            }
            queue = if memory.is_released() {
                self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = self.changed.wait_timeout(queue, IDLE_RELEASE);
                let (queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                if timeout.timed_out() && queue.jobs.is_empty() {
                    memory.release();
                }
                queue
            };
        }
    }
}

/// A thread's working memory, kept between hashes: mapping 19 MiB anew costs a tenth of a hash.
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

impl Memory {
    /// At least `count` blocks. They still contain the data of the last hash.
    pub(super) fn blocks(&mut self, count: usize) -> &mut [Block] {
        if self.0.len() < count {
            if self.0.capacity() < count {
                self.0 = Vec::with_capacity(count.max(RESERVED_BLOCKS));
            }
            self.0.resize(count, Block::default());
        }
        &mut self.0
    }

    fn is_released(&self) -> bool {
        self.0.capacity() == 0
    }

    fn release(&mut self) {
        self.0 = Vec::new();
    }

    /// Releases the memory after a stored hash with a large `m`: it must not make the thread large for good.
    fn release_if_outsized(&mut self) {
        if self.0.capacity() > RESERVED_BLOCKS {
            self.release();
        }
    }
}
