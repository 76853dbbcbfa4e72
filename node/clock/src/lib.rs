//! **The cluster clock**: one time for all nodes, which a wrong wall clock on a minority of them cannot move.
//!
//! Every node keeps an estimate of the cluster's time that runs on its own steady clock (a clock that never jumps). It
//! reads the clocks of its peers once a second, with the round trip known, and corrects the estimate by what a quorum
//! of *wall clocks* says: small differences are slewed, large ones are adopted only after they have lasted for
//! [`HOLD`]. A wall clock that leaps for a few seconds therefore changes nothing, and one that stays wrong is named and
//! outvoted.
//!
//! ```text
//! own wall clock ─┐
//! peer wall clock ├─ quorum within AGREE? ──▶ target ──▶ |target − estimate| ≤ AGREE: slew, at most SLEW
//! peer wall clock ┘                                     larger for HOLD: step, and count the step
//! peer estimates ──── quorum agrees without this node? ─▶ this node is the odd one: it adopts theirs
//! ```
//!
//! The leader may stamp a log entry only while a quorum of estimates is within [`AGREE`] of its own
//! ([`Standing::Agreed`]).
//!
//! This crate is the algorithm alone: readings and times come in as arguments. The node drives it with its clocks and
//! its wire; the tests drive it through clocks that jump, drift, stop and disagree.
//!
//! | module | owns |
//! |---|---|
//! | `reading` | what one peer said, as an offset to this node's steady clock |
//! | `quorum` | the largest group of readings that agree |
//! | [`Discipline`] | the estimate: established, slewed, stepped, adopted from the others |
//! | [`Verdict`] | what a node must say of its clocks |
#![warn(missing_docs)]

mod discipline;
mod quorum;
mod reading;
mod verdict;

pub use discipline::Discipline;
pub use reading::{Answer, ClusterReading};
pub use verdict::{Change, Standing, Verdict};

/// A time or a difference of times in microseconds. Wall times count from 1970-01-01 UTC, steady times from a point of
/// the machine.
pub type Micros = i64;

/// A member's number.
pub type NodeId = u64;

/// One second.
pub const SECOND: Micros = 1_000_000;

/// How far clocks may be apart and still agree: far more than a round trip and a second of drift, far less than the
/// shortest life of anything that the cluster hands out (a code lives for 60 seconds).
pub const AGREE: Micros = SECOND;

/// How far a wall clock may be from the cluster clock before its node is called off: what one-time passwords and tokens
/// of other providers tolerate without trouble.
pub const WALL_BOUND: Micros = 5 * SECOND;

/// How long a quorum of wall clocks must say the same other time before the cluster clock steps to it: longer than a
/// clock that is set by mistake and set back, short enough for a machine that gets its time from the network after its
/// start.
pub const HOLD: Micros = 60 * SECOND;

/// How far estimates may have drifted apart, or wall clocks be apart at a start, and still be brought together without
/// an operator. Machines without time synchronisation are seconds apart; what is further apart than this has another
/// cause.
pub const RECONCILE: Micros = 60 * SECOND;

/// How long an answer of a peer is believed: many polls of one second, so that a busy machine loses nothing by a few
/// late answers.
pub const FRESH: Micros = 30 * SECOND;

/// How far the cluster clock is moved in one second to follow the wall clocks: it always runs forward, at a tenth
/// faster or slower.
pub const SLEW_PER_SECOND: Micros = SECOND / 10;

/// The longest round trip that is a measurement: half of it is the error.
pub const MAX_ROUND_TRIP: Micros = 2 * SECOND;
