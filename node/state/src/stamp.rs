//! Log time: the leader's clock as recorded in the log. An entry never moves it back, and moves it forward by a bounded
//! step only (docs/design/rules.md); only `SetClock` moves it further.

use std::fmt;

/// The furthest that one entry moves log time, in milliseconds. After a longer silence the leader first sets log time,
/// once a quorum of clocks agrees; so an entry with a wrong stamp does not end what lives for longer than this.
pub const MAX_STEP_MS: u64 = 3_600_000;

/// Milliseconds since the Unix epoch, as stamped by a leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// This time plus a length; saturates instead of overflowing.
    #[must_use]
    pub const fn plus_ms(self, length_ms: u64) -> Self {
        Self(self.0.saturating_add(length_ms))
    }

    /// True if something that ends at this time has ended at `now`.
    pub fn is_over_at(self, now: Self) -> bool {
        now >= self
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}
