//! `Sweep`: removes expired rows, a bounded number at a time. They were dead before; this only frees memory.

use conclave_proto::command::v1 as pb;

use crate::{
    draft::Draft,
    reply::{Refusal, Reply, ReplyBody, body},
    state::Expiring,
};

/// Most rows of one sweep: applying it must stay far below a heartbeat.
const MAX_ROWS: u32 = 1_000;

pub(crate) fn sweep(draft: &mut Draft, command: &pb::Sweep) -> Result<Reply, Refusal> {
    let removed = sweep_rows(draft, command.limit.min(MAX_ROWS));
    Ok(body(ReplyBody::Swept(pb::Swept { removed })))
}

/// Removes at most this many dead rows, the earliest expiry first; returns the number removed.
pub(super) fn sweep_rows(draft: &mut Draft, limit: u32) -> u32 {
    let mut removed = 0;
    while removed < limit {
        let Some((at, row)) = draft.state.expiries.get_min().copied() else { break };
        if !at.is_over_at(draft.at) {
            break;
        }
        draft.state.expiries.remove(&(at, row));
        remove(draft, row);
        removed += 1;
    }
    removed
}

fn remove(draft: &mut Draft, row: Expiring) {
    match row {
        Expiring::Session(id) => draft.end_session(id),
        Expiring::Grant(id) => draft.state.take_grant(id),
        Expiring::Token(id) => drop(draft.state.take_token(id)),
        Expiring::Ticket(id) => draft.state.take_ticket(id),
        Expiring::Throttle(id) => draft.state.take_throttle(id),
        Expiring::Pushed(id) => draft.state.take_pushed(id),
        Expiring::Device(id) => draft.state.take_device(id),
        Expiring::AppPassword(id) => drop(draft.state.take_app_password(id)),
        Expiring::Restore(id) => draft.state.forget_restore(id),
        Expiring::Invitation(id) => drop(draft.state.take_invitation(id)),
        Expiring::RevokedAccess(id) => drop(draft.state.revoked_access.remove(&id)),
    }
}
