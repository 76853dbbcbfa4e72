//! `IssueCode`: an authorization code for a client of a live session (RFC 6749 §4.1.2).

use conclave_proto::command::v1 as pb;

use super::{Grant, dpop};
use crate::{
    client::{ClientId, GrantType},
    draft::Draft,
    ids::{GrantId, SecretHash, SessionId, TicketId},
    reply::{Reason, Refusal, Reply, ReplyBody, body},
    stamp::Stamp,
    text,
};

/// Longest life of a code (RFC 6749 §4.1.2 recommends at most ten minutes; FAPI 2 wants one).
const MAX_CODE_TTL_MS: u64 = 600_000;
/// Longest nonce kept: longer ones are a mistake of the client.
const MAX_NONCE_BYTES: usize = 512;

pub(crate) fn issue_code(draft: &mut Draft, order: &pb::IssueCode) -> Result<Reply, Refusal> {
    if !order.ticket_id.is_empty() {
        draft.spend_ticket(TicketId::parse(&order.ticket_id)?, Stamp(order.ticket_expires_at_ms))?;
    }
    let id = open(draft, order, SessionId::parse(&order.session_id)?)?;
    Ok(body(ReplyBody::CodeIssued(pb::CodeIssued { grant_id: id.to_vec(), index: draft.index })))
}

/// The grant with its code, for the session given by the caller (the order's own is not looked at).
pub(crate) fn open(draft: &mut Draft, order: &pb::IssueCode, session: SessionId) -> Result<GrantId, Refusal> {
    let id = GrantId::parse(&order.grant_id)?;
    let (session, user) = draft.state.existing_live_session(session, draft.at)?;
    let client = draft.state.able_client(&ClientId::parse(&order.client_id)?)?;
    client.must_allow(GrantType::AuthorizationCode)?;
    if !draft.state.client_admits(&client, &user) {
        return Err(Refusal::new(
            Reason::AccessDenied,
            format!("{} may not open {}", user.username, client.id),
        ));
    }
    if !client.redirect_uris.contains(&order.redirect_uri) {
        return Err(Refusal::malformed("redirect_uri is not registered for the client"));
    }
    if let Some(scope) = order.scopes.iter().find(|scope| !client.scopes.contains(scope)) {
        return Err(Refusal::malformed(format!("scope {scope} is not allowed for the client")));
    }
    if order.code_ttl_ms == 0 || order.code_ttl_ms > MAX_CODE_TTL_MS {
        return Err(Refusal::malformed("code_ttl_ms is out of bounds"));
    }
    if draft.state.grants.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, "the grant exists"));
    }
    let code_expires_at = draft.at.plus_ms(order.code_ttl_ms);
    draft.state.put_grant(Grant {
        id,
        session: session.id,
        user: user.id,
        client: client.id.clone(),
        redirect_uri: order.redirect_uri.clone(),
        scopes: order.scopes.clone(),
        nonce: text::line("nonce", &order.nonce, MAX_NONCE_BYTES)?,
        code_challenge: parse_challenge(&order.code_challenge)?,
        secret_hash: SecretHash::parse(&order.secret_hash)?,
        code_expires_at,
        redeemed_at: None,
        family: None,
        expires_at: code_expires_at,
        auth_time: session.auth_time,
        amr: session.amr.clone(),
        epoch: draft.state.meta.revocation_epoch,
        dpop_jkt: dpop::parse(&order.dpop_jkt)?,
    });
    Ok(id)
}

pub(super) fn parse_challenge(bytes: &[u8]) -> Result<[u8; 32], Refusal> {
    bytes.try_into().map_err(|_| Refusal::malformed("code_challenge must be 32 bytes (S256)"))
}
