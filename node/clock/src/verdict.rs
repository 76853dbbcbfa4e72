//! What a node must say of its clocks after it has looked at them.

use crate::Micros;

/// Whether this node's estimate of the cluster clock can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is no estimate yet: too few peers have answered, or their wall clocks disagree.
    Unestablished,
    /// A quorum of estimates is within [`AGREE`](crate::AGREE) of this node's.
    Agreed,
    /// No quorum of estimates is known to agree with this node's: it is cut off, or the members disagree.
    Alone,
}

/// What happened to the estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The first estimate was made.
    Established,
    /// The cluster clock stepped by this much, because a quorum of wall clocks said so for [`HOLD`](crate::HOLD).
    Stepped(Micros),
    /// This node was the odd one and adopted the estimate of the others, which differed by this much.
    Rejoined(Micros),
    /// The members' estimates had drifted apart and were brought together; this node's moved by this much.
    Reconciled(Micros),
}

/// What a node knows of its clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the estimate can be relied on.
    pub standing: Standing,
    /// The own wall clock minus the cluster clock; 0 without an estimate.
    pub wall_offset: Micros,
    /// True if the own wall clock is further than [`WALL_BOUND`](crate::WALL_BOUND) from the cluster clock and no
    /// quorum of wall clocks asks for another time: this machine's clock is the wrong one.
    pub is_wall_off: bool,
    /// The step that a quorum of wall clocks asks for, while it has not lasted for [`HOLD`](crate::HOLD).
    pub pending_step: Option<Micros>,
    /// What happened to the estimate just now.
    pub change: Option<Change>,
}
