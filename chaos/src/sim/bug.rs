//! Known bugs that can be injected into whole nodes, each with the plan under which it must show and the promise that
//! it must break.

#[cfg(feature = "mutations")]
use conclave_cluster::testing::GrantFault;
use conclave_cluster::testing::{FaultInjection, inject};
#[cfg(feature = "mutations")]
use conclave_lease::LeaseMutation;

use super::SimPlan;
use crate::{promise::Promise, random::Random};

/// A deliberate error of the nodes. All but [`SimBug::None`] need the feature "mutations".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SimBug {
    /// No error.
    #[default]
    None,
    /// The disk reports a sync that did not happen, now and then.
    #[cfg(feature = "mutations")]
    SyncForgotten,
    /// An error in the core of the serve leases.
    #[cfg(feature = "mutations")]
    Leases(LeaseMutation),
    /// A leader uses a wrong index in its grants.
    #[cfg(feature = "mutations")]
    Grants(GrantFault),
    /// A wiped disk starts again under its old node id.
    #[cfg(feature = "mutations")]
    NodeIdReused,
}

impl SimBug {
    /// Each of them, with its name on the command line. Bugs of the leases that need several rare events at once are
    /// left to the model, which checks every order of events.
    pub const ALL: &[(&str, Self)] = &[
        ("none", Self::None),
        #[cfg(feature = "mutations")]
        ("sync-forgotten", Self::SyncForgotten),
        #[cfg(feature = "mutations")]
        ("no-new-leader-wait", Self::Leases(LeaseMutation::NoNewLeaderWait)),
        #[cfg(feature = "mutations")]
        ("ack-ignores-table", Self::Leases(LeaseMutation::AckIgnoresTable)),
        #[cfg(feature = "mutations")]
        ("no-margin", Self::Leases(LeaseMutation::NoMargin)),
        #[cfg(feature = "mutations")]
        ("no-quorum-confirm", Self::Grants(GrantFault::NoQuorum)),
        #[cfg(feature = "mutations")]
        ("index-before-record", Self::Grants(GrantFault::ReadBeforeRecord)),
        #[cfg(feature = "mutations")]
        ("lease-read", Self::Grants(GrantFault::LeaseRead)),
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
    pub const fn plan(self) -> SimPlan {
        match self {
            Self::None => SimPlan::Storm,
            #[cfg(feature = "mutations")]
            Self::SyncForgotten => SimPlan::PowerLost,
            #[cfg(feature = "mutations")]
            Self::Leases(LeaseMutation::AckIgnoresTable) => SimPlan::Storm,
            #[cfg(feature = "mutations")]
            Self::Grants(GrantFault::ReadBeforeRecord) => SimPlan::Returned,
            #[cfg(feature = "mutations")]
            Self::NodeIdReused => SimPlan::Reborn,
            #[cfg(feature = "mutations")]
            Self::Leases(_) | Self::Grants(_) => SimPlan::Deposed,
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
        inject(match self {
            #[cfg(feature = "mutations")]
            Self::Leases(leases) => FaultInjection { leases, ..FaultInjection::default() },
            #[cfg(feature = "mutations")]
            Self::Grants(grants) => FaultInjection { grants, ..FaultInjection::default() },
            #[cfg(feature = "mutations")]
            Self::NodeIdReused => FaultInjection { reuses_numbers: true, ..FaultInjection::default() },
            _ => FaultInjection::default(),
        });
    }
}
