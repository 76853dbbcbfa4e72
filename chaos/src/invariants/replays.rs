//! A repeated request changes nothing and gets its first reply, even through another leader.

use std::collections::BTreeMap;

use conclave_state::{Reply, snapshot::digest_of_tables};

use super::{Invariant, hex};
use crate::oracle::AppliedStep;

/// The first reply to each request.
#[derive(Default)]
pub(super) struct Replays(BTreeMap<[u8; 16], Reply>);

impl Invariant for Replays {
    fn name(&self) -> &'static str {
        "replays-change-nothing"
    }

    fn applied(&mut self, step: &AppliedStep<'_>) -> Result<(), String> {
        let Some((command, reply)) = step.entry.command.as_ref().zip(step.reply) else { return Ok(()) };
        if !command.repeated {
            self.0.entry(command.request).or_insert_with(|| reply.clone());
            return Ok(());
        }
        let request = hex(&command.request);
        if self.0.get(&command.request) != Some(reply) {
            return Err(format!("request {request} got another reply when it was repeated"));
        }
        if digest_of_tables(step.before) != digest_of_tables(step.after) {
            return Err(format!("request {request} changed something when it was repeated"));
        }
        Ok(())
    }
}
