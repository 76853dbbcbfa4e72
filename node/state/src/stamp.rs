//! Log time: the leader's clock as the log knows it. It never runs back (design.md §3).

use std::fmt;

/// Milliseconds since the Unix epoch, as stamped by a leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// This time plus a length, without overflow: the far future stays the far future.
    #[must_use]
    pub const fn plus_ms(self, length_ms: u64) -> Self {
        Self(self.0.saturating_add(length_ms))
    }

    /// Whether a thing that ends at this time is over at `now`.
    pub fn is_over_at(self, now: Self) -> bool {
        now >= self
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}
