//! TLS for the cluster plane: one way in and one way out, both mutual and both made from the cluster secret.
//!
//! Handshakes are made here rather than inside tonic, so that both sides log a node with another secret as such, and so
//! that a dead peer is recognised by its refused connection at once.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Channel, Endpoint, server::Connected};

use conclave_crypto::tls::{ClusterTls, PEER_NAME, explain, node_name};

use super::{peer_connection::PeerConnection, types::NodeId};

/// The longest handshake in either direction: a peer that takes longer is treated as dead.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(2);
/// The time limit of one connection attempt. A kernel repeats a lost attempt after 1 s, then after 3 s: a member that
/// can be reached again would be found that much later.
const CONNECT_TRY: Duration = Duration::from_millis(250);
/// The time of silence after which a connection is probed; it is dropped if there is no answer. TCP itself would repeat
/// lost data at longer and longer intervals, and go on doing so after the network has recovered.
const SILENCE: Duration = Duration::from_millis(250);
/// The time limit of a probe's answer: longer than any healthy round trip, and than a busy machine keeps a task
/// waiting.
const ANSWER_LIMIT: Duration = Duration::from_millis(750);
/// Most handshakes at once: a bound on the work that unknown hosts can cause.
const MAX_HANDSHAKES: usize = 64;
/// Connections accepted but not yet taken by the server.
const ACCEPT_QUEUE: usize = 64;
/// The pause in accepting after an error of the listener (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A byte stream to a member and back.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

pub type Stream = Box<dyn Duplex>;

/// A connection that is being made.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send + 'a>>;

/// A connection attempt that shows if a member listens.
pub type Probing<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// The way members are reached: TLS over TCP, or a simulator's replacement.
pub trait Wire: Send + Sync {
    /// Connects to the member at `addr`, whose certificate must name `node`, or any member if `node` is `None`.
    fn dial<'a>(&'a self, addr: &'a str, node: Option<NodeId>) -> Dialling<'a>;

    /// Connects to the port of `addr`, and drops the connection at once.
    fn probe<'a>(&'a self, addr: &'a str) -> Probing<'a>;
}

/// The cluster plane's incoming side, and the way out.
pub enum Plane {
    /// TLS over TCP, on a socket that is bound already.
    Tcp(std::net::TcpListener),
    #[cfg(any(test, feature = "testing"))]
    Simulated { wire: Arc<dyn Wire>, incoming: mpsc::Receiver<io::Result<Inbound>> },
}

impl Plane {
    /// Begins to listen.
    pub(super) fn open(self, tls: &ClusterTls) -> io::Result<(Arc<dyn Wire>, InboundReceiver)> {
        match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener)?;
                Ok((Arc::new(TlsWire::new(tls)), accept(listener, tls)))
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated { wire, incoming } => Ok((wire, incoming)),
        }
    }
}

/// Connections of members as they arrive.
pub(crate) type InboundReceiver = mpsc::Receiver<io::Result<Inbound>>;

/// TLS over TCP.
pub(crate) struct TlsWire(TlsConnector);

impl TlsWire {
    pub(crate) fn new(tls: &ClusterTls) -> Self {
        Self(TlsConnector::from(tls.client_config()))
    }
}

impl Wire for TlsWire {
    fn dial<'a>(&'a self, addr: &'a str, node: Option<NodeId>) -> Dialling<'a> {
        let name = node.map_or_else(|| PEER_NAME.to_owned(), node_name);
        Box::pin(async move { dial(&self.0, addr, name).await.map(|stream| Box::new(stream) as Stream) })
    }

    fn probe<'a>(&'a self, addr: &'a str) -> Probing<'a> {
        Box::pin(async move { TcpStream::connect(addr).await.map(drop) })
    }
}

/// Returns a channel to the member at `addr`, connected when first used and again whenever it breaks. `node` is the
/// name that its certificate must have; `None` means any member (before the members are known). `connection` records
/// every connection.
///
/// # Errors
/// An error if `addr` is not a valid address.
pub(crate) fn channel(
    wire: &Arc<dyn Wire>,
    addr: &str,
    node: Option<NodeId>,
    connection: Arc<PeerConnection>,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?
        .connect_timeout(HANDSHAKE_LIMIT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(SILENCE)
        .keep_alive_timeout(ANSWER_LIMIT)
        .keep_alive_while_idle(true);
    let (wire, addr) = (Arc::clone(wire), Arc::<str>::from(addr));
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
        let (wire, addr, connection) = (Arc::clone(&wire), Arc::clone(&addr), Arc::clone(&connection));
        async move {
            let attempt = tokio::time::timeout(HANDSHAKE_LIMIT, wire.dial(&addr, node)).await;
            connection
                .dialled(attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
                .map(TokioIo::new)
        }
    })))
}

async fn dial(
    connector: &TlsConnector,
    addr: &str,
    name: String,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    let tcp = connect(addr).await?;
    tcp.set_nodelay(true)?;
    connector.connect(name, tcp).await.map_err(|error| match explain(&error) {
        Some(fault) => io::Error::new(io::ErrorKind::PermissionDenied, format!("{addr}: {fault}")),
        None => error,
    })
}

/// Connects within [`HANDSHAKE_LIMIT`], which the caller enforces.
async fn connect(addr: &str) -> io::Result<TcpStream> {
    loop {
        if let Ok(connected) = timeout(CONNECT_TRY, TcpStream::connect(addr)).await {
            return connected;
        }
    }
}

/// Accepts members on `listener` until the receiver is dropped. Other connections are rejected and logged.
fn accept(listener: TcpListener, tls: &ClusterTls) -> InboundReceiver {
    let (sender, receiver) = mpsc::channel(ACCEPT_QUEUE);
    let acceptor = TlsAcceptor::from(tls.server_config());
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        while !sender.is_closed() {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => break,
            };
            let Ok((tcp, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // At the limit, further connections wait in the backlog of the socket.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                let greeted = greet(&acceptor, tcp, peer).await;
                drop(permit);
                if let Some(inbound) = greeted {
                    // Closed only when the server stops.
                    let _ = sender.send(Ok(inbound)).await;
                }
            });
        }
    });
    receiver
}

async fn greet(acceptor: &TlsAcceptor, tcp: TcpStream, peer: SocketAddr) -> Option<Inbound> {
    let _ = tcp.set_nodelay(true);
    match timeout(HANDSHAKE_LIMIT, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => Some(Inbound { stream: Box::new(stream), peer }),
        Ok(Err(error)) => {
            match explain(&error) {
                Some(fault) => {
                    tracing::warn!(peer.addr = %peer, "turned a connection to the cluster port away: {fault}");
                }
                None => {
                    tracing::debug!(peer.addr = %peer, %error, "a connection to the cluster port broke off");
                }
            }
            None
        }
        Err(_) => None,
    }
}

/// A member's connection.
pub struct Inbound {
    stream: Stream,
    peer: SocketAddr,
}

#[cfg(any(test, feature = "testing"))]
impl Inbound {
    /// A connection over a simulated network.
    pub fn new(stream: Stream, peer: SocketAddr) -> Self {
        Self { stream, peer }
    }
}

impl Connected for Inbound {
    type ConnectInfo = SocketAddr;
    fn connect_info(&self) -> SocketAddr {
        self.peer
    }
}

impl AsyncRead for Inbound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Inbound {
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
