//! A code is redeemed by at most one request.

use std::collections::BTreeMap;

use conclave_state::ReplyBody;

use super::{Invariant, hex};
use crate::oracle::AppliedStep;

/// The request that redeemed the code of each grant.
#[derive(Default)]
pub(super) struct Codes(BTreeMap<Vec<u8>, [u8; 16]>);

impl Invariant for Codes {
    fn name(&self) -> &'static str {
        "codes-once"
    }

    fn applied(&mut self, step: &AppliedStep<'_>) -> Result<(), String> {
        let Some((command, reply)) = step.entry.command.as_ref().zip(step.reply) else { return Ok(()) };
        let Some(ReplyBody::CodeRedeemed(redeemed)) = &reply.body else { return Ok(()) };
        let first = *self.0.entry(redeemed.grant_id.clone()).or_insert(command.request);
        if first == command.request {
            return Ok(());
        }
        Err(format!("the code of grant {} was redeemed twice", hex(&redeemed.grant_id)))
    }
}
