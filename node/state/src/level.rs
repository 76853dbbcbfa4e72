//! The feature level: which meanings the log may use. It rises by a log entry, only when every member understands it.

/// The level that this build understands. Raised with each release that changes replicated meaning.
pub const SUPPORTED: u32 = 2;

/// From this level on an entry moves log time by at most [`MAX_STEP_MS`](crate::stamp::MAX_STEP_MS), and `SetClock` exists.
pub const BOUNDED_LOG_TIME: u32 = 2;

/// From this level on clients have exceptions of their own ([`Exceptions`](crate::client::Exceptions)), and their method of
/// authentication and their application can be changed.
pub const EXCEPTIONS: u32 = 2;
