//! Known ways to get the protocol wrong: errors inside the core, and errors of the code that drives it.

use conclave_lease::LeaseMutation;

/// A deliberate error of the modelled nodes. All but [`ModelBug::None`] need the feature "mutations".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModelBug {
    /// No error.
    #[default]
    None,
    /// An error of the core.
    #[cfg(feature = "mutations")]
    Core(LeaseMutation),
    /// A request is granted without a quorum round.
    #[cfg(feature = "mutations")]
    NoQuorumConfirm,
    /// The read index is taken before the node is recorded.
    #[cfg(feature = "mutations")]
    IndexBeforeRecord,
    /// The read index is the commit index, although the leader's own first entry is not committed yet.
    #[cfg(feature = "mutations")]
    IndexBelowOwnEntry,
    /// A release is applied to whichever process of the node runs now.
    #[cfg(feature = "mutations")]
    FarewellOfAnyProcess,
}

impl ModelBug {
    /// Each of them by name.
    pub const ALL: &[(&str, Self)] = &[
        #[cfg(feature = "mutations")]
        ("no-new-leader-wait", Self::Core(LeaseMutation::NoNewLeaderWait)),
        #[cfg(feature = "mutations")]
        ("no-quorum-confirm", Self::NoQuorumConfirm),
        #[cfg(feature = "mutations")]
        ("expiry-from-reply", Self::Core(LeaseMutation::ExpiryFromReply)),
        #[cfg(feature = "mutations")]
        ("index-before-record", Self::IndexBeforeRecord),
        #[cfg(feature = "mutations")]
        ("active-before-applied", Self::Core(LeaseMutation::ActiveBeforeApplied)),
        #[cfg(feature = "mutations")]
        ("ack-ignores-table", Self::Core(LeaseMutation::AckIgnoresTable)),
        #[cfg(feature = "mutations")]
        ("grant-after-restart", Self::Core(LeaseMutation::GrantAfterRestart)),
        #[cfg(feature = "mutations")]
        ("ack-outside-term", Self::Core(LeaseMutation::AckOutsideTerm)),
        #[cfg(feature = "mutations")]
        ("index-below-own-entry", Self::IndexBelowOwnEntry),
        #[cfg(feature = "mutations")]
        ("no-margin", Self::Core(LeaseMutation::NoMargin)),
        #[cfg(feature = "mutations")]
        ("holder-counts-least", Self::Core(LeaseMutation::HolderCountsLeast)),
        #[cfg(feature = "mutations")]
        ("leader-counts-most", Self::Core(LeaseMutation::LeaderCountsMost)),
        #[cfg(feature = "mutations")]
        ("farewell-of-any-process", Self::FarewellOfAnyProcess),
    ];

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, bug)| *bug)
    }

    pub(super) fn core(self) -> LeaseMutation {
        match self {
            #[cfg(feature = "mutations")]
            Self::Core(mutation) => mutation,
            _ => LeaseMutation::None,
        }
    }
}

macro_rules! asks {
    ($($name:ident = $bug:pat,)*) => {$(
        pub(super) fn $name(self) -> bool {
            #[cfg(feature = "mutations")]
            return matches!(self, $bug);
            #[cfg(not(feature = "mutations"))]
            false
        }
    )*};
}

impl ModelBug {
    asks! {
        skips_quorum = Self::NoQuorumConfirm,
        reads_before_record = Self::IndexBeforeRecord,
        reads_below_own_entry = Self::IndexBelowOwnEntry,
        farewell_of_any_process = Self::FarewellOfAnyProcess,
        acks_outside_term = Self::Core(LeaseMutation::AckOutsideTerm),
    }
}
