//! A slow link: a relay between the others and one node's cluster plane, which delays both directions. Bytes arrive
//! late, in order and complete, as TCP over a long or a crowded line delivers them; the kernel's own packet delay is
//! not available on every machine. While the node does not listen, neither does the relay: connections are refused, as
//! without it.
//!
//! If nodes have network namespaces of their own, their relays are processes inside; they run [`serve`].

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

/// Pieces in transit in one direction: enough for a batch of entries. After that the sender waits, as for a full
/// window.
const ON_THE_WAY: usize = 64;
const PIECE_BYTES: usize = 16 * 1024;
/// The interval at which the relay checks whether the node listens again.
const LOOK: Duration = Duration::from_millis(5);

pub(super) struct Relay {
    delay_us: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Listens at `near` and forwards to `far`. Must be called within a runtime.
    pub(super) fn start(near: String, far: String) -> Self {
        let delay_us = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(near, far, Arc::clone(&delay_us)));
        Self { delay_us, accepting }
    }

    /// Delays every piece from now on by between once and twice this time.
    pub(super) fn slow(&self, by: Duration) {
        self.delay_us.store(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Runs a relay as a process: each line of its standard input is a new delay in microseconds; it ends with its parent.
///
/// # Errors
/// A standard input that cannot be read.
pub fn serve(near: String, far: String) -> io::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let _inside = runtime.enter();
    let relay = Relay::start(near, far);
    for line in io::stdin().lines() {
        relay.slow(Duration::from_micros(line?.trim().parse().unwrap_or(0)));
    }
    Ok(())
}

async fn accept(near: String, far: String, delay: Arc<AtomicU64>) {
    loop {
        while TcpStream::connect(&far).await.is_err() {
            sleep(LOOK).await;
        }
        let Ok(listener) = TcpListener::bind(&near).await else {
            sleep(LOOK).await;
            continue;
        };
        while let Ok((guest, _)) = listener.accept().await {
            // The first connection after the node is gone is closed at once; the next ones are refused.
            let Ok(host) = TcpStream::connect(&far).await else { break };
            tokio::spawn(pass_on(guest, host, Arc::clone(&delay)));
        }
    }
}

async fn pass_on(guest: TcpStream, host: TcpStream, delay: Arc<AtomicU64>) {
    // Best effort: without it small pieces arrive even later.
    let _ = (guest.set_nodelay(true), host.set_nodelay(true));
    let (from_guest, to_guest) = guest.into_split();
    let (from_host, to_host) = host.into_split();
    tokio::join!(one_way(from_guest, to_host, &delay), one_way(from_host, to_guest, &delay));
}

async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: &AtomicU64) {
    let (send, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let taking = async move {
        let mut turn = 0;
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let Ok(read @ 1..) = from.read(&mut piece).await else { return };
            piece.truncate(read);
            let least = delay.load(Ordering::Relaxed);
            turn = (turn + 37) % 100;
            let due = Instant::now() + Duration::from_micros(least + least * turn / 100);
            if send.send((due, piece)).await.is_err() {
                return;
            }
        }
    };
    let giving = async move {
        while let Some((due, piece)) = arriving.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The end of one direction; the other may go on.
        let _ = to.shutdown().await;
    };
    tokio::join!(taking, giving);
}
