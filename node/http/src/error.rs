//! The reasons why a listener does not open. Texts are for operators.

use std::{io, net::SocketAddr, path::PathBuf};

/// The reason why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{setting}: port {} on {} is already taken by another process; stop it or choose another port", addr.port(), addr.ip())]
    PortTaken { setting: &'static str, addr: SocketAddr },
    #[error("{setting}: this machine has no address {}", addr.ip())]
    NoSuchAddress { setting: &'static str, addr: SocketAddr },
    #[error("{setting}: this process may not listen on port {}; ports below 1024 need a privilege", addr.port())]
    NotAllowed { setting: &'static str, addr: SocketAddr },
    #[error("{setting}: cannot listen on {addr}")]
    Bind {
        setting: &'static str,
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{setting}: {} cannot be used: {reason}", path.display())]
    Tls { setting: &'static str, path: PathBuf, reason: String },
}
