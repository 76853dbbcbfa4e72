//! **The client of the admin API** (`conclave.admin.v1`): the command line, the tests and other programs use it to talk
//! to a cluster.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use conclave_client::{AdminClient, v1};
//!
//! let client = AdminClient::builder().endpoints(["http://10.0.0.1:9200", "http://10.0.0.2:9200"]).token("…").build()?;
//! let ada = client.users().create(v1::CreateUserRequest { username: "ada".into(), ..Default::default() }).await?;
//! println!("{}", ada.id);
//! # Ok(())
//! # }
//! ```
//!
//! It guarantees to its callers:
//!
//! - **Any node is enough.** If an endpoint does not answer, the client tries the next one.
//! - **Writes go to the leader** once a follower has named it, and stay there until it fails.
//! - **Retries are safe.** Every write has its own request id and sends it at each attempt, so it happens once. It is
//!   retried, with growing pauses, until the deadline. A write that was sent and never answered ends as
//!   [`Error::OutcomeUnknown`], never as failed.
//! - **Callers read their own writes**, on any node: every request carries the highest log index seen.
//!
//! It keeps no state on disk, reads no environment and prints nothing. Endpoints are HTTP/2, plain or over TLS.
#![warn(missing_docs)]

mod builder;
mod call;
mod doubt;
mod error;
mod pages;
mod routing;
mod services;
mod snapshots;

#[cfg(test)]
mod tests;

pub use builder::{BuildError, ClientBuilder};
pub use conclave_proto::admin::v1;
pub use error::Error;
pub use pages::all_pages;
pub use services::{Applications, Clients, Cluster, Groups, Sessions, Tokens, Users};
pub use snapshots::{Restoring, SnapshotDownload, Snapshots};

use std::{fmt, sync::Arc};

/// A connection to a cluster. Cheap to clone; clones share connections, the leader and the highest index seen.
#[derive(Clone)]
pub struct AdminClient {
    inner: Arc<call::Inner>,
}

impl AdminClient {
    /// A builder for the configuration of a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

/// Prints no token.
impl fmt::Debug for AdminClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminClient")
    }
}
