//! The state of a connection while it is used: connected or not. A write that was handed to a channel without a
//! connection, and timed out before a connection was made, was certainly not sent.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::types::NodeId;

/// The time for which a refused connection stands for the next attempts: thousands of held writes must not dial one by
/// one.
const BACKOFF: Duration = Duration::from_millis(50);

/// The connections of one channel.
#[derive(Debug, Default)]
pub(crate) struct PeerConnection {
    live: AtomicUsize,
    made: AtomicU64,
    failed_at: Mutex<Option<Instant>>,
    /// The member, if lost and restored connections are to be logged. One channel of a member is enough for that.
    member: Option<NodeId>,
}

/// The state of a channel at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionMark {
    connected: bool,
    made: u64,
}

impl PeerConnection {
    /// Creates a channel state that logs when this member is lost, and when it can be reached again.
    pub(crate) fn reporting(member: Option<NodeId>) -> Self {
        Self { member, ..Self::default() }
    }

    /// Reads the current state. To be called before something is sent.
    pub(crate) fn mark(&self) -> ConnectionMark {
        ConnectionMark {
            connected: self.live.load(Ordering::SeqCst) > 0,
            made: self.made.load(Ordering::SeqCst),
        }
    }

    /// True if nothing at all can have been sent since `start`.
    pub(crate) fn was_dead_since(&self, start: ConnectionMark) -> bool {
        !start.connected && self.made.load(Ordering::SeqCst) == start.made
    }

    /// True if there is no connection and the last attempt to make one has just failed.
    pub(crate) fn in_backoff(&self) -> bool {
        let failed_at = *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.live.load(Ordering::SeqCst) == 0 && failed_at.is_some_and(|at| at.elapsed() < BACKOFF)
    }

    /// Records the result of a connection attempt.
    pub(crate) fn dialled<S>(self: &Arc<Self>, outcome: io::Result<S>) -> io::Result<CountedStream<S>> {
        let failed_at = outcome.is_err().then(Instant::now);
        let before =
            std::mem::replace(&mut *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner), failed_at);
        match (self.member, &outcome) {
            (Some(member), Err(error)) if before.is_none() => {
                tracing::warn!(peer.id = member, "node {member} cannot be reached: {error}");
            }
            (Some(member), Ok(_)) if before.is_some() => {
                tracing::info!(peer.id = member, "node {member} can be reached again");
            }
            _ => {}
        }
        outcome.map(|stream| {
            self.live.fetch_add(1, Ordering::SeqCst);
            self.made.fetch_add(1, Ordering::SeqCst);
            CountedStream { stream, of: Arc::clone(self) }
        })
    }
}

/// A connection that is counted as long as it exists.
#[derive(Debug)]
pub(crate) struct CountedStream<S> {
    stream: S,
    of: Arc<PeerConnection>,
}

impl<S> Drop for CountedStream<S> {
    fn drop(&mut self) {
        self.of.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_peer_without_any_connection_since_then_has_certainly_sent_nothing() {
        let peer = Arc::new(PeerConnection::default());
        let before = peer.mark();
        assert!(peer.was_dead_since(before) && !peer.in_backoff(), "nobody has dialled yet");
        assert!(peer.dialled::<()>(Err(io::ErrorKind::ConnectionRefused.into())).is_err());
        assert!(peer.was_dead_since(before) && peer.in_backoff());
        let connection = peer.dialled(Ok(())).unwrap();
        assert!(!peer.in_backoff());
        let during = peer.mark();
        assert!(!peer.was_dead_since(before) && !peer.was_dead_since(during));
        drop(connection);
        assert!(!peer.was_dead_since(before), "it was there for a moment");
        assert!(!peer.was_dead_since(during), "it was there to begin with");
        assert!(peer.was_dead_since(peer.mark()));
    }
}
