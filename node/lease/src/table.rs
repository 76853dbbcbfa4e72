//! The leader's side: the nodes that may hold a lease, and the barrier that a revocation waits for.
//!
//! There is one table a process, kept through its leaderships: entries in excess only make it wait. A new process knows
//! nothing of its predecessor's grants, and a new leader nothing of the former leader's; both wait.

use std::{collections::BTreeMap, time::Duration};

use crate::{clock_reading::LeaseClockReading, mutation::LeaseMutation, timing::LeaseTiming};

/// A cluster member's number: 1.. as configured, never reused (docs/design/consensus.md).
pub type NodeId = u64;

/// A possible lease of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Holding {
    recorded: LeaseClockReading,
    wait: Duration,
}

/// The state of a revocation's barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// No check that starts from now on can miss the revocation.
    Open,
    /// Not open yet: check again at the next confirmation, and after this time at the latest.
    Wait {
        /// Time until it opens by itself.
        at_most: Duration,
        /// The nodes that it waits for; empty if this process has not led for long enough.
        on: Vec<NodeId>,
    },
}

/// The leader's side of all leases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Table {
    /// The latest term that this process has led, and the time since which it has.
    led: Option<(u64, LeaseClockReading)>,
    /// Keyed by node and process: a late release or request of an earlier process must not affect the lease of a later
    /// one.
    holders: BTreeMap<(NodeId, u64), Holding>,
    /// The highest index that each node reported as applied.
    confirmed: BTreeMap<NodeId, u64>,
    mutation: LeaseMutation,
}

impl Table {
    /// A table with a known bug.
    #[must_use]
    pub fn with(mutation: LeaseMutation) -> Self {
        Self { mutation, ..Self::default() }
    }

    /// Records that this process leads `term`, as seen now. Repeated for the same term it changes nothing; a late call
    /// only makes the wait longer.
    pub fn lead(&mut self, term: u64, now: LeaseClockReading) {
        if self.led.is_none_or(|(led, _)| led < term) {
            self.led = Some((term, now));
        }
    }

    /// Records that `node` may hold a lease from now on. Must be called *before* the quorum round of its grant.
    pub fn record(&mut self, node: NodeId, process: u64, terms: LeaseTiming, now: LeaseClockReading) {
        let mutation = self.mutation;
        self.holders.retain(|_, held| remaining(held, mutation, now) > Duration::ZERO);
        let new = Holding { recorded: now, wait: self.mutation.wait(terms) };
        let held = self.holders.entry((node, process)).or_insert(new);
        // The terms may have been shortened since: the longer remaining time is kept.
        if remaining(held, mutation, now) <= new.wait {
            *held = new;
        }
    }

    /// Records that `node` has applied everything up to `index`, and that its checks see it.
    pub fn confirm(&mut self, node: NodeId, index: u64) {
        let confirmed = self.confirmed.entry(node).or_insert(index);
        *confirmed = index.max(*confirmed);
    }

    /// Records that `node` has stopped serving: this process of it neither holds nor will accept a lease.
    pub fn release(&mut self, node: NodeId, process: u64) {
        self.holders.remove(&(node, process));
    }

    /// Forgets the confirmations of nodes that are no longer members, so that the table stays as small as the cluster.
    pub fn keep(&mut self, members: impl Fn(NodeId) -> bool) {
        self.confirmed.retain(|node, _| members(*node));
    }

    /// Returns whether the revocation at `index`, written by this process in `term`, may be acknowledged now.
    pub fn barrier(&mut self, term: u64, index: u64, terms: LeaseTiming, now: LeaseClockReading) -> Barrier {
        if !self.mutation.acks_outside_term() {
            self.lead(term, now);
        }
        let wait = self.mutation.wait(terms);
        let since_led = match self.led {
            Some((_, since)) if !self.mutation.skips_new_leader_wait() => {
                wait.saturating_sub(self.mutation.waited(since, now))
            }
            _ => Duration::ZERO,
        };
        let open = |((node, _), held): (&(NodeId, u64), &Holding)| {
            let behind = self.confirmed.get(node).is_none_or(|confirmed| *confirmed < index);
            (behind && !self.mutation.ignores_table()).then(|| (*node, remaining(held, self.mutation, now)))
        };
        let missing: Vec<_> =
            self.holders.iter().filter_map(open).filter(|(_, left)| *left > Duration::ZERO).collect();
        let longest = missing.iter().map(|(_, left)| *left).max().unwrap_or_default();
        let at_most = longest.max(since_led);
        if at_most == Duration::ZERO {
            return Barrier::Open;
        }
        Barrier::Wait { at_most, on: missing.into_iter().map(|(node, _)| node).collect() }
    }

