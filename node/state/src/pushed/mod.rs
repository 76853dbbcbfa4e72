//! Authorization requests that a client pushed (RFC 9126), for a browser to name at any node.
//!
//! A pushed request is read each time the browser loads its page, and is used up by the code that is issued for it: the
//! command that issues the code spends the request's id, so of two codes for one request the second is refused.

use std::sync::Arc;

use conclave_proto::{command::v1 as pb, state::v1 as rows};

use crate::{
    client::ClientId,
    draft::Draft,
    ids::{PushedRequestId, SecretHash},
    reply::{Reason, Refusal, Reply, ReplyBody, body},
    snapshot::Row,
    stamp::Stamp,
    state::{Expiring, State},
};

/// Longest lifetime (RFC 9126 §2.2 names 5 to 600 seconds; a browser follows at once).
const MAX_TTL_MS: u64 = 90_000;
/// Longest request kept.
const MAX_PARAMETERS_BYTES: usize = 12 * 1024;
/// Most pending requests of one client: a client that floods must not take room from the others.
const MAX_OF_CLIENT: usize = 2_000;
/// Most pending requests in all, which bounds their memory.
const MAX_WAITING: usize = 10_000;

/// A pushed authorization request that is pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedRequest {
    /// Its id.
    pub id: PushedRequestId,
    /// The client that pushed it; only its own authorization requests may name it.
    pub client: ClientId,
    /// Hash of the secret in its `request_uri`.
    pub secret_hash: SecretHash,
    /// The parameters, form-encoded.
    pub parameters: Vec<u8>,
    /// The time from which no login may begin with it.
    pub expires_at: Stamp,
}

pub(crate) fn push(draft: &mut Draft, command: &pb::PushRequest) -> Result<Reply, Refusal> {
    let id = PushedRequestId::parse(&command.pushed_request_id)?;
    let client = draft.state.able_client(&ClientId::parse(&command.client_id)?)?;
    if command.ttl_ms == 0 || command.ttl_ms > MAX_TTL_MS {
        return Err(Refusal::malformed("ttl_ms of a pushed request is out of bounds"));
    }
    if command.parameters.len() > MAX_PARAMETERS_BYTES {
        return Err(Refusal::malformed(format!("a pushed request has at most {MAX_PARAMETERS_BYTES} bytes")));
    }
    if draft.state.pushed.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, "the pushed request exists"));
    }
    if draft.state.pushed.len() >= MAX_WAITING || draft.state.pushed_of(&client.id) >= MAX_OF_CLIENT {
        return Err(Refusal::new(Reason::TooManyWaiting, "too many pushed requests wait"));
    }
    draft.state.put_pushed(PushedRequest {
        id,
        client: client.id.clone(),
        secret_hash: SecretHash::parse(&command.secret_hash)?,
        parameters: command.parameters.clone(),
        expires_at: draft.at.plus_ms(command.ttl_ms),
    });
    Ok(body(ReplyBody::Recorded(pb::Recorded { index: draft.index })))
}

impl State {
    /// The request, if a login may still begin with it.
    pub fn pushed_request(&self, id: PushedRequestId, now: Stamp) -> Option<&Arc<PushedRequest>> {
        self.pushed.get(&id).filter(|request| !request.expires_at.is_over_at(now))
    }

    fn pushed_of(&self, client: &ClientId) -> usize {
        let from = (client.clone(), PushedRequestId::new([0; 16]));
        self.pushed_by_client.range(from..).take_while(|(of, _)| of == client).count()
    }

    pub(crate) fn put_pushed(&mut self, request: PushedRequest) {
        self.pushed_by_client.insert((request.client.clone(), request.id));
        self.expire_at(request.expires_at, Expiring::Pushed(request.id));
        self.pushed.insert(request.id, Arc::new(request));
    }

    pub(crate) fn take_pushed(&mut self, id: PushedRequestId) {
        let Some(request) = self.pushed.remove(&id) else { return };
        self.pushed_by_client.remove(&(request.client.clone(), id));
        self.forget_expiry(request.expires_at, Expiring::Pushed(id));
    }
}

impl Row for PushedRequest {
    const TABLE: u32 = 30;
    type Wire = rows::PushedRequestRow;

    fn to_wire(&self) -> rows::PushedRequestRow {
        rows::PushedRequestRow {
            pushed_request_id: self.id.to_vec(),
            client_id: self.client.to_string(),
            secret_hash: self.secret_hash.bytes().to_vec(),
            parameters: self.parameters.clone(),
            expires_at_ms: self.expires_at.0,
        }
    }

    fn from_wire(wire: rows::PushedRequestRow) -> Result<Self, Refusal> {
        Ok(Self {
            id: PushedRequestId::parse(&wire.pushed_request_id)?,
            client: ClientId::parse(&wire.client_id)?,
            secret_hash: SecretHash::parse(&wire.secret_hash)?,
            parameters: wire.parameters,
            expires_at: Stamp(wire.expires_at_ms),
        })
    }

    fn put(self, state: &mut State) {
        state.put_pushed(self);
    }
}
