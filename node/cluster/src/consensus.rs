//! The runtime that consensus has of its own, and how it ends: with its owner, and completely.

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

/// Threads that carry consensus: one drives Raft, one the wire.
const THREADS: usize = 2;
/// How long the threads may take to leave. What takes longer is a disk that hangs, and then the process must end
/// anyway.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Everything of a node that talks to peers runs here. Dropped, it stops at once and waits for nothing.
pub struct Consensus {
    handle: Handle,
    threads: Mutex<Option<Runtime>>,
}

impl Consensus {
    pub fn start() -> io::Result<Self> {
        let threads = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("consensus")
            .enable_all()
            .build()?;
        Ok(Self { handle: threads.handle().clone(), threads: Mutex::new(Some(threads)) })
    }

    /// On the runtime of the caller, which ends it: for the simulator.
    #[cfg(any(test, feature = "testing"))]
    pub fn here() -> Self {
        Self { handle: Handle::current(), threads: Mutex::new(None) }
    }

    /// Runs `work` here; none when this has ended, or `work` panicked.
    /// It begins at once, and the answer holds nothing of it: the types of those who wait stay small.
    pub fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Running<T> {
        Running(self.handle.spawn(work))
    }

    /// Drops every task at its next pause, and returns once the threads have left. To be called from another runtime.
    pub async fn end(&self) {
        let Some(threads) = self.take() else { return };
        // Waiting for threads blocks; a panic there would be tokio's, and nothing is left to do about it.
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

/// Work that goes on there; none when the runtime has ended, or the work panicked.
pub struct Running<T>(JoinHandle<T>);

impl<T> Future for Running<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.0).poll(cx).map(Result::ok)
    }
}

/// Tells when the data directory is free again: its other half goes with the last handle of the log.
#[derive(Clone)]
pub struct Released(watch::Receiver<()>);

/// Keeps `held` as long as the log is open, and then tells.
pub struct Hold<T> {
    _held: T,
    // After what is held: whoever is told must find it free.
    _tell: watch::Sender<()>,
}

impl<T> Hold<T> {
    pub fn new(held: T) -> (Self, Released) {
        let (tell, told) = watch::channel(());
        (Self { _held: held, _tell: tell }, Released(told))
    }
}

impl Released {
    /// Waits for it, within a bound. False when something still holds on.
    pub async fn wait(mut self) -> bool {
        // Nothing is ever sent: the end of the channel is the news.
        timeout(END_LIMIT, async { while self.0.changed().await.is_ok() {} }).await.is_ok()
    }
}
