//! The mutable view of a command while it is applied: the next state, the time, the index, and the events that it
//! reports.

use crate::{
    event::Event,
    level,
    reply::{Refusal, Reply},
    stamp::{MAX_STEP_MS, Stamp},
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
    /// Starts from `state` as seen by the entry at `index`, at log time `max(clock, at)`; from feature level 2 on at
    /// most [`MAX_STEP_MS`] later than before.
    pub(crate) fn begin(state: &State, index: u64, at: Stamp) -> Self {
        let mut state = state.clone();
        state.meta.index = index;
        let before = state.meta.clock;
        let is_bounded = state.meta.level >= level::BOUNDED_LOG_TIME && before != Stamp::default();
        let at = if is_bounded { at.min(before.plus_ms(MAX_STEP_MS)) } else { at };
        state.meta.clock = before.max(at);
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
