//! The state of a node's clocks after an evaluation.

use crate::Micros;

/// The reliability of this node's estimate of the cluster clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is no estimate yet: too few peers have answered, or their wall clocks disagree.
    Unestablished,
    /// A quorum of estimates is within [`AGREE`](crate::AGREE) of this node's.
    Agreed,
    /// No quorum of estimates is known to agree with this node's: it is partitioned, or the members disagree.
    Alone,
}

/// A change of the estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockChange {
    /// The first estimate was made.
    Established,
    /// The cluster clock stepped by this much, because a quorum of wall clocks agreed on it for [`HOLD`](crate::HOLD).
    Stepped(Micros),
    /// This node alone differed and adopted the estimate of the others, which differed by this much.
    Rejoined(Micros),
    /// The members' estimates had drifted apart and were reconciled; this node's moved by this much.
    Reconciled(Micros),
}

/// The state of a node's clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockVerdict {
    /// The reliability of the estimate.
    pub standing: Standing,
    /// This node's wall clock minus the cluster clock; 0 without an estimate.
    pub wall_offset: Micros,
    /// True if this node's wall clock is further than [`WALL_BOUND`](crate::WALL_BOUND) from the cluster clock and no
    /// quorum of wall clocks requests another time: this machine's clock is wrong.
    pub is_wall_off: bool,
    /// The step that a quorum of wall clocks requests, while it has not lasted for [`HOLD`](crate::HOLD).
    pub pending_step: Option<Micros>,
    /// The change that was just made.
    pub change: Option<ClockChange>,
}
