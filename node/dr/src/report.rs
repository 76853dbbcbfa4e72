//! The changes that a restore would make, for the operator who decides.

use conclave_state::{
    State,
    restore::{RowChange, changes},
};

/// The most changes that are listed; an operator reads no more.
const MAX_LISTED: usize = 200;

/// The changes to the newest state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeReport {
    /// Some of the changes.
    pub changes: Vec<RowChange>,
    /// The number of all changes.
    pub change_count: usize,
    /// The number of users afterwards.
    pub users: usize,
    /// The number of sessions that end.
    pub sessions_ended: usize,
}

impl ChangeReport {
    /// Compares the newest state with the one that replaces it.
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
