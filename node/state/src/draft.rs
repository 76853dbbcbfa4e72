//! What a command may touch while it is being applied: the next state, the time, the index, and the facts it reports.

use crate::{
    event::Event,
    reply::{Refusal, Reply},
    stamp::Stamp,
    state::State,
};

/// The next state in the making. Dropped when the command is refused.
pub(crate) struct Draft {
    pub(crate) state: State,
    pub(crate) at: Stamp,
    pub(crate) index: u64,
    events: Vec<Event>,
}

impl Draft {
    /// Starts from `state` as seen by the entry at `index`, at log time `max(clock, at)`.
    pub(crate) fn begin(state: &State, index: u64, at: Stamp) -> Self {
        let mut state = state.clone();
        state.meta.index = index;
        state.meta.clock = state.meta.clock.max(at);
        Self { at: state.meta.clock, state, index, events: Vec::new() }
    }

    pub(crate) fn report(&mut self, event: Event) {
        self.events.push(event);
    }

    /// A refusal whose changes stay: reuse ends a family although the caller is refused.
    pub(crate) fn refuse_and_keep(refusal: Refusal) -> Result<Reply, Refusal> {
        Ok(refusal.into_reply())
    }

    pub(crate) fn into_parts(self) -> (State, Vec<Event>) {
        (self.state, self.events)
    }
}
