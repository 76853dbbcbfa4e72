//! Authentication context (OIDC Core §2): which levels there are. One so far: a password.

/// A person proved a password (level 1 of ISO/IEC 29115).
pub const PASSWORD: &str = "1";

/// What discovery promises.
pub const SUPPORTED: [&str; 1] = [PASSWORD];
