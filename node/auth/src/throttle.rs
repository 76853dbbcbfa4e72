//! Password attempts. They are counted on this node first, and in the log only when an account has many of them
//! (docs/design/consistency.md).
//!
//! Each voter may allow `FREE_ATTEMPTS` attempts per count in a window on its own. Every further attempt is reserved
//! in the log before the password is compared, against a limit from which all free attempts are subtracted. So the
//! cluster never tries more passwords than the limit of a count in a window, however the attempts are distributed and
//! however parallel they are. An attack causes almost no writes.
//!
//! An attempt at an account goes to one of these counts (decision 0049):
//!
//! | from | count | limit in a window |
//! |---|---|---|
//! | a browser that has signed in to the account before (see `trusted_browser`) | of that browser | `account_failures` |
//! | an address that the account has a session from | of that address and the account | `account_failures` |
//! | anywhere else | of that address and the account, *and* of all such attempts at the account | `account_failures`, and `UNKNOWN_BROWSERS` times that |
//!
//! The username and the e-mail address of one user have separate counts, except the count of all strangers: a refusal
//! for one name reveals nothing about the other.
//!
//! So one attacker uses up the attempts of one address, and many attackers those of strangers. Neither uses up the
//! attempts of the owner's browsers and addresses.
//!
//! Addresses are also counted for all accounts together, on the node alone: a coarse limit, bounded in memory.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use conclave_state::ids::UserId;

use conclave_base::runtime::Runtime;
use conclave_config as config;
use conclave_http::cidr::customer_of;

/// Attempts at a count that a node allows without a command to the cluster.
const FREE_ATTEMPTS: u32 = 2;
/// Attempts of all strangers at an account together, as a multiple of those of one address. A user may sign in at ten
/// new places while ten attackers guess, and guesses from many addresses stay far below what a password of minimum
/// length withstands.
const UNKNOWN_BROWSERS: u32 = 10;
/// Maximum number of accounts and addresses counted at once; beyond it the oldest windows are dropped first.
const MAX_COUNTED: usize = 10_000;

/// The count to which an attempt at an account belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptCount {
    /// The count of one browser or one address, at one account.
    One(UserId),
    /// The count of all strangers at this account.
    UnknownBrowsers(UserId),
}

impl AttemptCount {
    /// The id under which the cluster keeps the count.
    pub const fn id(self) -> UserId {
        match self {
            Self::One(id) | Self::UnknownBrowsers(id) => id,
        }
    }
}

/// The decision about the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Allowed.
    Free,
    /// Must be reserved in the log, within this limit.
    Reserve { limit: u32, window_ms: u64 },
    /// Refused for now.
    Refused { retry_in: Duration },
}

/// The counts of this node.
pub struct Throttles {
    settings: config::ThrottleConfig,
    runtime: Runtime,
    accounts: Mutex<Windows<UserId>>,
    addresses: Mutex<Windows<IpAddr>>,
}

/// Counts in windows, each of which starts with its first attempt.
struct Windows<K>(BTreeMap<K, (Duration, u32)>);

impl<K: Ord + Copy> Windows<K> {
    /// Adds one attempt. Returns how many there were before it, and the end of the window.
    fn count(&mut self, key: K, now: Duration, window: Duration) -> (u32, Duration) {
        if self.0.len() >= MAX_COUNTED && !self.0.contains_key(&key) {
            self.make_room(now, window);
        }
        let entry = self.0.entry(key).or_insert((now, 0));
        if now >= entry.0 + window {
            *entry = (now, 0);
        }
        let before = entry.1;
        entry.1 = before.saturating_add(1);
        (before, entry.0 + window)
    }

