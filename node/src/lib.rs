//! **Conclave**: a highly available identity cluster in one process.
//!
//! > Protocol slices turn requests into commands; a pure rules crate turns commands into changes; everything between is
//! > plumbing that does not think.
//!
//! # The rooms
//!
//! Product code of a room uses no other room than its row names; a test resolves every path and compares
//! (`node/guards`).
//!
//! | room | owns | uses |
//! |---|---|---|
//! | [`serve`] | the process of a node | `boot`, `config`, `runtime`, `telemetry` |
//! | [`cli`] | the command line, on the client crate | `archive`, `auth`, `boot`, `cluster`, `config`, `crypto`, `demo`, `dr`, `http`, `runtime`, `store` |
//! | [`demo`] | three nodes on one machine, to try | `auth`, `crypto`, `http`, `protocol::forward_auth`, `runtime` |
//! | [`boot`] | composition: the only file that names every slice | `admin`, `archive`, `auth`, `cluster`, `config`, `crypto`, `doors`, `dr`, `health`, `http`, `metrics`, `protocol::atproto`, `protocol::forward_auth`, `protocol::oidc`, `runtime`, `store`, `web` |
//! | `doors` | the listeners of the public ports | `config`, `health`, `http`, `runtime` |
//! | `protocol::oidc` | OpenID Connect and OAuth 2.0 | `auth`, `cluster`, `config`, `crypto`, `http`, `runtime` |
//! | `protocol::forward_auth` | checks for proxies | `auth`, `crypto`, `http` |
//! | `protocol::atproto` | sign-in with Atmosphere | `auth`, `cluster`, `config`, `crypto`, `http`, `runtime`, `telemetry`, `web` |
//! | [`health`] | liveness and readiness | `auth`, `cluster`, `http` |
//! | `metrics` | counters and gauges for Prometheus | `cluster`, `runtime`, `telemetry` |
//! | [`admin`] | the gRPC admin API, one file a resource | `archive`, `auth`, `cluster`, `crypto`, `dr`, `http`, `store`, `text` |
//! | [`dr`] | snapshots, restore, drills | `archive`, `auth`, `cluster`, `config`, `crypto`, `http`, `runtime`, `store` |
//! | [`archive`] | the log and snapshots copied elsewhere, and read back | `cluster`, `config`, `crypto`, `http`, `runtime`, `store` |
//! | [`auth`] | users, sessions, tickets, passwords, throttles, policies, and the sign-in pages, for any protocol | `cluster`, `config`, `crypto`, `http`, `runtime`, `text`, `web` |
//! | [`cluster`] | Raft: the only room that names openraft | `crypto`, `runtime`, `store`, `telemetry` |
//! | [`store`] | the durable log (the only room that names sled), snapshot files, the data directory | `crypto` |
//! | [`web`] | templates and the stylesheet | `crypto`, `http`, `runtime` |
//! | [`config`] | settings from the file and the environment | `crypto`, `http`, `runtime` |
//! | [`telemetry`] | logs, traces and metrics | `config`, `http` |
//! | [`http`] | servers, the edge around every request, outbound requests | `crypto`, `runtime` |
//! | [`crypto`] | keys, handles, seals, passwords | `runtime`, `text` |
//! | [`runtime`], [`text`] | the clock and chance; the form of typed text | |
//!
//! The rules are a crate of their own, `conclave-state`: pure, no I/O, no clock, no chance. So are serve leases
//! (`conclave-lease`) and the evaluation of policies (`conclave-policy`), which [`auth::policy`] feeds with what is
//! known of a request.
//!
//! # Three walks
//!
//! **A login.** A relying party sends the browser to `/oidc/authorize` on node A, which parses the request and asks
//! `auth` what comes next: nobody is signed in, so the request is sealed into a ticket and the browser goes to `/login`
//! with it. Node B opens the ticket and shows the form. Node C gets the password: throttle, argon2id in a bounded pool,
//! then *one* write that spends the ticket, opens the session and issues the code. C forwards it to the leader; the log
//! is on two disks before the leader answers; C waits until its own state has seen that index, sets the cookie and
//! sends the browser home. Cookie and code carry the index, so whichever node sees them next waits for it rather than
//! say "who are you".
//!
//! **A revocation.** `conclave session revoke` reaches any node's admin API; the command travels to the leader and
//! through the log; every node applies it and swaps in the next version of the state. A check loads that version and
//! finds no live session.
//!
//! **A node comes back.** Its data directory says which cluster, which number, which incarnation. Peers that know
//! another incarnation under that number refuse it; the right one loads its latest snapshot and its log, and calls
//! itself ready only when a leader has confirmed that it has seen everything acknowledged before.
//!
//! # Dying
//!
//! `kill -9` is an ordinary way to stop. A leader's death holds writes on the others for as long as an election takes;
//! a retry under the same request id gets the first answer. Ids and secrets of a write are derived from its request id
//! ([`auth::derive`]), so that the retry of a lost answer on another node makes the same cookie.

pub mod admin;
pub mod archive;
pub mod auth;
pub mod boot;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod crypto;
pub mod demo;
mod doors;
pub mod dr;
pub mod health;
pub mod http;
mod metrics;
pub mod protocol;
pub mod runtime;
pub mod serve;
pub mod store;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod web;
