//! Authentication context classes (OIDC Core §2). There is one so far: a password.

/// The user proved a password (level 1 of ISO/IEC 29115).
pub(crate) const PASSWORD: &str = "1";

/// The supported values, for discovery.
pub(crate) const SUPPORTED: [&str; 1] = [PASSWORD];
