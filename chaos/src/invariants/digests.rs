//! Replicas at the same index hold the same state, regardless of how they reached it.

use std::collections::BTreeMap;

use conclave_state::{State, snapshot::digest};

use super::{Invariant, hex};
use crate::oracle::AppliedStep;

/// The digest that the first replica to reach an index had.
#[derive(Default)]
pub(super) struct Digests(BTreeMap<u64, [u8; 32]>);

impl Invariant for Digests {
    fn name(&self) -> &'static str {
        "equal-digests"
    }

    fn applied(&mut self, step: &AppliedStep<'_>) -> Result<(), String> {
        self.holds(step.after)
    }

    fn holds(&mut self, state: &State) -> Result<(), String> {
        let own = digest(state);
        let first = *self.0.entry(state.index()).or_insert(own);
        if own == first {
            return Ok(());
        }
        Err(format!("digest {} where another replica has {}", hex(&own), hex(&first)))
    }
}
