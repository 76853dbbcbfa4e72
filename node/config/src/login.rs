//! `[login]` and `[tokens]`: lifetimes, and limits for attempts.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::parse::duration;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Maximum number of threads for argon2: each may use 256 MiB for a moment.
const MAX_ARGON2_THREADS: usize = 256;

/// `[login]`: sign-in.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Login {
    /// Lifetime of a session after the sign-in. Default 12h.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub session_ttl: Duration,
    /// Time limit of a login from its first page to its last. Default 15m.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub flow_ttl: Duration,
    /// Number of threads that hash passwords. Default: one for each core.
    pub argon2_threads: Option<NonZeroUsize>,
    pub throttle: ThrottleConfig,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            session_ttl: 12 * HOUR,
            flow_ttl: 15 * MINUTE,
            argon2_threads: None,
            throttle: ThrottleConfig::default(),
        }
    }
}

/// `[login.throttle]`: limits of failed sign-ins, beyond which further ones are refused for a while.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThrottleConfig {
    /// Failures for one account within `window`. Default 10.
    pub account_failures: NonZeroU32,
    /// Failures from one address within `window`. Default 50: many users may share an address.
    pub address_failures: NonZeroU32,
    /// Length of the window. Default 15m.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub window: Duration,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        let count = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self { account_failures: count(10), address_failures: count(50), window: 15 * MINUTE }
    }
}

/// `[tokens]`: lifetimes of tokens and keys for relying parties.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokensConfig {
    /// Lifetime of access and ID tokens. A token verified offline outlives a revocation by at most this. Default 10m.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub access_ttl: Duration,
    /// Lifetime of authorization codes. Default 60s.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub code_ttl: Duration,
    /// Lifetime of refresh tokens, from the last use. Default 30d.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub refresh_ttl: Duration,
    /// Time for which a used refresh token still gives the same response, for a client whose first response was lost.
    /// Default 30s.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub refresh_retry_window: Duration,
    /// Time for which a key signs before another replaces it. Default 90d.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub signing_key_ttl: Duration,
    /// Time for which a key is published before it signs: relying parties cache the key set. Default 24h.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub signing_key_notice: Duration,
}

impl Default for TokensConfig {
    fn default() -> Self {
        Self {
            access_ttl: 10 * MINUTE,
            code_ttl: MINUTE,
            refresh_ttl: 30 * DAY,
            refresh_retry_window: MINUTE / 2,
            signing_key_ttl: 90 * DAY,
            signing_key_notice: DAY,
        }
    }
}

impl Login {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        within(problems, "login.session_ttl", self.session_ttl, MINUTE, 400 * DAY);
        within(problems, "login.flow_ttl", self.flow_ttl, MINUTE, DAY);
        within(problems, "login.throttle.window", self.throttle.window, MINUTE, DAY);
        if self.argon2_threads.is_some_and(|threads| threads.get() > MAX_ARGON2_THREADS) {
            problems.push(format!("login.argon2_threads: at most {MAX_ARGON2_THREADS}"));
        }
    }
}

impl TokensConfig {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let second = Duration::from_secs(1);
        within(problems, "tokens.access_ttl", self.access_ttl, 10 * second, DAY);
        within(problems, "tokens.code_ttl", self.code_ttl, 5 * second, 10 * MINUTE);
        within(problems, "tokens.refresh_ttl", self.refresh_ttl, MINUTE, 400 * DAY);
        // The rules accept no longer window.
        within(
            problems,
            "tokens.refresh_retry_window",
            self.refresh_retry_window,
            Duration::ZERO,
            2 * MINUTE,
        );
        // Relying parties cache the key set for five minutes. With keys that sign for less than a day the set would
        // grow too large.
        within(problems, "tokens.signing_key_notice", self.signing_key_notice, 10 * MINUTE, 30 * DAY);
        within(
            problems,
            "tokens.signing_key_ttl",
            self.signing_key_ttl,
            2 * self.signing_key_notice.max(DAY),
            800 * DAY,
        );
    }
}

pub(super) fn within(
    problems: &mut Vec<String>,
    path: &str,
    value: Duration,
    least: Duration,
    most: Duration,
) {
    if !(least..=most).contains(&value) {
        let (least, most) = (least.as_secs(), most.as_secs());
        problems.push(format!("{path}: must be between {least}s and {most}s"));
    }
}
