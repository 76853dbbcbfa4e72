//! How long leases last. The same on every node: a replicated value, never a setting of one machine.

use std::time::Duration;

/// Length of a lease and the margin for clocks that drift apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// How long a node may serve after it asked, by its own clock.
    pub length: Duration,
    /// How much longer a leader waits, in thousandths of the length.
    pub margin_permille: u32,
}

impl Terms {
    /// Two seconds and a tenth (design.md §6).
    pub const DEFAULT: Self = Self { length: Duration::from_secs(2), margin_permille: 100 };

    /// How long a leader must wait until a lease it has granted, or another leader before it, is over for certain.
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
        assert_eq!(Terms::DEFAULT.wait(), Duration::from_millis(2_200));
    }
}
