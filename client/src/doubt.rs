//! The certainty about a write after the attempts made so far, and whether there is time for one more. Pure: the caller
//! passes in the results and the remaining time.
//!
//! Two things must not be lost. First, the certainty that nothing happened if every attempt was refused: an attempt
//! that the deadline cuts short would destroy it. Second, the chance to learn the outcome if one attempt may have been
//! carried out: only a response ends that doubt.

use std::time::Duration;

/// The least time that an attempt needs to be refused, beyond the slowest refusal: allows for a busy machine.
const MARGIN: Duration = Duration::from_millis(20);

/// The certainty about a write.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    maybe_done: bool,
    slowest_refusal: Option<Duration>,
}

impl Doubt {
    /// Records that a node answered after `took` that nothing happened.
    pub(crate) fn refused(&mut self, took: Duration) {
        self.slowest_refusal = self.slowest_refusal.max(Some(took));
    }

    /// Records that an attempt was sent and got no response.
    pub(crate) fn lost(&mut self) {
        self.maybe_done = true;
    }

    /// True if an attempt may have been carried out.
    pub(crate) const fn maybe_done(&self) -> bool {
        self.maybe_done
    }

    /// True if another attempt, which gets at most `limit`, should be made with `left` remaining: there must be time
    /// for the next node to refuse as well, even if it takes twice as long as the slowest so far.
    pub(crate) fn allows_another(&self, left: Duration, limit: Duration) -> bool {
        let Some(slowest) = self.slowest_refusal.filter(|_| !self.maybe_done) else { return true };
        left >= slowest.saturating_mul(2).saturating_add(MARGIN).min(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(6);
    const DEADLINE: Duration = Duration::from_secs(10);

    /// Simulates a cluster that holds each attempt for this long and then refuses it. Returns the number of attempts,
    /// and the certainty.
    fn refused_until_the_end(mut doubt: Doubt, held: Duration) -> (u32, Doubt) {
        let (mut left, mut attempts) = (DEADLINE, 0);
        while !left.is_zero() && doubt.allows_another(left, LIMIT) {
            attempts += 1;
            if left < held {
                doubt.lost();
            } else {
                doubt.refused(held);
            }
            left = left.saturating_sub(held);
        }
        (attempts, doubt)
    }

    #[test]
    fn a_write_that_every_node_refused_certainly_did_not_happen_however_long_it_was_held() {
        for held_ms in [1, 7, 130, 300, 999, 1_500, 3_000, 3_400] {
            let (attempts, doubt) = refused_until_the_end(Doubt::default(), Duration::from_millis(held_ms));
            assert!(!doubt.maybe_done(), "held {held_ms} ms");
            assert!(attempts > 1, "one refusal is no reason to give up: held {held_ms} ms");
        }
    }

    #[test]
    fn the_slowest_refusal_counts_and_not_the_last() {
        let mut doubt = Doubt::default();
        doubt.refused(Duration::from_secs(3));
        doubt.refused(Duration::ZERO);
        assert!(!doubt.allows_another(Duration::from_secs(4), LIMIT));
        assert!(doubt.allows_another(LIMIT, LIMIT), "as much as any attempt gets is always enough");
    }

    #[test]
    fn a_write_in_doubt_is_asked_after_to_the_end() {
        let mut doubt = Doubt::default();
        doubt.lost();
        doubt.refused(Duration::from_secs(3));
        assert!(doubt.allows_another(Duration::from_millis(1), LIMIT));
        assert!(doubt.maybe_done(), "a later refusal says nothing about the attempt that was lost");
    }
}
