//! The feature level: the meanings that the log may use. A log entry raises it, only when every member understands the
//! new level.

use crate::reply::Refusal;

/// The level that this build understands. Raised with each release that changes replicated meaning.
pub const SUPPORTED: u32 = 2;

/// From this level on an entry moves log time by at most [`MAX_STEP_MS`](crate::stamp::MAX_STEP_MS), and `SetClock`
/// exists.
pub const BOUNDED_LOG_TIME: u32 = 2;

/// From this level on clients can have exceptions ([`Exceptions`](crate::client::Exceptions)), and their authentication
/// method and application can be changed.
pub const EXCEPTIONS: u32 = 2;

/// From this level on group names and e-mail addresses are unique regardless of case, an e-mail address identifies its
/// user at sign-in, names of removed users are remembered, and users and groups can be renamed.
pub const NAMES: u32 = 2;

/// From this level on a sign-in strengthens the session whose cookie the browser presents, and a lock-out can be ended.
/// An older member does not know these commands and stops at them.
pub const STRENGTHENING: u32 = 2;

/// From this level on applications choose their identity headers and may have hosts that are IPv6 addresses. An older
/// member drops both.
pub const IDENTITY_HEADERS: u32 = 2;

/// From this level on a sign-in clears all attempt counts that it names, not only the user's own.
pub const CLEARED_COUNTS: u32 = 2;

/// Refuses a command that needs a higher level than the cluster has.
pub(crate) fn check(current: u32, needed: u32) -> Result<(), Refusal> {
    if current >= needed {
        return Ok(());
    }
    Err(Refusal::malformed(
        "a member of the cluster runs an older version; upgrade all members, then try again",
    ))
}
