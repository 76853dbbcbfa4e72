//! Events for local reactions only (metrics, audit line). Effects that must happen are never events: they go to the
//! outbox.

use std::sync::Arc;

use crate::{
    ids::{FamilyId, GrantId, GroupId, SessionId, UserId},
    stamp::Stamp,
};

/// A change that an entry made, for the audit line and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A user signed in.
    SessionStarted {
        /// The session.
        session: SessionId,
        /// The user.
        user: UserId,
    },
    /// The user of a session signed in again in the same browser.
    SessionStrengthened {
        /// The session.
        session: SessionId,
        /// The user.
        user: UserId,
    },
    /// A session ended before its time.
    SessionRevoked {
        /// The session.
        session: SessionId,
    },
    /// A code was presented a second time; everything that was issued from it is revoked.
    CodeReused {
        /// The grant of the code.
        grant: GrantId,
    },
    /// A refresh token was presented after its successor was used; the family is dead.
    RefreshReused {
        /// The family that ended.
        family: FamilyId,
    },
    /// An account has no attempts left.
    AttemptsExhausted {
        /// The user.
        user: UserId,
    },
    /// A user has another username; applications that know users by it see another user.
    UserRenamed {
        /// The user.
        user: UserId,
        /// The former username.
        before: Arc<str>,
        /// The present one.
        after: Arc<str>,
    },
    /// A group has another name; applications that give rights by it see another group.
    GroupRenamed {
        /// The group.
        group: GroupId,
        /// The former name.
        before: Arc<str>,
        /// The present one.
        after: Arc<str>,
    },
    /// An operator set log time back.
    ClockSetBack {
        /// The log time before.
        from: Stamp,
        /// The log time from here on.
        to: Stamp,
    },
}
