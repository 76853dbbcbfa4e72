//! What a restore would change, for the person who decides.

use conclave_state::{
    State,
    restore::{Change, changes},
};

/// Most changes that are listed; a person reads no more.
const MAX_LISTED: usize = 200;

/// What becomes of the newest state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Some of the changes.
    pub changes: Vec<Change>,
    /// How many there are.
    pub change_count: usize,
    /// People afterwards.
    pub users: usize,
    /// Who is signed out.
    pub sessions_ended: usize,
}

impl Report {
    /// Compares the newest state with the one that takes its place.
    pub fn of(newest: &State, next: &State) -> Self {
        let (changes, change_count) = changes(newest, next, MAX_LISTED);
        let (before, after) = (newest.sessions_after(None).count(), next.sessions_after(None).count());
        Self {
            changes,
            change_count,
            users: next.users_after(None).count(),
            sessions_ended: before.saturating_sub(after),
        }
    }
}
