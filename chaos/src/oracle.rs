//! Passes every step of a history to every invariant.

use conclave_state::State;

use crate::{
    invariants::{self, Invariant},
    rules::log::LoggedEntry,
};

/// One entry, as one replica has just applied it.
#[derive(Clone, Copy, Debug)]
pub struct AppliedStep<'a> {
    /// The replica.
    pub replica: usize,
    /// The entry's log index.
    pub index: u64,
    /// The entry.
    pub entry: &'a LoggedEntry,
    /// The replica's state before.
    pub before: &'a State,
    /// The replica's state after.
    pub after: &'a State,
    /// Its reply; none for an entry without a command.
    pub reply: Option<&'a conclave_state::Reply>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {what} (replica {replica}, index {index})")]
pub struct Violation {
    /// The promise.
    pub invariant: &'static str,
    /// The replica that showed it.
    pub replica: usize,
    /// The log index.
    pub index: u64,
    /// A description of the violation.
    pub what: String,
}

/// All promises, or some of them.
pub struct Oracle(Vec<Box<dyn Invariant>>);

impl Default for Oracle {
    fn default() -> Self {
        Self(invariants::all())
    }
}

impl Oracle {
    /// An oracle with this invariant alone: a bug that one invariant catches first must not hide that another misses
    /// it.
    #[must_use]
    pub fn only(name: &str) -> Self {
        Self(invariants::all().into_iter().filter(|invariant| invariant.name() == name).collect())
    }

    /// Checks an entry that was applied.
    ///
    /// # Errors
    /// The first promise that it breaks.
    pub fn applied(&mut self, step: &AppliedStep<'_>) -> Result<(), Violation> {
        self.0.iter_mut().try_for_each(|invariant| {
            let seen = invariant.applied(step);
            seen.map_err(|what| violation(&**invariant, step.replica, step.index, what))
        })
    }

    /// Checks a state that a replica holds without having applied an entry: it was loaded from a snapshot.
    ///
    /// # Errors
    /// The first promise that it breaks.
    pub fn restored(&mut self, replica: usize, state: &State) -> Result<(), Violation> {
        self.0.iter_mut().try_for_each(|invariant| {
            let seen = invariant.holds(state);
            seen.map_err(|what| violation(&**invariant, replica, state.index(), what))
        })
    }
}

fn violation(invariant: &dyn Invariant, replica: usize, index: u64, what: String) -> Violation {
    Violation { invariant: invariant.name(), replica, index, what }
}
