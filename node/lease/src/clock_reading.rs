//! Two clocks read at once, so that neither a suspended machine nor a slewed clock makes a lease longer than it was
//! granted.

use std::time::Duration;

/// A reading of this machine's two clocks, which have different origins. Readings of different machines, or of
/// different boots, cannot be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseClockReading {
    /// `CLOCK_BOOTTIME`: continues while the machine is suspended, but may be slewed by NTP.
    pub boot: Duration,
    /// `CLOCK_MONOTONIC_RAW`: never slewed, but stops while the machine is suspended.
    pub raw: Duration,
}

impl LeaseClockReading {
    /// The most time that may have passed since: the value that a node uses for its own lease.
    #[must_use]
    pub fn most_since(self, earlier: Self) -> Duration {
        self.boot.saturating_sub(earlier.boot).max(self.raw.saturating_sub(earlier.raw))
    }

    /// The least time that has passed since: the value that a leader uses for another node's lease.
    #[must_use]
    pub fn least_since(self, earlier: Self) -> Duration {
        self.boot.saturating_sub(earlier.boot).min(self.raw.saturating_sub(earlier.raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspended_machine_ages_as_a_holder_and_not_as_a_leader() {
        let before = LeaseClockReading { boot: Duration::from_secs(10), raw: Duration::from_secs(7) };
        let after = LeaseClockReading { boot: Duration::from_secs(70), raw: Duration::from_secs(8) };
        assert_eq!(after.most_since(before), Duration::from_mins(1));
        assert_eq!(after.least_since(before), Duration::from_secs(1));
    }
}
