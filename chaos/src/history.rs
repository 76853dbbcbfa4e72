//! Every operation with its times, and the rules for judging them. The judge knows the promises and nothing of Raft.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::promise::{Broken, Promise};

/// The result of a client's check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The client may pass.
    Accepted,
    /// The client was redirected to sign in.
    Denied,
    /// No response, or one that says neither.
    Unavailable,
}

/// The result of an operation, as far as its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationResult {
    /// It was carried out, or answered.
    Acknowledged,
    /// It was certainly not carried out.
    Refused,
    /// It may have been carried out.
    Unknown,
}

/// Time since the history began, comparable across nodes.
pub type When = Duration;

/// A session: one sign-in of one user.
#[derive(Default)]
struct Session {
    user: String,
    signed_in: Option<When>,
    /// The time at which the first attempt to revoke it began.
    revoking: Option<When>,
    /// The time at which a revocation was acknowledged.
    revoked: Option<When>,
    checks: Vec<Check>,
}

struct Check {
    node: u64,
    began: When,
    ended: When,
    seen: Seen,
}

#[derive(Default)]
struct Inner {
    sessions: BTreeMap<u64, Session>,
    /// Successful redemptions, by code.
    redeemed: BTreeMap<String, u32>,
    /// The newest acknowledged refresh token of each family, and whether a use of it got no response.
    families: BTreeMap<u64, (String, bool)>,
    /// The successors that were observed for each refresh token.
    children: BTreeMap<String, BTreeSet<String>>,
    /// Users whose creation was acknowledged.
    users: BTreeSet<String>,
    counts: BTreeMap<&'static str, u64>,
    /// Durations of revocations.
    revocations: Vec<Duration>,
}

/// The record of all operations.
pub struct History {
    inner: Mutex<Inner>,
    clock: Box<dyn Fn() -> When + Send + Sync>,
}

impl Default for History {
    /// A history with this process's clock.
    fn default() -> Self {
        let start = Instant::now();
        Self::new(move || start.elapsed())
    }
}

impl History {
    /// A history with a clock of the caller, which never goes back.
    pub fn new(clock: impl Fn() -> When + Send + Sync + 'static) -> Self {
        Self { inner: Mutex::default(), clock: Box::new(clock) }
    }

    /// The present time.
    pub fn now(&self) -> When {
        (self.clock)()
    }

    pub fn count(&self, what: &'static str) {
        *self.locked().counts.entry(what).or_default() += 1;
    }

    /// Records that an operation has ended for its caller.
    pub fn ran(&self, answer: OperationResult) {
        let name = match answer {
            OperationResult::Acknowledged => "operations acknowledged",
            OperationResult::Refused => "operations refused",
            OperationResult::Unknown => "operations of unknown outcome",
        };
        self.count("operations");
        self.count(name);
    }

    pub fn signed_in(&self, user: &str) -> u64 {
        let mut inner = self.locked();
        let session = inner.sessions.len() as u64;
        let row = Session { user: user.to_owned(), signed_in: Some(self.now()), ..Session::default() };
        inner.sessions.insert(session, row);
        *inner.counts.entry("logins").or_default() += 1;
        session
    }

    pub fn checked(&self, session: u64, node: u64, began: When, seen: Seen) {
        let mut inner = self.locked();
        let name = match seen {
            Seen::Accepted => "checks accepted",
            Seen::Denied => "checks denied",
            Seen::Unavailable => "checks without an answer",
        };
        *inner.counts.entry(name).or_default() += 1;
        if let Some(row) = inner.sessions.get_mut(&session) {
            row.checks.push(Check { node, began, ended: self.now(), seen });
        }
    }

    /// Records that a revocation of all sessions of this user begins; returns the sessions that it ends.
    pub fn revoking(&self, user: &str) -> Vec<u64> {
        let mut inner = self.locked();
        let live = inner.sessions.iter_mut().filter(|(_, row)| row.user == user && row.revoked.is_none());
        live.map(|(id, row)| {
            row.revoking.get_or_insert_with(|| self.now());
            *id
        })
        .collect()
    }

    pub fn revoked(&self, sessions: &[u64], began: When) {
        let mut inner = self.locked();
        for session in sessions {
            if let Some(row) = inner.sessions.get_mut(session) {
                row.revoked.get_or_insert_with(|| self.now());
            }
        }
        inner.revocations.push(self.now().saturating_sub(began));
        *inner.counts.entry("revocations acknowledged").or_default() += 1;
    }

    pub fn redeemed(&self, code: &str) {
        let mut inner = self.locked();
        *inner.redeemed.entry(code.to_owned()).or_default() += 1;
        *inner.counts.entry("codes redeemed").or_default() += 1;
    }

    /// Records the newest token of a session's family; `certain` is false if a later use of it got no response.
    pub fn refresh_token(&self, session: u64, token: &str, certain: bool) {
        self.locked().families.insert(session, (token.to_owned(), certain));
    }

    /// Records that a refresh token was exchanged for another.
    pub fn rotated(&self, parent: &str, child: &str) {
        let mut inner = self.locked();
        inner.children.entry(parent.to_owned()).or_default().insert(child.to_owned());
    }

