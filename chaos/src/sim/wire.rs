//! The network between simulated nodes: turmoil's, with its delays and partitions.

use std::{io, net::SocketAddr, sync::Arc};

use conclave_cluster::{
    Plane,
    testing::{Dialling, Inbound, Probing, Stream, Wire},
};
use tokio::sync::mpsc;
use turmoil::net::{TcpListener, TcpStream};

use super::world::SimWorld;

/// Connections that were accepted but not taken yet.
const QUEUE: usize = 64;

/// The dialler of a node.
struct Simulated {
    world: Arc<SimWorld>,
}

impl Wire for Simulated {
    fn dial<'a>(&'a self, addr: &'a str, _node: Option<u64>) -> Dialling<'a> {
        Box::pin(async move { Ok(Box::new(TcpStream::connect(address(addr)?).await?) as Stream) })
    }

    fn probe<'a>(&'a self, addr: &'a str) -> Probing<'a> {
        let answered_for = self.world.is_answered_for(addr);
        Box::pin(async move {
            if answered_for {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            TcpStream::connect(address(addr)?).await.map(drop)
        })
    }
}

fn address(text: &str) -> io::Result<SocketAddr> {
    text.parse().map_err(io::Error::other)
}

/// The cluster plane of the host on which this is called.
pub(super) async fn plane(world: &Arc<SimWorld>, port: u16) -> io::Result<Plane> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    let (sender, incoming) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            if sender.send(Ok(Inbound::new(Box::new(stream), peer))).await.is_err() {
                return;
            }
        }
    });
    Ok(Plane::Simulated { wire: Arc::new(Simulated { world: Arc::clone(world) }), incoming })
}
