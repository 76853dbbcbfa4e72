//! The listener: binding with a clear error, connections within limits, and a bounded drain.
//!
//! HTTP/1.1 only: a reverse proxy in front uses it for its backends, and so do browsers without TLS.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use futures_util::{FutureExt as _, future::Either};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cidr::Cidr;
use super::client::OverTls;
use super::connection_limits::{ConnectionLimits, ConnectionPermit};
use super::dispatcher::{Dispatcher, HttpPeer};
use super::error::HttpError;
use super::tls::ServerTls;

/// Maximum number of connections. Each costs a descriptor and some 10 KiB; further ones wait in the kernel's queue.
/// `connection_limits` has the limit per address.
const MAX_CONNECTIONS: usize = 4096;

/// Maximum length of a request head in bytes: many cookies, a long authorize URL and a proxy's headers fit well.
const MAX_HEAD: usize = 64 * 1024;

/// Time limit for requests in flight once the node stops.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Time limit of a TLS handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Pause after a failed accept, so that a process out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The result of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    Whole,
    /// This many connections were cut after [`DRAIN_LIMIT`].
    Cut(usize),
}

/// Binds `addr`; `setting` is the path of its setting, for the error. Any listener of the node may use it.
pub async fn bind(setting: &'static str, addr: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(addr).await.map_err(|source| refused(setting, addr, source))
}

fn refused(setting: &'static str, addr: SocketAddr, source: io::Error) -> HttpError {
    match source.kind() {
        io::ErrorKind::AddrInUse => HttpError::PortTaken { setting, addr },
        io::ErrorKind::AddrNotAvailable => HttpError::NoSuchAddress { setting, addr },
        io::ErrorKind::PermissionDenied => HttpError::NotAllowed { setting, addr },
        _ => HttpError::Bind { setting, addr, source },
    }
}

/// Length of the kernel's queue of connections that are not accepted yet.
const BACKLOG: u32 = 1024;

/// A bound port that refuses connections, so that clients and proxies go to the next node at once. [`Self::open`] makes
/// it an [`HttpListener`].
#[derive(Debug)]
pub struct BoundListener {
    socket: TcpSocket,
    setting: &'static str,
    addr: SocketAddr,
}

impl BoundListener {
    /// Binds the port without listening. A port that another process uses is detected now.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn bind(setting: &'static str, addr: SocketAddr) -> Result<Self, HttpError> {
        // The system lets two sockets bind a port as long as neither listens, so listen once for a moment.
        drop(bind(setting, addr).await?);
        let new = || {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(addr)?;
            Ok(socket)
        };
        let socket = new().map_err(|source| refused(setting, addr, source))?;
        Ok(Self { socket, setting, addr })
    }

    /// Begins to listen for HTTP.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn open(self) -> Result<HttpListener, HttpError> {
        Ok(HttpListener::over(self.listen()?))
    }

    /// Begins to listen, for protocols other than those of this room.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn listen(self) -> Result<TcpListener, HttpError> {
        self.socket.listen(BACKLOG).map_err(|source| refused(self.setting, self.addr, source))
    }
}

/// A bound HTTP listener.
#[derive(Debug)]
pub struct HttpListener {
    listener: TcpListener,
    drain_limit: Duration,
    limits: ConnectionLimits,
    tls: Option<ServerTls>,
}

impl HttpListener {
    pub async fn bind(setting: &'static str, addr: SocketAddr) -> Result<Self, HttpError> {
        Ok(Self::over(bind(setting, addr).await?))
    }

    fn over(listener: TcpListener) -> Self {
        Self { listener, drain_limit: DRAIN_LIMIT, limits: ConnectionLimits::new(&[]), tls: None }
    }

    /// Lets these proxies use any number of connections: each carries the requests of many clients.
    #[must_use]
    pub fn with_proxies(self, proxies: &[Cidr]) -> Self {
        Self { limits: ConnectionLimits::new(proxies), ..self }
    }

    /// Serves TLS.
    #[must_use]
    pub fn with_tls(self, tls: ServerTls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The bound address, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is cancelled. Then it accepts no more connections, lets requests in flight finish, closes
    /// idle connections, and returns.
    pub async fn serve(self, dispatcher: impl Into<Dispatcher>, stop: CancellationToken) -> Drained {
        let dispatcher = dispatcher.into();
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Some(accepted) = self.next(&places, &stop).await {
            connections.spawn(converse(accepted, self.tls.clone(), dispatcher.clone(), stop.clone()));
        }
        drop(self.listener);
        connections.close();
        match tokio::time::timeout(self.drain_limit, connections.wait()).await {
            Ok(()) => Drained::Whole,
            Err(_elapsed) => Drained::Cut(connections.len()),
        }
    }

    /// The next connection, once there is room for one. Connections beyond their address's share are closed. `None`
    /// once the server stops.
    async fn next(&self, places: &Arc<Semaphore>, stop: &CancellationToken) -> Option<Accepted> {
        let accept = async {
            let place = Arc::clone(places).acquire_owned().await.ok()?;
            loop {
                match self.listener.accept().await {
                    Ok((stream, peer)) => {
                        if let Some(permit) = self.limits.admit(peer.ip()) {
                            return Some(Accepted { stream, peer, permit, _place: place });
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => None,
            accepted = accept => accepted,
        }
    }
}

/// A connection with the permits that it holds.
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    permit: ConnectionPermit,
    _place: OwnedSemaphorePermit,
}

async fn converse(
    accepted: Accepted,
    tls: Option<ServerTls>,
    dispatcher: Dispatcher,
    stop: CancellationToken,
) {
    let Accepted { stream, peer, permit, _place } = accepted;
    // Small responses must not wait for the client's acknowledgement of the previous one.
    stream.set_nodelay(true).ok();
    let Some(tls) = tls else {
        return speak(stream, HttpPeer::plain(peer), permit, dispatcher, stop).await;
    };
    let shaking = tokio::time::timeout(HANDSHAKE_LIMIT, tls.acceptor.accept(stream));
    let shaken = tokio::select! {
        shaken = shaking => shaken,
        () = stop.cancelled() => return,
    };
    match shaken {
        Ok(Ok(stream)) => {
            let certificate = tls.certificate(&stream);
            let peer = HttpPeer { addr: peer, over_tls: Some(OverTls), certificate };
            speak(stream, peer, permit, dispatcher, stop).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, %peer, "a handshake failed"),
        Err(_elapsed) => tracing::debug!(%peer, "a handshake took too long"),
    }
}

/// Serves one connection; holds its permit until it ends.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: HttpPeer,
    permit: ConnectionPermit,
    dispatcher: Dispatcher,
    stop: CancellationToken,
) {
    let addr = peer.addr;
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        match dispatcher.at_once(&request, addr.ip()) {
            Some(response) => Either::Left(ready(Ok::<Response, Infallible>(response))),
            // Boxed: hyper reserves room for the larger of the two in every connection.
            None => Either::Right(Box::pin(dispatcher.clone().route(request, peer.clone()).map(Ok))),
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(permit.header_read_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients that disconnect or send garbage are normal.
        tracing::debug!(%error, peer = %addr, "a connection ended early");
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
