//! The HTTP leaf: listeners, and the steps common to all requests.
//!
//! Owns the listener with its limits and its drain, the [`Edge`] that every request passes (request id, client address,
//! body limit, time-out, panics, security headers), cookies, and problem responses. It knows no routes, pages or
//! sessions. It trusts no header of a peer that is not a configured proxy.

pub mod cidr;
pub mod client;
mod connection_limits;
pub mod cookie;
pub mod denial;
pub mod dispatcher;
pub mod edge;
mod error;
pub mod fault;
pub mod headers;
pub mod host;
pub mod outbound;
pub mod request_id;
pub mod server;
pub mod tls;

pub use self::client::{ClientInfo, Scheme};
pub use self::denial::Denial;
pub use self::dispatcher::{Dispatcher, FastPath, HttpPeer};
pub use self::edge::{Edge, EdgeConfig};
pub use self::error::HttpError;
pub use self::fault::{Fault, WayOn};
pub use self::headers::{FormAction, Framable};
pub use self::outbound::Outbound;
pub use self::request_id::RequestId;
pub use self::server::{BoundListener, Drained, HttpListener};
pub use self::tls::{PeerCertificate, ServerTls, TlsFiles};