    /// Records that the creation of this user was acknowledged.
    pub fn user_created(&self, name: &str) {
        self.locked().users.insert(name.to_owned());
    }

    /// Users whose creation was acknowledged.
    pub fn users(&self) -> BTreeSet<String> {
        self.locked().users.clone()
    }

    /// Sessions that were signed in and never asked to be revoked, with their family's token if it is certain.
    pub fn must_live(&self) -> Vec<(u64, Option<String>)> {
        let inner = self.locked();
        let live = inner.sessions.iter().filter(|(_, row)| row.signed_in.is_some() && row.revoking.is_none());
        live.map(|(id, _)| {
            let family = inner.families.get(id).filter(|(_, certain)| *certain);
            (*id, family.map(|(token, _)| token.clone()))
        })
        .collect()
    }

    /// The required state of each session at the end: true if it must be live, false if it must not, none if that is
    /// unknown.
    pub fn fates(&self) -> Vec<(String, Option<bool>)> {
        self.locked().sessions.values().map(|row| (row.user.clone(), row.fate())).collect()
    }

    /// The required state of one session, like in [`fates`](Self::fates).
    pub fn fate(&self, session: u64) -> Option<bool> {
        self.locked().sessions.get(&session).and_then(Session::fate)
    }

    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let mut inner = self.locked();
        inner.revocations.sort();
        let at = |permille: usize| {
            let place = inner.revocations.len().saturating_sub(1) * permille / 1000;
            inner.revocations.get(place).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        let mut counts: Vec<_> = inner.counts.iter().map(|(name, count)| (*name, *count)).collect();
        counts.extend([
            ("revocation, median ms", at(500)),
            ("revocation, p99 ms", at(990)),
            ("revocation, longest ms", at(1000)),
        ]);
        counts
    }

    /// The broken promises.
    pub fn judge(&self) -> Vec<Broken> {
        let inner = self.locked();
        let mut broken = Vec::new();
        for (id, row) in &inner.sessions {
            broken.extend(row.checks.iter().filter_map(|check| row.complaint(*id, check)));
        }
        let twice = inner.redeemed.iter().filter(|(_, times)| **times > 1);
        broken.extend(twice.map(|(code, times)| {
            Promise::OnceOnly.broken(format!("a code was redeemed {times} times: {code}"))
        }));
        let forked = inner.children.values().filter(|children| children.len() > 1);
        broken.extend(forked.map(|children| {
            Promise::OnceOnly.broken(format!("a refresh token has {} successors", children.len()))
        }));
        broken
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn fate(&self) -> Option<bool> {
        match (self.revoking, self.revoked) {
            (None, _) => Some(true),
            (Some(_), Some(_)) => Some(false),
            (Some(_), None) => None,
        }
    }

    fn complaint(&self, id: u64, check: &Check) -> Option<Broken> {
        let Check { node, began, ended, seen } = check;
        match seen {
            // Linearizable: a check that starts after the acknowledgement must see it, on any node.
            Seen::Accepted if self.revoked.is_some_and(|revoked| *began > revoked) => {
                let late = self.revoked.map(|revoked| began.saturating_sub(revoked)).unwrap_or_default();
                Some(Promise::RevokedAtOnce.broken(format!(
                    "session {id} was accepted by node {node} {late:?} after its revocation was acknowledged"
                )))
            }
            // No login loop: a signed-in user is never redirected to sign in.
            Seen::Denied
                if self.signed_in.is_some_and(|signed_in| *began > signed_in)
                    && self.revoking.is_none_or(|revoking| *ended < revoking) =>
            {
                Some(Promise::NoLoginLoop.broken(format!(
                    "session {id} was sent to the login page by node {node} although it was not revoked"
                )))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_accept_a_login_loop_a_code_redeemed_twice_and_a_forked_family_are_seen_and_nothing_else() {
        let history = History::default();
        let (fine, stale, looped) = (history.signed_in("a"), history.signed_in("b"), history.signed_in("c"));
        history.checked(fine, 1, history.now(), Seen::Accepted);
        history.checked(fine, 1, history.now(), Seen::Unavailable);
        let early = history.now();
        let began = history.now();
        let ended = history.revoking("b");
        assert_eq!(ended, [stale]);
        history.revoked(&ended, began);
        history.checked(stale, 2, early, Seen::Accepted);
        history.checked(stale, 2, history.now(), Seen::Denied);
        history.redeemed("once");
        history.rotated("parent", "child");
        history.rotated("parent", "child");
        assert_eq!(history.judge(), []);
        assert_eq!((history.fate(fine), history.fate(stale)), (Some(true), Some(false)));

        std::thread::yield_now();
        history.checked(stale, 3, history.now() + Duration::from_millis(1), Seen::Accepted);
        history.checked(looped, 1, history.now() + Duration::from_millis(1), Seen::Denied);
        history.redeemed("twice");
        history.redeemed("twice");
        history.rotated("parent", "another successor");
        let promises: Vec<_> = history.judge().into_iter().map(|broken| broken.promise).collect();
        assert_eq!(
            promises,
            [Promise::RevokedAtOnce, Promise::NoLoginLoop, Promise::OnceOnly, Promise::OnceOnly]
        );
    }
}
