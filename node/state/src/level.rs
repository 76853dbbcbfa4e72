//! The feature level: which meanings the log may use. It rises by a log entry, only when every member understands it.

use crate::reply::Refusal;

/// The level that this build understands. Raised with each release that changes replicated meaning.
pub const SUPPORTED: u32 = 2;

/// From this level on an entry moves log time by at most [`MAX_STEP_MS`](crate::stamp::MAX_STEP_MS), and `SetClock`
/// exists.
pub const BOUNDED_LOG_TIME: u32 = 2;

/// From this level on clients have exceptions of their own ([`Exceptions`](crate::client::Exceptions)), and their
/// method of authentication and their application can be changed.
pub const EXCEPTIONS: u32 = 2;

/// From this level on names of groups and e-mail addresses are unique without regard to case, an e-mail address names
/// its user at sign-in, names of removed users are remembered, and users and groups can be renamed.
pub const NAMES: u32 = 2;

/// From this level on a sign-in strengthens the session that the browser shows, and a lock-out can be ended. An older
/// member does not know these commands and stops at one.
pub const STRENGTHENING: u32 = 2;

/// From this level on applications choose their identity headers and may have hosts that are IPv6 addresses. An older
/// member drops both.
pub const IDENTITY_HEADERS: u32 = 2;

/// From this level on a sign-in clears the counts of attempts that it names, not that of the user alone.
pub const CLEARED_COUNTS: u32 = 2;

/// Refuses a command that counts from a level on which the cluster has not reached.
pub(crate) fn check(current: u32, needed: u32) -> Result<(), Refusal> {
    if current >= needed {
        return Ok(());
    }
    Err(Refusal::malformed(
        "a member of the cluster runs an older version; upgrade all members, then try again",
    ))
}
