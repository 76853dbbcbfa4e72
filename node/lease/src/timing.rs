//! The duration of leases: equal on every node, because it is a replicated value and not a setting of one machine.

use std::time::Duration;

/// Length of a lease, and the margin for clock drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseTiming {
    /// Longest time that a node may serve after its request, by its own clock.
    pub length: Duration,
    /// Additional time that a leader waits, in thousandths of the length.
    pub margin_permille: u32,
}

impl LeaseTiming {
    /// Two seconds, and a tenth as margin (docs/design/serve-leases.md).
    pub const DEFAULT: Self = Self { length: Duration::from_secs(2), margin_permille: 100 };

    /// The time that a leader must wait until a lease that it or an earlier leader has granted has certainly expired.
    #[must_use]
    pub fn wait(self) -> Duration {
        self.length + self.length * self.margin_permille / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_waits_longer_than_the_node_serves() {
        assert_eq!(LeaseTiming::DEFAULT.wait(), Duration::from_millis(2_200));
    }
}