    fn make_room(&mut self, now: Duration, window: Duration) {
        self.0.retain(|_, (start, _)| now < *start + window);
        if self.0.len() >= MAX_COUNTED
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (start, _))| *start).map(|(key, _)| *key)
        {
            self.0.remove(&oldest);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Throttles {
    pub fn new(settings: config::ThrottleConfig, runtime: Runtime) -> Self {
        let (accounts, addresses) =
            (Mutex::new(Windows(BTreeMap::new())), Mutex::new(Windows(BTreeMap::new())));
        Self { settings, runtime, accounts, addresses }
    }

    /// Counts an attempt from this address, before any other check.
    pub fn address(&self, address: IpAddr) -> Admission {
        let now = self.runtime.clock.monotonic();
        let (before, ends) = locked(&self.addresses).count(customer_of(address), now, self.settings.window);
        if before >= self.settings.address_failures.get() {
            return Admission::Refused { retry_in: ends.saturating_sub(now) };
        }
        Admission::Free
    }

    /// A sign-in from this address succeeded. It is not counted, so that users who share the address do not use up the
    /// limit by signing in.
    pub fn address_succeeded(&self, address: IpAddr) {
        if let Some((_, count)) = locked(&self.addresses).0.get_mut(&customer_of(address)) {
            *count = count.saturating_sub(1);
        }
    }

    /// Counts an attempt. `hot` is true if the cluster already counts it.
    pub fn count(&self, count: AttemptCount, voters: usize, hot: bool) -> Admission {
        let limit = self.limit(count);
        let voters = u32::try_from(voters).unwrap_or(u32::MAX);
        // With many voters or a small limit no attempt is free: every one is reserved.
        let free = if FREE_ATTEMPTS.saturating_mul(voters) < limit { FREE_ATTEMPTS } else { 0 };
        let now = self.runtime.clock.monotonic();
        let (before, _) = locked(&self.accounts).count(count.id(), now, self.settings.window);
        if before < free && !hot {
            return Admission::Free;
        }
        let window_ms = u64::try_from(self.settings.window.as_millis()).unwrap_or(u64::MAX);
        Admission::Reserve { limit: limit - free * voters, window_ms }
    }

    fn limit(&self, count: AttemptCount) -> u32 {
        let one = self.settings.account_failures.get();
        match count {
            AttemptCount::One(_) => one,
            AttemptCount::UnknownBrowsers(_) => one.saturating_mul(UNKNOWN_BROWSERS),
        }
    }

    /// Resets the count after a successful attempt. The completed sign-in also clears the cluster's count of strangers.
    pub fn succeeded(&self, count: AttemptCount) {
        locked(&self.accounts).0.remove(&count.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_base::runtime::testing::FixedClock;
    use std::sync::Arc;

    fn throttles() -> (Throttles, Arc<FixedClock>) {
        let (runtime, clock) = conclave_base::runtime::testing::runtime(1_000, 1);
        (Throttles::new(config::ThrottleConfig::default(), runtime), clock)
    }

    const ALICE: UserId = UserId::new([1; 16]);

    #[test]
    fn the_cluster_never_tries_more_than_the_limit() {
        let one = config::ThrottleConfig::default().account_failures.get();
        let counts =
            [(AttemptCount::One(ALICE), one), (AttemptCount::UnknownBrowsers(ALICE), UNKNOWN_BROWSERS * one)];
        for (voters, (count, limit)) in [1, 2, 3, 5, 7, 9].into_iter().flat_map(|v| counts.map(|c| (v, c))) {
            let mut free = 0;
            let mut reserved = 0;
            for _node in 0..voters {
                let (throttles, _) = throttles();
                for _ in 0..limit {
                    match throttles.count(count, voters, false) {
                        Admission::Free => free += 1,
                        Admission::Reserve { limit, .. } => reserved = limit,
                        Admission::Refused { .. } => unreachable!("accounts are refused by the rules"),
                    }
                }
            }
            assert_eq!(free + reserved, limit, "{voters} voters");
        }
    }

    #[test]
    fn a_hot_account_has_no_free_attempts() {
        let (throttles, _) = throttles();
        assert!(matches!(throttles.count(AttemptCount::One(ALICE), 3, true), Admission::Reserve { .. }));
    }

    #[test]
    fn an_address_waits_out_its_window_and_a_64_counts_as_one() {
        let (throttles, clock) = throttles();
        let limit = config::ThrottleConfig::default().address_failures.get();
        for n in 0..limit {
            let address: IpAddr = format!("2001:db8::{n:x}").parse().unwrap();
            assert_eq!(throttles.address(address), Admission::Free);
        }
        let next: IpAddr = "2001:db8::ffff".parse().unwrap();
        assert!(matches!(throttles.address(next), Admission::Refused { .. }));
        clock.advance(config::ThrottleConfig::default().window);
        assert_eq!(throttles.address(next), Admission::Free);
    }

    #[test]
    fn memory_is_bounded() {
        let (throttles, _) = throttles();
        for n in 0..2 * u32::try_from(MAX_COUNTED).unwrap() {
            throttles.address(IpAddr::V4(n.into()));
        }
        assert!(locked(&throttles.addresses).0.len() <= MAX_COUNTED);
    }
}
