//! The separate runtime of consensus. It ends with its owner, and completely.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

/// Threads that run consensus: one drives Raft, one the network.
const THREADS: usize = 2;
/// The time limit for the threads to end. If they take longer, a disk hangs, and then the process must end anyway.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Runs everything of a node that talks to peers. It stops at once when it is dropped, and waits for nothing.
pub(crate) struct Consensus {
    handle: Handle,
    threads: Mutex<Option<Runtime>>,
}

impl Consensus {
    pub(crate) fn start() -> io::Result<Self> {
        let threads = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("consensus")
            .enable_all()
            .build()?;
        Ok(Self { handle: threads.handle().clone(), threads: Mutex::new(Some(threads)) })
    }

    /// Uses the runtime of the caller, which ends it. For the simulator.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn here() -> Self {
        Self { handle: Handle::current(), threads: Mutex::new(None) }
    }

    /// Runs `work` here. Returns `None` if this runtime has ended, or if `work` panicked. The work begins at once. The
    /// returned future does not contain it, so that the types of the callers stay small.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Running<T> {
        Running(self.handle.spawn(work))
    }

    /// Drops every task at its next await point, and returns once the threads have ended. Must be called from another
    /// runtime.
    pub(crate) async fn end(&self) {
        let Some(threads) = self.take() else { return };
        // Waiting for threads blocks. A panic there would be tokio's, and nothing is left to do about it.
        let _ = tokio::task::spawn_blocking(move || threads.shutdown_timeout(END_LIMIT)).await;
    }

    fn take(&self) -> Option<Runtime> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Consensus {
    fn drop(&mut self) {
        if let Some(threads) = self.take() {
            threads.shutdown_background();
        }
    }
}

/// Work that runs in the consensus runtime. Yields `None` if the runtime has ended, or if the work panicked.
pub(crate) struct Running<T>(JoinHandle<T>);

impl<T> Future for Running<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.0).poll(cx).map(Result::ok)
    }
}

/// Resolves when the data directory is free again: its other half is dropped with the last handle of the log.
#[derive(Clone)]
pub(crate) struct Released(watch::Receiver<()>);

/// Keeps `held` as long as the log is open, and then notifies [`Released`].
pub(crate) struct Hold<T> {
    _held: T,
    // Declared after `_held`: the receiver must find it released.
    _tell: watch::Sender<()>,
}

impl<T> Hold<T> {
    pub(crate) fn new(held: T) -> (Self, Released) {
        let (tell, told) = watch::channel(());
        (Self { _held: held, _tell: tell }, Released(told))
    }
}

impl Released {
    /// Waits for the release within a bound. Returns false if the directory is still in use.
    pub(crate) async fn wait(mut self) -> bool {
        // Nothing is ever sent: the end of the channel is the signal.
        timeout(END_LIMIT, async { while self.0.changed().await.is_ok() {} }).await.is_ok()
    }
}
