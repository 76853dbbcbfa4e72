//! Failed attempts to deliver back-channel logouts, for display. Kept in the memory of the leader; the pending logouts
//! themselves are in the replicated outbox.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use conclave_state::{
    State,
    ids::{SessionId, UserId},
    outbox::OutboxEffect,
};

/// The attempts to deliver one notice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    pub times: u32,
    pub last_error: String,
}

/// Attempts by sequence number. Bounded by the outbox: entries that left it are dropped in the next round.
#[derive(Debug, Default)]
pub struct Notices(Mutex<BTreeMap<u64, Attempts>>);

impl Notices {
    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Attempts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a failure.
    pub fn failed(&self, sequence: u64, error: String) {
        let mut attempts = self.locked();
        let attempt = attempts.entry(sequence).or_default();
        attempt.times = attempt.times.saturating_add(1);
        attempt.last_error = error;
    }

    /// Drops the entries that have left the outbox.
    pub fn keep_waiting(&self, state: &State) {
        self.locked().retain(|sequence, _| state.outbox_item(*sequence).is_some());
    }

    /// Drops all entries: another node leads.
    pub fn clear(&self) {
        self.locked().clear();
    }

    pub fn of(&self, sequence: u64) -> Attempts {
        self.locked().get(&sequence).cloned().unwrap_or_default()
    }
}

/// The scope of a sign-out.
#[derive(Clone, Copy, Debug)]
pub enum Whose {
    Session(SessionId),
    User(UserId),
}

/// The names of the clients that have not accepted a notice of this sign-out yet. Reads only the oldest `most` rows.
pub fn not_told(state: &State, whose: Whose, most: usize) -> Vec<String> {
    let mut clients: Vec<String> = state
        .outbox()
        .take(most)
        .filter_map(|item| {
            let OutboxEffect::BackChannelLogout { client, session, user } = &item.effect;
            let is_of_it = match whose {
                Whose::Session(wanted) => *session == wanted,
                Whose::User(wanted) => *user == wanted,
            };
            is_of_it.then(|| client.to_string())
        })
        .collect();
    clients.sort();
    clients.dedup();
    clients
}
