//! **The cluster clock**: one time for all nodes, which a wrong wall clock on a minority of them cannot move.
//!
//! Every node keeps an estimate of the cluster's time that runs on its own steady clock (a clock that never jumps). It
//! reads the clocks of its peers once a second, measures the round trip, and corrects the estimate towards the time of
//! a quorum of *wall clocks*: small differences are slewed, large ones are adopted only after they have lasted for
//! [`HOLD`]. So a wall clock that jumps for a few seconds changes nothing, and one that stays wrong is reported and
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
//! This crate is the algorithm alone: readings and times are arguments. The node drives it with its clocks and its
//! network; the tests drive it through clocks that jump, drift, stop and disagree.
//!
//! | module | owns |
//! |---|---|
//! | `reading` | the reply of one peer, as an offset to this node's steady clock |
//! | `quorum` | the largest group of readings that agree |
//! | [`Discipline`] | the estimate: established, slewed, stepped, adopted from the others |
//! | [`ClockVerdict`] | the state of a node's clocks |
#![warn(missing_docs)]

mod discipline;
mod quorum;
mod reading;
mod verdict;

pub use discipline::Discipline;
pub use reading::{ClockAnswer, ClusterReading};
pub use verdict::{ClockChange, ClockVerdict, Standing};

/// A time or a difference of times in microseconds. Wall times count from 1970-01-01 UTC, steady times from an
/// arbitrary point of the machine.
pub type Micros = i64;

/// A member's node id.
pub(crate) type NodeId = u64;

/// One second.
pub const SECOND: Micros = 1_000_000;

/// The largest difference at which clocks agree: far more than a round trip and a second of drift, far less than the
/// shortest lifetime of anything that the cluster issues (a code lives for 60 seconds).
pub const AGREE: Micros = SECOND;

/// The largest difference between a wall clock and the cluster clock before its node reports it: one-time passwords and
/// tokens of other providers tolerate this much.
pub const WALL_BOUND: Micros = 5 * SECOND;

/// The time for which a quorum of wall clocks must agree on a different time before the cluster clock steps to it:
/// longer than a clock that is set by mistake and set back, short enough for a machine that gets its time from the
/// network after its start.
pub const HOLD: Micros = 60 * SECOND;

/// The largest difference between estimates that have drifted apart, or between wall clocks at a start, that is
/// reconciled without an operator. Machines without time synchronisation are seconds apart; a larger difference has
/// another cause.
pub const RECONCILE: Micros = 60 * SECOND;

/// The time for which a peer's reply is used: many polls of one second, so that a busy machine loses nothing by a few
/// late replies.
pub const FRESH: Micros = 30 * SECOND;

/// The most by which the cluster clock is moved in one second to follow the wall clocks: it always runs forward, at
/// most a tenth faster or slower.
pub const SLEW_PER_SECOND: Micros = SECOND / 10;

/// The longest round trip that is accepted as a measurement: half of it is the error.
pub const MAX_ROUND_TRIP: Micros = 2 * SECOND;
