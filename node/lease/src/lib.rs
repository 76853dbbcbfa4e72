//! **Serve leases**: an acknowledged revocation holds on every node, and an ordinary check costs no network hop
//! (docs/design/serve-leases.md). This crate is the protocol alone: plain transitions over explicit times, without I/O,
//! clock or randomness. The node drives it with its clocks and its network; the model checker drives the very same code
//! through every order of events.
//!
//! ```text
//! node:    ask(s, nonce) ──Renew──▶ leader: record(n, now)            first the table,
//!                                   leader: ReadIndex -> R             then the quorum round
//! node:    granted(nonce, R) ◀────── Grant{R, length}
//! node:    activate once applied >= R: checks are covered until s + length
//! leader:  a revocation at index i is acknowledged when the barrier is open: each n in the table has confirmed
//!          applied >= i or can no longer hold a lease, and this process has led for one wait
//! ```
//!
//! **Correctness.** *Under one leader* the record comes before R is read, so a write acknowledged before the record is
//! at or below R, and one acknowledged after it sees the record. *Across leaders* the grant's quorum round began after
//! the record, so the lease's start precedes the new leader's election, and the new leader waits as long as any such
//! lease can last. No vote lease is needed: restarts, transfers, membership changes and the consensus library's own
//! leases do not matter.
//!
//! **Waiting.** A node that knows that a revocation is committed may also acknowledge it after waiting as long as a
//! lease can last: every lease granted from now on requires an index at or above it. So no revocation waits longer,
//! whatever happened to its leader.
//!
//! **Clocks.** A node measures its lease by the clock that ran furthest since, a leader its waiting time by the clock
//! that ran least ([`LeaseClockReading`]); the margin covers the remaining drift between two machines. The one gap is a
//! machine that is paused from outside without any of its clocks noticing; `checks = "quorum"` closes it.
//!
//! | module | owns |
//! |---|---|
//! | `timing` | the duration of a lease, and the time that a leader waits for it |
//! | `clock_reading` | two clocks read at once |
//! | [`Holder`] | a node's side: ask, granted, activate, covers |
//! | [`Table`] | the leader's side: record, confirm, release, barrier |
//! | `mutation` | the known ways to get this wrong, for the tests of the tests |
#![warn(missing_docs)]

mod clock_reading;
mod holder;
mod mutation;
mod table;
mod timing;

pub use clock_reading::LeaseClockReading;
pub use holder::{Holder, Lease, LeaseGrant, Nonce, Pending};
pub use mutation::LeaseMutation;
pub use table::{Barrier, NodeId, Table};
pub use timing::LeaseTiming;
