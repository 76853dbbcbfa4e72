//! `StartDevice`: a device requests authorization (RFC 8628 §3.1).

use conclave_proto::command::v1 as pb;

use super::{DeviceAnswer, DeviceRequest};
use crate::{
    client::{ClientId, GrantType},
    draft::Draft,
    grant::within_client,
    ids::{DeviceId, SecretHash},
    reply::{Reason, Refusal, Reply, ReplyBody, body},
};

/// Longest time to wait for the user: half an hour.
const MAX_TTL_MS: u64 = 1_800_000;
/// Most pending requests of one client: anyone can pretend to be a public client, and must not take room from the
/// others.
const MAX_OF_CLIENT: usize = 2_000;
/// Most pending requests in all. This bounds their memory and the chance to guess a user code.
const MAX_WAITING: usize = 10_000;

pub(crate) fn start(draft: &mut Draft, command: &pb::StartDevice) -> Result<Reply, Refusal> {
    let id = DeviceId::parse(&command.device_id)?;
    let client = draft.state.able_client(&ClientId::parse(&command.client_id)?)?;
    client.must_allow(GrantType::DeviceCode)?;
    within_client(&client, &command.scopes, &command.resources)?;
    if command.ttl_ms == 0 || command.ttl_ms > MAX_TTL_MS {
        return Err(Refusal::malformed("ttl_ms of a device request is out of bounds"));
    }
    let user_code_hash = parse_user_code(&command.user_code_hash)?;
    if draft.state.devices.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, "the device request exists"));
    }
    // Also the code of an expired request: the user may still have it.
    if draft.state.user_codes.contains_key(&user_code_hash) {
        return Err(Refusal::new(Reason::UserCodeTaken, "the user code is in use"));
    }
    if draft.state.devices.len() >= MAX_WAITING || draft.state.devices_of(&client.id) >= MAX_OF_CLIENT {
        return Err(Refusal::new(Reason::TooManyWaiting, "too many devices wait"));
    }
    draft.state.put_device(DeviceRequest {
        id,
        client: client.id.clone(),
        scopes: command.scopes.clone(),
        resources: command.resources.clone(),
        secret_hash: SecretHash::parse(&command.secret_hash)?,
        user_code_hash,
        expires_at: draft.at.plus_ms(command.ttl_ms),
        answer: DeviceAnswer::Waiting,
    });
    Ok(body(ReplyBody::Recorded(pb::Recorded { index: draft.index })))
}

pub(super) fn parse_user_code(bytes: &[u8]) -> Result<[u8; 32], Refusal> {
    bytes.try_into().map_err(|_| Refusal::malformed("user_code_hash must be 32 bytes"))
}
