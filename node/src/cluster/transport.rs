//! TLS under the cluster plane: one way in, one way out, both mutual and both made from the cluster secret.
//!
//! Handshakes are made here rather than inside tonic, so that a node with another secret is named as such in the log of both
//! sides, and so that a dead peer is known by its refused connection at once.

use std::{
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
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};
use tonic::transport::{Channel, Endpoint, server::Connected};

use crate::crypto::tls::{ClusterTls, PEER_NAME, explain, node_name};

use super::{line::Line, types::NodeId};

/// Longest handshake, either way: a peer that cannot greet within it is as good as dead.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(2);
/// Most handshakes at once: what strangers can make this node work on.
const MAX_HANDSHAKES: usize = 64;
/// Connections accepted but not yet taken by the server.
const ACCEPT_QUEUE: usize = 64;
/// How long accepting pauses after an error of the listener (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A channel to the member at `addr`, connected when first used and again whenever it breaks. `node` is what its certificate
/// must name; none = any member (before the members are known). `line` is told of every connection.
///
/// # Errors
/// When `addr` is no address.
pub fn channel(
    tls: &ClusterTls,
    addr: &str,
    node: Option<NodeId>,
    line: Arc<Line>,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?
        .connect_timeout(HANDSHAKE_LIMIT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true);
    let connector = TlsConnector::from(tls.client_config());
    let addr: Arc<str> = addr.into();
    let name = node.map_or_else(|| PEER_NAME.to_owned(), node_name);
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
        let (connector, addr, name, line) =
            (connector.clone(), Arc::clone(&addr), name.clone(), Arc::clone(&line));
        async move { line.dialled(dial(&connector, &addr, name).await).map(TokioIo::new) }
    })))
}

async fn dial(
    connector: &TlsConnector,
    addr: &str,
    name: String,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    let attempt = async {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        connector.connect(name, tcp).await
    };
    let stream =
        timeout(HANDSHAKE_LIMIT, attempt).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    stream.map_err(|error| match explain(&error) {
        Some(fault) => io::Error::new(io::ErrorKind::PermissionDenied, format!("{addr}: {fault}")),
        None => error,
    })
}

/// Accepts members on `listener` until the receiver is dropped. Strangers are turned away with a line in the log.
pub fn accept(listener: TcpListener, tls: &ClusterTls) -> mpsc::Receiver<io::Result<Inbound>> {
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
            // At the limit further greetings wait in the backlog of the socket.
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
        Ok(Ok(stream)) => Some(Inbound { stream, peer }),
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
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
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
