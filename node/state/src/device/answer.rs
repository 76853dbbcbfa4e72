//! `AnswerDevice`: the user allows or denies, once (RFC 8628 §3.3).

use conclave_proto::command::v1 as pb;

use super::{DeviceAnswer, DeviceRequest};
use crate::{
    draft::Draft,
    ids::{DeviceId, SessionId, TicketId},
    reply::{Reason, Refusal, Reply, done},
    stamp::Stamp,
};

pub(crate) fn answer(draft: &mut Draft, command: &pb::AnswerDevice) -> Result<Reply, Refusal> {
    draft.spend_ticket(TicketId::parse(&command.ticket_id)?, Stamp(command.ticket_expires_at_ms))?;
    let device = draft.state.existing_device(DeviceId::parse(&command.device_id)?, draft.at)?;
    if device.answer != DeviceAnswer::Waiting {
        return Err(Refusal::new(Reason::DeviceUnknown, "the device request was answered before"));
    }
    let (session, user) =
        draft.state.existing_live_session(SessionId::parse(&command.session_id)?, draft.at)?;
    let client = draft.state.able_client(&device.client)?;
    let answer =
        if command.allow { DeviceAnswer::Allowed { session: session.id } } else { DeviceAnswer::Denied };
    if command.allow && !draft.state.client_admits(&client, &user, command.policy_version) {
        return Err(Refusal::new(
            Reason::AccessDenied,
            format!("{} may not open {}", user.username, client.id),
        ));
    }
    draft.state.put_device(DeviceRequest { answer, ..(*device).clone() });
    Ok(done())
}
