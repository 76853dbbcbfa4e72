//! Shows every step of a history to every invariant.

use conclave_state::State;

use crate::{
    invariants::{self, Invariant},
    rules::log::Committed,
};

/// One entry, as one replica has just applied it.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Which replica.
    pub replica: usize,
    /// The entry's log index.
    pub index: u64,
    /// The entry.
    pub entry: &'a Committed,
    /// What the replica knew before.
    pub before: &'a State,
    /// What it knows now.
    pub after: &'a State,
    /// What it answered; nothing to an entry without a command.
    pub reply: Option<&'a conclave_state::Reply>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {what} (replica {replica}, index {index})")]
pub struct Violation {
    /// Which promise.
    pub invariant: &'static str,
    /// Where it was seen.
    pub replica: usize,
    /// At which log index.
    pub index: u64,
    /// What was seen.
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
    /// With this invariant alone: a bug that one sees first must not hide that another is blind.
    #[must_use]
    pub fn only(name: &str) -> Self {
        Self(invariants::all().into_iter().filter(|invariant| invariant.name() == name).collect())
    }

    /// An entry was applied.
    ///
    /// # Errors
    /// The first promise that it breaks.
    pub fn applied(&mut self, step: &Step<'_>) -> Result<(), Violation> {
        self.0.iter_mut().try_for_each(|invariant| {
            let seen = invariant.applied(step);
            seen.map_err(|what| violation(&**invariant, step.replica, step.index, what))
        })
    }

    /// A replica holds this state without having applied an entry: it came back from a snapshot.
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
