//! **The admin API** (`conclave.admin.v1`), gRPC on its own listener. Any node answers: reads from its own version of
//! the state, writes through the leader.
//!
//! | file | owns |
//! |---|---|
//! | `auth` | who calls, and the permits [`auth::MayRead`] and [`auth::MayWrite`] without which nothing below moves |
//! | `request` | what every call has in common: the version it reads, the name of its write, the metadata of its answer |
//! | `names` | usernames, group names and slugs to ids |
//! | `page` | listings |
//! | `errors` | refusals and failures to gRPC status, in one place |
//! | `users`, `groups`, `applications`, `clients`, `sessions`, `tokens`, `keys`, `upstreams`, `policies`, `snapshots`, `cluster`, `archive` | a resource each |
//! | `health`, `server` | gRPC health, the listener and its bounds |
//!
//! It decides nothing: what may be changed, the rules say. It owns the shape of what they are told: redirect URIs are
//! parsed, passwords hashed, ids and secrets derived before a command is made.

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

use crate::{archive::Archive, auth::Auth};

/// All services: cheap to clone.
#[derive(Clone)]
struct Api {
    auth: Auth,
    /// None on a node without a target.
    archive: Option<Archive>,
}
