//! **The rules.** The only way in which replicated state changes:
//!
//! ```text
//! apply(state, entry) -> (state', reply, events)     same state, same entry => same result, on every node
//! ```
//!
//! This crate is pure and synchronous: no I/O, no clock, no randomness, no unordered map, no float. Ids, salts and
//! hashes arrive in the command; time is the leader's [`Stamp`], which never runs back. A refusal is a [`Reply`],
//! remembered like any other. [`Halt`] stops the node: `apply` returns it when an entry cannot be understood, and no
//! entry is ever skipped.
//!
//! | module | owns |
//! |---|---|
//! | [`apply`](mod@apply) | the only entry point, and the steps around every command: stamp, request memory, dispatch |
//! | [`state`] | the tables and their derived indexes; the only place that inserts and removes rows |
//! | [`snapshot`] | one walk over all tables: encode, load, digest |
//! | [`restore`] | another version replaces the state, and what was revoked stays revoked |
//! | [`class`](mod@class) | the commands that revoke or restrict something |
//! | `user`, `group`, … | a domain each: its rows, their wire form, one file per command |
//!
//! To add a command: a message in its domain's `.proto`, an arm in `Command.body`, one file here, an arm in `apply`,
//! its test. Callers: `cluster` applies; all other rooms read [`State`] through its queries.
#![warn(missing_docs)]

pub mod access;
pub mod app_password;
pub mod application;
pub mod apply;
pub mod class;
pub mod client;
pub mod consent;
pub mod device;
pub mod event;
pub mod grant;
pub mod group;
pub mod ids;
pub mod key;
pub mod level;
pub mod outbox;
pub mod picture;
pub mod policy;
pub mod pushed;
pub mod reply;
pub mod restore;
pub mod secret;
pub mod session;
pub mod snapshot;
pub mod stamp;
pub mod state;
pub mod system;
pub mod throttle;
pub mod token;
pub mod upstream;
pub mod user;

mod draft;
mod text;

pub use apply::{ApplyResult, Halt, IndexedEntry, apply};
pub use class::{Class, class_of};
pub use event::Event;
pub use reply::{Reason, Refusal, Reply, ReplyBody};
pub use stamp::Stamp;
pub use state::State;
