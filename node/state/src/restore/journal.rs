//! Revocations of which nothing but their log entries is left: the entries between the end of what can be restored and
//! the end of the journal. They are applied as they were, in their order. What they refer to may be missing: a refusal
//! changes nothing.

use crate::{
    apply::{Entry, apply},
    reply::ReplyBody,
    state::State,
};

/// What came of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Entries that took something away.
    pub applied: usize,
    /// Entries whose object is not in what was restored.
    pub without_object: usize,
    /// Entries of a newer version; what they took away is unknown.
    pub not_understood: usize,
}

/// The state after the entries (index, bytes) of the journal that it has not seen.
pub fn replay<'a>(state: &State, entries: impl IntoIterator<Item = (u64, &'a [u8])>) -> (State, Replayed) {
    let mut state = state.clone();
    let mut counts = Replayed::default();
    for (index, bytes) in entries {
        if index <= state.index() {
            continue;
        }
        match apply(&state, &Entry { index, bytes }) {
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
