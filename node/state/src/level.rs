//! The feature level: which meanings the log may use. It rises by a log entry, only when every member understands it.

/// What this build understands. Raised with each release that changes replicated meaning.
pub const SUPPORTED: u32 = 1;
