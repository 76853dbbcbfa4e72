//! Revocations of which only the log entries are left: the entries between the end of the restorable state and the end
//! of the journal. They are applied unchanged and in order. The rows that they refer to may be missing: a refusal
//! changes nothing.

use crate::{
    apply::{IndexedEntry, apply},
    reply::ReplyBody,
    state::State,
};

/// The result of replaying a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCounts {
    /// Entries that revoked or restricted something.
    pub applied: usize,
    /// Entries whose object is not in the restored state.
    pub without_object: usize,
    /// Entries of a newer version; their effect is unknown.
    pub not_understood: usize,
}

/// The state after those entries (index, bytes) of the journal that it has not applied yet.
pub fn replay<'a>(
    state: &State,
    entries: impl IntoIterator<Item = (u64, &'a [u8])>,
) -> (State, ReplayCounts) {
    let mut state = state.clone();
    let mut counts = ReplayCounts::default();
    for (index, bytes) in entries {
        if index <= state.index() {
            continue;
        }
        match apply(&state, &IndexedEntry { index, bytes }) {
            Ok(applied) => {
                match applied.reply.body {
                    Some(ReplyBody::Refused(_)) => counts.without_object += 1,
                    _ => counts.applied += 1,
                }
                state = applied.state;
            }
            Err(_) => counts.not_understood += 1,
        }
    }
    (state, counts)
}
