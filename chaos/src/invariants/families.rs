//! A refresh token has at most one successor: a retry after a lost response gets the same one.

use std::collections::BTreeMap;

use conclave_proto::command::v1::command::Body;
use conclave_state::ReplyBody;

use super::{Invariant, hex};
use crate::oracle::AppliedStep;

/// The successor (generation, index) of each (family, generation).
#[derive(Default)]
pub(super) struct Families(BTreeMap<(Vec<u8>, u64), (u64, u64)>);

impl Invariant for Families {
    fn name(&self) -> &'static str {
        "one-live-refresh-token"
    }

    fn applied(&mut self, step: &AppliedStep<'_>) -> Result<(), String> {
        let Some((command, reply)) = step.entry.command.as_ref().zip(step.reply) else { return Ok(()) };
        let (Body::RotateRefresh(rotate), Some(ReplyBody::RefreshRotated(rotated))) =
            (&command.body, &reply.body)
        else {
            return Ok(());
        };
        let child = (rotated.generation, rotated.index);
        let parent = (rotate.family_id.clone(), rotate.generation);
        let first = *self.0.entry(parent).or_insert(child);
        let family = hex(&rotate.family_id);
        if child.0 != rotate.generation + 1 {
            return Err(format!("generation {} of family {family} became {}", rotate.generation, child.0));
        }
        if first != child {
            return Err(format!("generation {} of family {family} has two successors", rotate.generation));
        }
        Ok(())
    }
}
