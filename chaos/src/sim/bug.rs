//! Known bugs that can be injected into whole nodes, each with the plan under which it must show and the promise that
//! it must break.

#[cfg(feature = "mutations")]
use conclave_cluster::testing::WrongGrants;
use conclave_cluster::testing::{Wrong, do_wrong};
#[cfg(feature = "mutations")]
use conclave_lease::Mutation;

use super::Plan;
use crate::{promise::Promise, random::Random};

/// A deliberate error of the nodes. All but [`Bug::None`] need the feature "mutations".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bug {
    /// No error.
    #[default]
    None,
    /// The disk reports a sync that did not happen, now and then.
    #[cfg(feature = "mutations")]
    SyncForgotten,
    /// An error in the core of the serve leases.
    #[cfg(feature = "mutations")]
    Leases(Mutation),
    /// A leader uses a wrong index in its grants.
    #[cfg(feature = "mutations")]
    Grants(WrongGrants),
    /// A wiped disk starts again under its old node id.
    #[cfg(feature = "mutations")]
    NodeIdReused,
}

impl Bug {
    /// Each of them, with its name on the command line. Bugs of the leases that need several rare events at once are
    /// left to the model, which checks every order of events.
    pub const ALL: &[(&str, Self)] = &[
        ("none", Self::None),
        #[cfg(feature = "mutations")]
        ("sync-forgotten", Self::SyncForgotten),
        #[cfg(feature = "mutations")]
        ("no-new-leader-wait", Self::Leases(Mutation::NoNewLeaderWait)),
        #[cfg(feature = "mutations")]
        ("ack-ignores-table", Self::Leases(Mutation::AckIgnoresTable)),
        #[cfg(feature = "mutations")]
        ("no-margin", Self::Leases(Mutation::NoMargin)),
        #[cfg(feature = "mutations")]
        ("no-quorum-confirm", Self::Grants(WrongGrants::NoQuorum)),
        #[cfg(feature = "mutations")]
        ("index-before-record", Self::Grants(WrongGrants::ReadBeforeRecord)),
        #[cfg(feature = "mutations")]
        ("lease-read", Self::Grants(WrongGrants::LeaseRead)),
        #[cfg(feature = "mutations")]
        ("node-id-reused", Self::NodeIdReused),
    ];

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, bug)| *bug)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, bug)| *bug == self).map_or("none", |(name, _)| name)
    }

    /// The plan under which it must show.
    #[must_use]
    pub const fn plan(self) -> Plan {
        match self {
            Self::None => Plan::Storm,
            #[cfg(feature = "mutations")]
            Self::SyncForgotten => Plan::PowerLost,
            #[cfg(feature = "mutations")]
            Self::Leases(Mutation::AckIgnoresTable) => Plan::Storm,
            #[cfg(feature = "mutations")]
            Self::Grants(WrongGrants::ReadBeforeRecord) => Plan::Returned,
            #[cfg(feature = "mutations")]
            Self::NodeIdReused => Plan::Reborn,
            #[cfg(feature = "mutations")]
            Self::Leases(_) | Self::Grants(_) => Plan::Deposed,
        }
    }

    /// The promise that it must break: any other failure does not prove that the judge detects the bug.
    #[must_use]
    pub const fn breaks(self) -> Option<Promise> {
        match self {
            Self::None => None,
            #[cfg(feature = "mutations")]
            Self::SyncForgotten | Self::NodeIdReused => Some(Promise::AcknowledgedStays),
            #[cfg(feature = "mutations")]
            Self::Leases(_) | Self::Grants(_) => Some(Promise::RevokedAtOnce),
        }
    }

    #[cfg_attr(
        not(feature = "mutations"),
        expect(clippy::unused_self, reason = "the result differs only for bugs")
    )]
    pub(super) fn forgets_to_sync(self, random: &mut Random) -> bool {
        #[cfg(feature = "mutations")]
        return self == Self::SyncForgotten && random.percent(30);
        #[cfg(not(feature = "mutations"))]
        {
            let _ = random;
            false
        }
    }

    /// Injects the bug into the nodes of this thread from now on.
    pub(super) fn put_into_nodes(self) {
        do_wrong(match self {
            #[cfg(feature = "mutations")]
            Self::Leases(leases) => Wrong { leases, ..Wrong::default() },
            #[cfg(feature = "mutations")]
            Self::Grants(grants) => Wrong { grants, ..Wrong::default() },
            #[cfg(feature = "mutations")]
            Self::NodeIdReused => Wrong { reuses_numbers: true, ..Wrong::default() },
            _ => Wrong::default(),
        });
    }
}
