//! Facts, for local reactions only (metrics, audit line). Nothing that must happen hangs on an event: that is the outbox.

use crate::{
    ids::{FamilyId, GrantId, SessionId, UserId},
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
    /// An operator set log time back.
    ClockSetBack {
        /// The log time before.
        from: Stamp,
        /// The log time from here on.
        to: Stamp,
    },
}
