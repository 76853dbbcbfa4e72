//! Bugs that are injected into the replicas on purpose. An oracle that has never caught anything proves nothing.
//!
//! A bug can be chosen only with the feature "mutations"; without it, [`ReplicaMutation::ALL`] contains only the
//! correct replica.

/// A deliberate error of the replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplicaMutation {
    /// No error.
    #[default]
    None,
    /// Snapshots leave out the users.
    #[cfg(feature = "mutations")]
    SnapshotOmitsUsers,
    /// The last replica skips an entry now and then.
    #[cfg(feature = "mutations")]
    EntrySkipped,
    /// A restart forgets the remembered requests.
    #[cfg(feature = "mutations")]
    RequestsForgotten,
    /// A snapshot claims a later index than it has, so that the replay starts too late.
    #[cfg(feature = "mutations")]
    SnapshotTooOld,
    /// The last replica uses its own time instead of the leader's stamp.
    #[cfg(feature = "mutations")]
    OwnClock,
}

impl ReplicaMutation {
    /// Each of them, with its name on the command line.
    pub const ALL: &[(&str, Self)] = &[
        ("none", Self::None),
        #[cfg(feature = "mutations")]
        ("snapshot-omits-users", Self::SnapshotOmitsUsers),
        #[cfg(feature = "mutations")]
        ("entry-skipped", Self::EntrySkipped),
        #[cfg(feature = "mutations")]
        ("requests-forgotten", Self::RequestsForgotten),
        #[cfg(feature = "mutations")]
        ("snapshot-too-old", Self::SnapshotTooOld),
        #[cfg(feature = "mutations")]
        ("own-clock", Self::OwnClock),
    ];

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, mutation)| *mutation)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, mutation)| *mutation == self).map_or("none", |(name, _)| name)
    }
}

/// The places at which a replica may behave incorrectly. Without the feature the result is always the correct one.
impl ReplicaMutation {
    /// True if a snapshot leaves this table out.
    #[cfg_attr(
        not(feature = "mutations"),
        expect(clippy::unused_self, reason = "the result differs only for bugs")
    )]
    pub(super) fn omits(self, table: u32) -> bool {
        #[cfg(feature = "mutations")]
        return (self == Self::SnapshotOmitsUsers && table == USERS)
            || (self == Self::RequestsForgotten && table == REQUESTS);
        #[cfg(not(feature = "mutations"))]
        {
            let _ = table;
            false
        }
    }

    /// True if this replica skips this entry.
    #[cfg_attr(
        not(feature = "mutations"),
        expect(clippy::unused_self, reason = "the result differs only for bugs")
    )]
    pub(super) fn skips(self, replica: usize, index: u64) -> bool {
        #[cfg(feature = "mutations")]
        return self == Self::EntrySkipped && replica == LAST && index.is_multiple_of(SKIPPED_EVERY);
        #[cfg(not(feature = "mutations"))]
        {
            let _ = (replica, index);
            false
        }
    }

    /// The number of entries by which a snapshot's claimed index is too high.
    #[cfg_attr(
        not(feature = "mutations"),
        expect(clippy::unused_self, reason = "the result differs only for bugs")
    )]
    pub(super) fn lost_entries(self) -> u64 {
        #[cfg(feature = "mutations")]
        return if self == Self::SnapshotTooOld { LOST_ENTRIES } else { 0 };
        #[cfg(not(feature = "mutations"))]
        0
    }

    /// The time that is added to the stamp of an entry.
    #[cfg_attr(
        not(feature = "mutations"),
        expect(clippy::unused_self, reason = "the result differs only for bugs")
    )]
    pub(super) fn stamp_error_ms(self, replica: usize) -> u64 {
        #[cfg(feature = "mutations")]
        return u64::from(self == Self::OwnClock && replica == LAST);
        #[cfg(not(feature = "mutations"))]
        {
            let _ = replica;
            0
        }
    }
}

#[cfg(feature = "mutations")]
const USERS: u32 = 2;
#[cfg(feature = "mutations")]
const REQUESTS: u32 = 15;
#[cfg(feature = "mutations")]
const LAST: usize = 2;
#[cfg(feature = "mutations")]
const SKIPPED_EVERY: u64 = 7;
#[cfg(feature = "mutations")]
const LOST_ENTRIES: u64 = 5;