    /// The nodes that may hold a lease, and the remaining time of each.
    pub fn holders(&self, now: LeaseClockReading) -> impl Iterator<Item = (NodeId, Duration)> + '_ {
        self.holders.iter().map(move |((node, _), held)| (*node, remaining(held, self.mutation, now)))
    }

    /// The term that this process leads and the time since which it does, if it has led.
    #[must_use]
    pub const fn led(&self) -> Option<(u64, LeaseClockReading)> {
        self.led
    }
}

fn remaining(held: &Holding, mutation: LeaseMutation, now: LeaseClockReading) -> Duration {
    held.wait.saturating_sub(mutation.waited(held.recorded, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: LeaseTiming = LeaseTiming::DEFAULT;

    fn at(ms: u64) -> LeaseClockReading {
        LeaseClockReading { boot: Duration::from_millis(ms), raw: Duration::from_millis(ms) }
    }

    /// A table that has led term 3 for long enough.
    fn settled() -> Table {
        let mut table = Table::default();
        table.lead(3, at(0));
        table
    }

    #[test]
    fn a_revocation_waits_for_each_holder_to_confirm_or_to_lapse() {
        let mut table = settled();
        table.record(1, 11, TERMS, at(10_000));
        table.record(2, 22, TERMS, at(10_400));
        let wait = |ms, on: &[u64]| Barrier::Wait { at_most: Duration::from_millis(ms), on: on.to_vec() };
        assert_eq!(table.barrier(3, 9, TERMS, at(10_500)), wait(2_100, &[1, 2]));
        table.confirm(1, 9);
        table.confirm(2, 8);
        assert_eq!(table.barrier(3, 9, TERMS, at(10_500)), wait(2_100, &[2]));
        assert_eq!(table.barrier(3, 9, TERMS, at(12_599)), wait(1, &[2]));
        assert_eq!(table.barrier(3, 9, TERMS, at(12_600)), Barrier::Open, "the lease has expired");
        assert_eq!(table.barrier(3, 8, TERMS, at(10_500)), Barrier::Open, "an earlier one");
    }

    #[test]
    fn a_new_leader_waits_for_the_leases_of_the_one_before() {
        let mut table = settled();
        let first = table.barrier(4, 9, TERMS, at(50_000));
        assert_eq!(first, Barrier::Wait { at_most: TERMS.wait(), on: vec![] }, "first seen leading just now");
        table.lead(4, at(51_000));
        assert_eq!(table.barrier(4, 9, TERMS, at(52_200)), Barrier::Open, "since it was first seen");
    }

    #[test]
    fn a_farewell_counts_for_its_own_process_alone() {
        let mut table = settled();
        table.record(1, 11, TERMS, at(10_000));
        table.record(1, 12, TERMS, at(10_100));
        // A late request of the first process, and then its release.
        table.record(1, 11, TERMS, at(10_150));
        table.release(1, 11);
        assert_ne!(table.barrier(3, 9, TERMS, at(10_200)), Barrier::Open, "the new process holds a lease");
        table.release(1, 12);
        assert_eq!(table.barrier(3, 9, TERMS, at(10_200)), Barrier::Open);
    }

    #[test]
    fn a_lease_of_longer_terms_is_waited_for_though_the_terms_have_become_shorter() {
        let mut table = settled();
        let long = LeaseTiming { length: Duration::from_secs(10), ..TERMS };
        table.record(1, 11, long, at(10_000));
        table.record(1, 11, TERMS, at(10_400));
        let left = Duration::from_millis(10_600);
        assert_eq!(table.barrier(3, 9, TERMS, at(10_400)), Barrier::Wait { at_most: left, on: vec![1] });
    }

    #[test]
    fn who_has_lapsed_or_left_is_forgotten() {
        let mut table = settled();
        table.record(1, 11, TERMS, at(10_000));
        table.confirm(1, 5);
        table.record(2, 22, TERMS, at(13_000));
        table.keep(|node| node == 2);
        assert_eq!(table.holders(at(13_000)).collect::<Vec<_>>(), [(2, TERMS.wait())]);
        assert!(table.confirmed.is_empty());
    }
}
