//! Known ways to get the protocol wrong. A model that has never caught anything proves nothing.
//!
//! Only with the feature "mutations" can one be chosen; without it every question below is answered with no, at compile time.

use std::time::Duration;

use crate::terms::Terms;

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
    }

    /// How long this side waits for a lease of these terms.
    #[must_use]
    pub fn wait(self, terms: Terms) -> Duration {
        if self.drops_margin() { terms.length } else { terms.wait() }
    }
}
