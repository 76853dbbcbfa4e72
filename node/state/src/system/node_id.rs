//! Node ids of members. No id is ever assigned twice: an id that voted once must never vote with another disk
//! (docs/design/consensus.md).

use conclave_proto::command::v1 as pb;

use crate::{
    draft::Draft,
    reply::{Refusal, Reply, ReplyBody, body},
};

/// The highest id. Beyond it something is wrong: a cluster has at most nine voters, and operators replace them by hand.
const HIGHEST: u64 = 1_000_000;

pub(crate) fn reserve_node_id(draft: &mut Draft, command: &pb::ReserveNodeId) -> Result<Reply, Refusal> {
    let meta = &mut draft.state.meta;
    let floor = meta.last_node_id.max(command.above);
    if floor >= HIGHEST {
        return Err(Refusal::malformed("there are no such node numbers"));
    }
    meta.last_node_id = floor + 1;
    Ok(body(ReplyBody::NodeIdReserved(pb::NodeIdReserved { node_id: meta.last_node_id })))
}
