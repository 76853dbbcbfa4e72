//! Known errors of the protocol, injected to prove that the model finds them.
//!
//! A mutation can be chosen only with the feature "mutations"; without it every test below is false at compile time.

use std::time::Duration;

use crate::{clock_reading::LeaseClockReading, timing::LeaseTiming};

/// A deliberate error of this side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LeaseMutation {
    /// No error.
    #[default]
    None,
    /// A new leader acknowledges at once.
    #[cfg(feature = "mutations")]
    NoNewLeaderWait,
    /// A lease starts at its reply.
    #[cfg(feature = "mutations")]
    ExpiryFromReply,
    /// A lease is in force before the node has applied its index.
    #[cfg(feature = "mutations")]
    ActiveBeforeApplied,
    /// A revocation is acknowledged although nodes may hold leases.
    #[cfg(feature = "mutations")]
    AckIgnoresTable,
    /// A reply to a request of an earlier process is accepted.
    #[cfg(feature = "mutations")]
    GrantAfterRestart,
    /// A revocation is acknowledged by a node that does not lead the entry's term.
    #[cfg(feature = "mutations")]
    AckOutsideTerm,
    /// The leader waits no longer than the node serves.
    #[cfg(feature = "mutations")]
    NoMargin,
    /// A node measures its lease by the clock that ran least.
    #[cfg(feature = "mutations")]
    HolderCountsLeast,
    /// A leader measures its waiting by the clock that ran most.
    #[cfg(feature = "mutations")]
    LeaderCountsMost,
}

macro_rules! asks {
    ($($(#[$doc:meta])* $name:ident: $bug:ident;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name(self) -> bool {
            #[cfg(feature = "mutations")]
            return self == Self::$bug;
            #[cfg(not(feature = "mutations"))]
            false
        }
    )*};
}

impl LeaseMutation {
    asks! {
        skips_new_leader_wait: NoNewLeaderWait;
        counts_from_reply: ExpiryFromReply;
        activates_early: ActiveBeforeApplied;
        ignores_table: AckIgnoresTable;
        accepts_stale_grant: GrantAfterRestart;
        acks_outside_term: AckOutsideTerm;
        drops_margin: NoMargin;
        holder_counts_least: HolderCountsLeast;
        leader_counts_most: LeaderCountsMost;
    }

    /// The time that a node subtracts from its lease.
    pub(crate) fn held_for(self, since: LeaseClockReading, now: LeaseClockReading) -> Duration {
        if self.holder_counts_least() { now.least_since(since) } else { now.most_since(since) }
    }

    /// The time that a leader has waited.
    pub(crate) fn waited(self, since: LeaseClockReading, now: LeaseClockReading) -> Duration {
        if self.leader_counts_most() { now.most_since(since) } else { now.least_since(since) }
    }

    /// The time that this side waits for a lease of these terms.
    #[must_use]
    pub fn wait(self, terms: LeaseTiming) -> Duration {
        if self.drops_margin() { terms.length } else { terms.wait() }
    }
}
