//! Verifies at start-up that this is the log that was reported durable, by walking the whole chain. Any doubt is
//! [`StoreError::Damaged`].

use super::super::StoreError;
use super::super::record::Facts;
use super::engine::{Engine, guarded};
use super::sizes::Sizes;

/// Checks the entries against the facts and the facts against the mark.
pub(super) fn verify(engine: &Engine, marked: u64) -> Result<(Facts, Sizes), StoreError> {
    guarded(engine.dir(), || walk(engine, marked))?
}

fn walk(engine: &Engine, marked: u64) -> Result<(Facts, Sizes), StoreError> {
    let damaged = |detail: String| StoreError::damaged(engine.dir(), detail);
    let facts = engine.facts()?.ok_or_else(|| damaged("its facts are missing".to_owned()))?;
    if facts.sequence < marked {
        let lost = marked - facts.sequence;
        return Err(damaged(format!("it lost {lost} batches that had been reported durable")));
    }
    let mut sizes = Sizes::default();
    let mut due = facts.state.first_index;
    let (mut last, mut crc) = (None, facts.anchor_crc);
    for chained in engine.records(0, u64::MAX) {
        let chained = chained?;
        let index = chained.record.index;
        if due != Some(index) {
            return Err(damaged(format!("entry {index} stands where {due:?} is due")));
        }
        if chained.previous != crc {
            return Err(damaged(format!("entry {index} does not continue the entry before it")));
        }
        sizes.add(index, super::record::HEADER_BYTES + chained.record.payload.len());
        due = index.checked_add(1);
        crc = chained.crc;
        last = Some(chained.record.id());
    }
    if last != facts.state.last || crc != facts.last_crc {
        return Err(damaged(format!("it ends with {last:?}, {:?} was written", facts.state.last)));
    }
    Ok((facts, sizes))
}
