//! One peer's reply, kept as offsets to this node's steady clock.

use crate::{MAX_ROUND_TRIP, Micros, SECOND};

/// The time for which a precise reading is kept although newer, less precise ones arrived.
const KEEP_PRECISE: Micros = 5 * SECOND;

/// The clocks of a node at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockAnswer {
    /// The node's wall clock.
    pub wall: Micros,
    /// The node's estimate of the cluster clock, if it has one.
    pub cluster: Option<ClusterReading>,
}

/// A node's estimate of the cluster clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterReading {
    /// The cluster time as Unix time.
    pub at: Micros,
    /// The number of steps of the cluster clock, as far as that node knows.
    pub steps: u64,
}

/// A reply, relative to this node's steady clock at the middle of the round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The peer's wall clock minus this node's steady clock.
    pub(crate) wall: Micros,
    /// The peer's cluster clock minus this node's steady clock, and its number of steps.
    pub(crate) cluster: Option<(Micros, u64)>,
    /// Half of the round trip.
    pub(crate) error: Micros,
    /// The arrival time of the reply, by this node's steady clock.
    pub(crate) received: Micros,
}

impl Reading {
    /// Converts a reply. `None` if the round trip was too long, or is impossible.
    pub(crate) fn of(answer: ClockAnswer, sent: Micros, received: Micros) -> Option<Self> {
        let round_trip = received.checked_sub(sent).filter(|time| (0..=MAX_ROUND_TRIP).contains(time))?;
        let middle = sent.checked_add(round_trip / 2)?;
        let cluster = match answer.cluster {
            Some(reading) => Some((reading.at.checked_sub(middle)?, reading.steps)),
            None => None,
        };
        Some(Self { wall: answer.wall.checked_sub(middle)?, cluster, error: round_trip / 2, received })
    }

    /// True if this reading replaces `before`: it differs from it, is as precise, or `before` is old.
    pub(crate) fn replaces(&self, before: &Self) -> bool {
        let differs = self.cluster.map(|(_, steps)| steps) != before.cluster.map(|(_, steps)| steps)
            || (self.wall - before.wall).abs() > self.error + before.error;
        differs || self.error <= before.error * 2 || self.received - before.received > KEEP_PRECISE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_placed_in_the_middle_of_its_round_trip() {
        let answer =
            ClockAnswer { wall: 1_000_000, cluster: Some(ClusterReading { at: 1_000_500, steps: 2 }) };
        let reading = Reading::of(answer, 100, 300).unwrap();
        assert_eq!(
            reading,
            Reading { wall: 999_800, cluster: Some((1_000_300, 2)), error: 100, received: 300 }
        );
    }

    #[test]
    fn a_round_trip_that_is_too_long_or_runs_back_is_not_a_measurement() {
        let answer = ClockAnswer { wall: 1_000_000, cluster: None };
        assert_eq!(Reading::of(answer, 0, MAX_ROUND_TRIP + 1), None);
        assert_eq!(Reading::of(answer, 10, 9), None);
        assert_eq!(Reading::of(ClockAnswer { wall: Micros::MIN, cluster: None }, 100, 300), None);
    }
}
