//! **Conclave**: a highly available identity cluster in one process.
//!
//! > Protocol slices turn requests into commands; a pure rules crate turns commands into changes; everything between is
//! > plumbing that does not think.
//!
//! # The rooms
//!
//! A room is a crate below `node/` (a slice: below `node/protocol/`) or, from `serve` to `telemetry`, a module of this
//! crate. Product code of a room uses no other room than its row names. Cargo's manifests hold the crates to it, and a
//! test resolves every path and compares (`node/guards`). `deny.toml` keeps heavy libraries in the one crate that may
//! name them.
//!
//! | room | owns | uses |
//! |---|---|---|
//! | [`serve`] | the process of a node | `base`, `boot`, `config`, `telemetry` |
//! | [`cli`] | the command line, over the client crate | `archive`, `auth`, `base`, `boot`, `client`, `cluster`, `config`, `crypto`, `demo`, `dr`, `http`, `state`, `store` |
//! | [`demo`] | three nodes on one machine, to try | `auth`, `base`, `client`, `crypto`, `forward_auth`, `http`, `state` |
//! | [`boot`] | composition: the only file that names every slice | `admin`, `archive`, `atproto`, `auth`, `base`, `cluster`, `config`, `crypto`, `listeners`, `dr`, `forward_auth`, `health`, `http`, `metrics`, `oidc`, `store`, `web` |
//! | `listeners` | the listeners of the public ports | `base`, `config`, `health`, `http` |
//! | [`health`] | liveness and readiness | `auth`, `cluster`, `http` |
//! | `metrics` | counters and gauges for Prometheus | `base`, `cluster`, `telemetry` |
//! | [`telemetry`] | logs, traces and metrics | `config`, `http`, `proto` |
//! | `admin` | the gRPC admin API, one file a resource | `archive`, `auth`, `base`, `cluster`, `crypto`, `dr`, `http`, `policy`, `proto`, `state`, `store` |
//! | `dr` | snapshots, restore, drills | `archive`, `auth`, `base`, `cluster`, `config`, `crypto`, `http`, `proto`, `state`, `store` |
//! | `oidc` | OpenID Connect and OAuth 2.0 | `auth`, `base`, `cluster`, `config`, `crypto`, `http`, `proto`, `state`, `web` |
//! | `forward_auth` | checks for proxies | `auth`, `crypto`, `http`, `proto`, `state`, `web` |
//! | `atproto` | sign-in with Atmosphere; alone names image and hickory | `auth`, `base`, `cluster`, `config`, `crypto`, `http`, `proto`, `state`, `web` |
//! | `web` | the sign-in pages, templates and the stylesheet | `auth`, `base`, `crypto`, `http`, `proto`, `state` |
//! | `archive` | copies of the log and of snapshots elsewhere, and reading them back; alone names object_store | `base`, `cluster`, `config`, `crypto`, `http`, `proto`, `state`, `store` |
//! | `auth` | users, sessions, tickets, passwords, throttles, policies and keys, for any protocol; knows no axum | `base`, `cluster`, `config`, `crypto`, `http`, `policy`, `proto`, `state` |
//! | `cluster` | Raft, serve leases and the cluster plane; alone names openraft | `base`, `clock`, `crypto`, `lease`, `proto`, `state`, `store` |
//! | `http` | listeners, the edge around every request, outbound requests | `base`, `crypto`, `policy` |
//! | `store` | the durable log, snapshot files, the data directory; alone names sled | `crypto` |
//! | `config` | settings from the file and the environment | `base`, `crypto`, `policy` |
//! | `crypto` | keys, handles, seals, passwords, certificates; alone names aws-lc and argon2 | `base` |
//! | `base` | time, randomness, typed text, trace context | `lease` |
//! | `client` | the client of the admin API | |
//! | `state` | the rules: pure, no I/O, no clock, no randomness | `proto` |
//! | `policy` | the evaluation of policies, pure | |
//! | `lease` | serve leases, pure | |
//! | `clock` | the cluster clock, pure | |
//! | `proto` | the wire: protobuf and gRPC | |
//!
//! The rules are a separate crate, `conclave-state`: pure, with no I/O, clock or randomness. So are serve leases
//! (`conclave-lease`) and the evaluation of policies (`conclave-policy`), to which [`conclave_auth::policy`] passes the
//! facts of a request.
//!
//! # Three examples
//!
//! **A login.** A relying party sends the browser to `/oidc/authorize` on node A. The node parses the request and asks
//! `auth` for the next step: the user is not signed in, so the request is sealed into a ticket and the browser is
//! redirected to `/login` with it. Node B opens the ticket and shows the form. Node C receives the password: throttle,
//! argon2id in a bounded pool, then *one* write that spends the ticket, opens the session and issues the code. C
//! forwards it to the leader, and the log is on two disks before the leader answers. C waits until its own state has
//! seen that index, sets the cookie and redirects the browser back to the relying party. Cookie and code contain the
//! index, so any node that receives them next waits for it and does not show the login form again.
//!
//! **A revocation.** `conclave session revoke` reaches any node's admin API. The command is forwarded to the leader and
//! written to the log; every node applies it and swaps in the next version of the state. A check loads that version and
//! finds no live session.
//!
//! **A node restarts.** Its data directory contains the cluster id, the node id and the incarnation. Peers that know
//! another incarnation with that id refuse it. Otherwise it loads its latest snapshot and its log, and reports itself
//! ready only when a leader has confirmed that it has seen everything acknowledged before.
//!
//! # Crashes
//!
//! `kill -9` is an ordinary way to stop. After a leader's death the other nodes hold writes for as long as an election
//! takes. A retry under an equal request id gets the first reply. Ids and secrets of a write are derived from its
//! request id ([`conclave_auth::write_key`]), so that a retry on another node, after a lost response, makes an equal
//! cookie.

pub mod boot;
pub mod cli;
pub mod demo;
pub mod health;
mod listeners;
mod metrics;
pub mod serve;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
