//! **The admin API** (`conclave.admin.v1`), gRPC on its own listener. Any node answers: reads from its own version of
//! the state, writes through the leader.
//!
//! | file | owns |
//! |---|---|
//! | `auth` | authentication, and the permits `auth::MayRead` and `auth::MayWrite` that everything below requires |
//! | `request` | the parts that all calls share: the version to read, the name of a write, the metadata of a response |
//! | `names` | usernames, group names and slugs to ids |
//! | `page` | listings |
//! | `errors` | refusals and failures to gRPC status, in one place |
//! | `users`, `groups`, `applications`, `clients`, `sessions`, `tokens`, `keys`, `upstreams`, `policies`, `snapshots`, `cluster`, `archive` | a resource each |
//! | `health`, `server` | gRPC health, the listener and its bounds |
//!
//! It decides nothing: the rules decide which changes are allowed. It prepares their input: redirect URIs are parsed,
//! passwords hashed, and ids and secrets derived before a command is made.

mod app_passwords;
mod applications;
mod archive;
mod auth;
mod client_exceptions;
mod client_tokens;
mod clients;
mod cluster;
mod errors;
mod groups;
mod health;
mod keys;
mod names;
mod page;
mod policies;
mod request;
mod secrets;
mod server;
mod sessions;
mod snapshots;
mod tokens;
mod upstreams;
mod users;

pub use server::{router, serve};

use conclave_archive::Archive;
use conclave_auth::Auth;

/// All services. Cheap to clone.
#[derive(Clone)]
struct Api {
    auth: Auth,
    /// `None` on a node without an archive target.
    archive: Option<Archive>,
}
