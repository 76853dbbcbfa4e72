//! The cluster's own bookkeeping: request memory, spent tickets and proofs, level, revocation epoch, lease terms, node
//! ids, sweep.

mod clock;
mod lease;
mod memory;
mod node_id;
mod proof;
mod sweep;
mod ticket;

use conclave_proto::command::v1 as pb;

pub use {
    lease::{ChangedTerms, LeaseTerms},
    memory::RememberedReply,
    ticket::SpentTicket,
};

pub(crate) use {
    clock::set_clock, lease::set_lease_terms, node_id::reserve_node_id, proof::spend_proofs, sweep::sweep,
};

use crate::{
    draft::Draft,
    reply::{Refusal, Reply, done},
};

/// Raises the feature level. It never falls: an entry that was written at a level is always read at it.
pub(crate) fn raise_level(draft: &mut Draft, command: &pb::RaiseLevel) -> Result<Reply, Refusal> {
    draft.state.meta.level = draft.state.meta.level.max(command.level);
    Ok(done())
}

/// Raises the revocation epoch: every session, grant and app password made before is dead from now on; sweeps remove
/// their rows at their expiry.
pub(crate) fn raise_revocation_epoch(draft: &mut Draft) -> Result<Reply, Refusal> {
    draft.state.meta.revocation_epoch += 1;
    Ok(done())
}
