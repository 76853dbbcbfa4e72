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
//! | [`serve`] | the process of a node | `base`, `boot`, `config`, `telemetry` |
//! | [`cli`] | the command line, on the client crate | `archive`, `auth`, `base`, `boot`, `client`, `cluster`, `config`, `crypto`, `demo`, `dr`, `http`, `state`, `store` |
//! | [`demo`] | three nodes on one machine, to try | `auth`, `base`, `client`, `crypto`, `http`, `protocol::forward_auth`, `state` |
//! | [`boot`] | composition: the only file that names every slice | `admin`, `archive`, `auth`, `base`, `cluster`, `config`, `crypto`, `doors`, `dr`, `health`, `http`, `metrics`, `protocol::atproto`, `protocol::forward_auth`, `protocol::oidc`, `store`, `web` |
//! | `doors` | the listeners of the public ports | `base`, `config`, `health`, `http` |
//! | `protocol::oidc` | OpenID Connect and OAuth 2.0 | `auth`, `base`, `cluster`, `config`, `crypto`, `http`, `proto`, `state` |
//! | `protocol::forward_auth` | checks for proxies | `auth`, `crypto`, `http`, `proto`, `state` |
//! | `protocol::atproto` | sign-in with Atmosphere | `auth`, `base`, `cluster`, `config`, `crypto`, `http`, `proto`, `state`, `web` |
//! | [`health`] | liveness and readiness | `auth`, `cluster`, `http` |
//! | `metrics` | counters and gauges for Prometheus | `base`, `cluster`, `telemetry` |
//! | [`admin`] | the gRPC admin API, one file a resource | `archive`, `auth`, `base`, `cluster`, `crypto`, `dr`, `http`, `policy`, `proto`, `state`, `store` |
//! | [`dr`] | snapshots, restore, drills | `archive`, `auth`, `base`, `cluster`, `config`, `crypto`, `http`, `proto`, `state`, `store` |
//! | [`archive`] | the log and snapshots copied elsewhere, and read back | `base`, `cluster`, `config`, `crypto`, `http`, `proto`, `state`, `store` |
//! | [`auth`] | users, sessions, tickets, passwords, throttles, policies, and the sign-in pages, for any protocol | `base`, `cluster`, `config`, `crypto`, `http`, `policy`, `proto`, `state`, `web` |
//! | `cluster` | Raft: the only room that names openraft | `base`, `clock`, `crypto`, `lease`, `proto`, `state`, `store` |
//! | `store` | the durable log (the only room that names sled), snapshot files, the data directory | `crypto` |
//! | [`web`] | templates and the stylesheet | `base`, `crypto`, `http` |
//! | `config` | settings from the file and the environment | `base`, `crypto`, `policy` |
//! | [`telemetry`] | logs, traces and metrics | `config`, `http`, `proto` |
//! | `http` | servers, the edge around every request, outbound requests | `base`, `crypto`, `policy` |
//! | `crypto` | keys, handles, seals, passwords | `base` |
//! | `base` | time, randomness, typed text, trace context | `lease` |
//! | `state` | the rules: pure, no I/O, no clock, no randomness | `proto` |
//! | `lease` | serve leases, pure | |
//! | `policy` | the evaluation of policies, pure | |
//! | `clock` | the cluster clock, pure | |
//! | `proto` | the wire: protobuf and gRPC | |
//! | `client` | the client of the admin API | |
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
pub mod demo;
mod doors;
pub mod dr;
pub mod health;
mod metrics;
pub mod protocol;
pub mod serve;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod web;
