//! Facts, for local reactions only (metrics, audit line). Nothing that must happen hangs on an event: that is the
//! outbox.

use std::sync::Arc;

use crate::{
    ids::{FamilyId, GrantId, GroupId, SessionId, UserId},
    stamp::Stamp,
};

/// What an entry changed, named for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Someone signed in.
    SessionStarted {
        /// Which session.
        session: SessionId,
        /// Whose.
        user: UserId,
    },
    /// The user of a session signed in again in the same browser.
    SessionStrengthened {
        /// Which session.
        session: SessionId,
        /// Whose.
        user: UserId,
    },
    /// A session ended before its time.
    SessionRevoked {
        /// Which session.
        session: SessionId,
    },
    /// A code came a second time; what it gave is taken back.
    CodeReused {
        /// The grant of the code.
        grant: GrantId,
    },
    /// A refresh token came after its successor was used; the family is dead.
    RefreshReused {
        /// The family that ended.
        family: FamilyId,
    },
    /// An account ran out of attempts.
    AttemptsExhausted {
        /// Whose account.
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
