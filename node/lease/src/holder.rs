//! A node's side of its lease. It is kept in memory only: a restarted process has requested nothing and holds nothing.

use std::{collections::VecDeque, time::Duration};

use crate::{clock_reading::LeaseClockReading, mutation::LeaseMutation};

/// Identifies one lease request of one process. Drawn at random, so that no reply to an earlier process matches.
pub type Nonce = u64;

/// Lease requests remembered at once: two renewals a second, each with a timeout of a fraction of that.
const MAX_ASKED: usize = 8;

/// A granted lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseGrant {
    /// The index that a check's state must include: the leader's ReadIndex, read after the node was recorded.
    pub index: u64,
    /// Longest duration of the lease, from the time of the request.
    pub length: Duration,
}

/// A grant that waits until this node has applied its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    lease: Lease,
}

impl Pending {
    /// The index that must be applied first.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.lease.min_index
    }
}

/// The right to accept without contacting the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The time of the request: the leader had not received it yet.
    pub since: LeaseClockReading,
    /// Its duration from then on.
    pub length: Duration,
    /// The index that the state of a check must include.
    pub min_index: u64,
    mutation: LeaseMutation,
}

impl Lease {
    /// A lease without duration that covers nothing: it only records the last confirmed index and its time.
    #[must_use]
    pub const fn lapsed(since: LeaseClockReading, min_index: u64) -> Self {
        Self { since, length: Duration::ZERO, min_index, mutation: LeaseMutation::None }
    }

    /// True if a decision on a state of `index` may be accepted now.
    #[must_use]
    pub fn covers(&self, now: LeaseClockReading, index: u64) -> bool {
        index >= self.min_index && self.mutation.held_for(self.since, now) < self.length
    }
}

/// The node's side: its pending requests and its lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holder {
    asked: VecDeque<(Nonce, LeaseClockReading)>,
    lease: Option<Lease>,
    stopped: bool,
    mutation: LeaseMutation,
}

impl Holder {
    /// A holder with a known bug.
    #[must_use]
    pub fn with(mutation: LeaseMutation) -> Self {
        Self { mutation, ..Self::default() }
    }

    /// Records a request before it is sent. If there are too many, the oldest is forgotten: its reply will not be
    /// accepted.
    pub fn ask(&mut self, nonce: Nonce, now: LeaseClockReading) {
        if self.asked.len() == MAX_ASKED {
            self.asked.pop_front();
        }
        self.asked.push_back((nonce, now));
    }

    /// Accepts a reply, if this process sent the request and has not stopped serving. The lease starts at the request,
    /// not now.
    pub fn granted(&mut self, nonce: Nonce, grant: LeaseGrant, now: LeaseClockReading) -> Option<Pending> {
        let place = self.asked.iter().position(|(asked, _)| *asked == nonce);
        let since = match place.and_then(|place| self.asked.remove(place)) {
            Some((_, since)) => since,
            None if self.mutation.accepts_stale_grant() => now,
            None => return None,
        };
        let since = if self.mutation.counts_from_reply() { now } else { since };
        let mutation = self.mutation;
        let lease = Lease { since, length: grant.length, min_index: grant.index, mutation };
        (!self.stopped).then_some(Pending { lease })
    }

    /// Puts the lease in force once `applied` has reached its index. Returns the lease that is now in force, or none if
    /// there is none yet.
    pub fn activate(&mut self, pending: Pending, applied: u64) -> Option<Lease> {
        let mut lease = pending.lease;
        if self.stopped || (applied < lease.min_index && !self.mutation.activates_early()) {
            return None;
        }
        if self.mutation.activates_early() {
            lease.min_index = 0;
        }
        // Replies may overtake each other: the later request gives the longer lease, and the highest index remains
        // required.
        if let Some(held) = self.lease {
            lease.min_index = lease.min_index.max(held.min_index);
            if held.since > lease.since {
                lease = Lease { min_index: lease.min_index, ..held };
            }
        }
        self.lease = Some(lease);
        self.lease
    }

    /// The lease in force, or the last one: check it with [`Lease::covers`].
    #[must_use]
    pub const fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// Gives up every lease for good: this process no longer serves. Only then may it send the release to the leader.
    pub fn stop(&mut self) {
        self.lease = None;
        self.asked.clear();
        self.stopped = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(2);

    fn at(ms: u64) -> LeaseClockReading {
        LeaseClockReading { boot: Duration::from_millis(ms), raw: Duration::from_millis(ms) }
    }

    fn grant(index: u64) -> LeaseGrant {
        LeaseGrant { index, length: LENGTH }
    }

    #[test]
    fn a_lease_counts_from_the_question_and_only_for_what_it_asks_for() {
        let mut holder = Holder::default();
        holder.ask(7, at(1_000));
        let pending = holder.granted(7, grant(5), at(1_900)).unwrap();
        assert_eq!(holder.activate(pending, 4), None, "not before it is applied");
        let lease = holder.activate(pending, 5).unwrap();
        assert!(lease.covers(at(2_999), 5));
        assert!(!lease.covers(at(3_000), 5), "counted from the request");
        assert!(!lease.covers(at(2_000), 4), "a check on an older state");
    }

    #[test]
    fn only_answers_to_questions_of_this_process_count_and_each_once() {
        let mut holder = Holder::default();
        assert_eq!(holder.granted(7, grant(5), at(0)), None, "never requested");
        holder.ask(7, at(0));
        assert!(holder.granted(7, grant(5), at(1)).is_some());
        assert_eq!(holder.granted(7, grant(5), at(2)), None, "answered before");
        for nonce in 10..19 {
            holder.ask(nonce, at(3));
        }
        assert_eq!(holder.granted(10, grant(5), at(4)), None, "the oldest of too many is forgotten");
        assert!(holder.granted(11, grant(5), at(4)).is_some());
    }

    #[test]
    fn answers_that_overtake_each_other_leave_the_longer_lease_and_the_higher_index() {
        let mut holder = Holder::default();
        holder.ask(1, at(0));
        holder.ask(2, at(400));
        let late = holder.granted(2, grant(5), at(500)).unwrap();
        let early = holder.granted(1, grant(6), at(600)).unwrap();
        holder.activate(late, 6);
        let lease = holder.activate(early, 6).unwrap();
        assert_eq!((lease.since, lease.min_index), (at(400), 6));
    }

    #[test]
    fn who_has_stopped_takes_nothing_more() {
        let mut holder = Holder::default();
        holder.ask(1, at(0));
        let pending = holder.granted(1, grant(5), at(1)).unwrap();
        holder.ask(2, at(2));
        holder.stop();
        assert_eq!(holder.activate(pending, 9), None);
        assert_eq!(holder.granted(2, grant(5), at(3)), None);
        assert_eq!(holder.lease(), None);
    }
}
