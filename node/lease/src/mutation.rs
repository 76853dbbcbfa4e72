//! Known ways to get the protocol wrong. A model that has never caught anything proves nothing.
//!
//! Only with the feature "mutations" can one be chosen; without it every question below is answered with no, at compile
//! time.

use std::time::Duration;

use crate::{moment::Moment, terms::Terms};

/// What this side does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// Nothing.
    #[default]
    None,
    /// A new leader acknowledges at once.
    #[cfg(feature = "mutations")]
    NoNewLeaderWait,
    /// A lease counts from its answer.
    #[cfg(feature = "mutations")]
    ExpiryFromReply,
    /// A lease is in force before the node has applied what it asks for.
    #[cfg(feature = "mutations")]
    ActiveBeforeApplied,
    /// A revocation is acknowledged though nodes may hold leases.
    #[cfg(feature = "mutations")]
    AckIgnoresTable,
    /// An answer to a question of an earlier process is taken.
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

impl Mutation {
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

    /// What a node counts against its lease.
    pub(crate) fn held_for(self, since: Moment, now: Moment) -> Duration {
        if self.holder_counts_least() { now.least_since(since) } else { now.most_since(since) }
    }

    /// What a leader counts of its waiting.
    pub(crate) fn waited(self, since: Moment, now: Moment) -> Duration {
        if self.leader_counts_most() { now.most_since(since) } else { now.least_since(since) }
    }

    /// How long this side waits for a lease of these terms.
    #[must_use]
    pub fn wait(self, terms: Terms) -> Duration {
        if self.drops_margin() { terms.length } else { terms.wait() }
    }
}
