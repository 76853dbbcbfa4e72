//! `IssueCode`: an authorization code for a client of a live session (RFC 6749 §4.1.2).

use conclave_proto::command::v1 as pb;

use super::{Grant, dpop};
use crate::{
    client::{Client, ClientId, GrantType},
    draft::Draft,
    ids::{GrantId, PushedRequestId, SecretHash, SessionId, TicketId},
    reply::{Reason, Refusal, Reply, ReplyBody, body},
    stamp::Stamp,
    text,
};

/// Longest lifetime of a code (RFC 6749 §4.1.2 recommends at most ten minutes; FAPI 2 requires one).
const MAX_CODE_TTL_MS: u64 = 600_000;
/// Longest nonce kept, in bytes; a longer one is an error of the client. The request parser refuses it before the user
/// sees a page.
pub const MAX_NONCE_BYTES: usize = 512;
/// Most claims requested by name: as many as there are.
const MAX_CLAIMS: usize = 64;

pub(crate) fn issue_code(draft: &mut Draft, command: &pb::IssueCode) -> Result<Reply, Refusal> {
    if !command.ticket_id.is_empty() {
        draft.spend_ticket(TicketId::parse(&command.ticket_id)?, Stamp(command.ticket_expires_at_ms))?;
    }
    let id = open(draft, command, SessionId::parse(&command.session_id)?)?;
    Ok(body(ReplyBody::CodeIssued(pb::CodeIssued { grant_id: id.to_vec(), index: draft.index })))
}

/// Creates the grant with its code, for the session given by the caller (the session in the command is ignored).
pub(crate) fn open(
    draft: &mut Draft,
    command: &pb::IssueCode,
    session: SessionId,
) -> Result<GrantId, Refusal> {
    let id = GrantId::parse(&command.grant_id)?;
    let (session, user) = draft.state.existing_live_session(session, draft.at)?;
    let client = draft.state.able_client(&ClientId::parse(&command.client_id)?)?;
    client.must_allow(GrantType::AuthorizationCode)?;
    if !draft.state.client_admits(&client, &user, command.policy_version) {
        return Err(Refusal::new(
            Reason::AccessDenied,
            format!("{} may not open {}", user.username, client.id),
        ));
    }
    if !client.may_be_answered_at(&command.redirect_uri) {
        return Err(Refusal::malformed("redirect_uri is not registered for the client"));
    }
    within_client(&client, &command.scopes, &command.resources)?;
    let code_challenge = parse_challenge(&command.code_challenge)?;
    if code_challenge.is_none() && !client.may_omit_pkce(&command.nonce) {
        return Err(Refusal::malformed("code_challenge is missing"));
    }
    if !command.pushed_request_id.is_empty() {
        use_pushed(draft, command)?;
    }
    if command.code_ttl_ms == 0 || command.code_ttl_ms > MAX_CODE_TTL_MS {
        return Err(Refusal::malformed("code_ttl_ms is out of bounds"));
    }
    if draft.state.grants.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, "the grant exists"));
    }
    let code_expires_at = draft.at.plus_ms(command.code_ttl_ms);
    draft.state.put_grant(Grant {
        id,
        session: session.id,
        user: user.id,
        client: client.id.clone(),
        redirect_uri: command.redirect_uri.clone(),
        scopes: command.scopes.clone(),
        nonce: text::line("nonce", &command.nonce, MAX_NONCE_BYTES)?,
        code_challenge,
        secret_hash: SecretHash::parse(&command.secret_hash)?,
        code_expires_at,
        redeemed_at: None,
        family: None,
        expires_at: code_expires_at,
        auth_time: session.auth_time,
        amr: session.amr.clone(),
        epoch: draft.state.meta.revocation_epoch,
        resources: command.resources.clone(),
        id_token_claims: parse_claims(&command.id_token_claims)?,
        userinfo_claims: parse_claims(&command.userinfo_claims)?,
        dpop_jkt: dpop::parse(&command.dpop_jkt)?,
    });
    draft.note_client(&session, &client.id);
    if command.remember_consent {
        draft.remember_consent(user.id, &client.id, command);
    }
    Ok(id)
}

/// Uses up a pushed request: it becomes one code (RFC 9126 §4). Its use is remembered for as long as a login may be
/// pending with it, because the request itself expires while a user takes their time.
fn use_pushed(draft: &mut Draft, command: &pb::IssueCode) -> Result<(), Refusal> {
    let id = PushedRequestId::parse(&command.pushed_request_id)?;
    draft.spend_ticket(TicketId::new(*id.bytes()), Stamp(command.pushed_until_ms))?;
    draft.state.take_pushed(id);
    Ok(())
}

/// Checks that the client may request all of this.
pub(crate) fn within_client(client: &Client, scopes: &[String], resources: &[String]) -> Result<(), Refusal> {
    if let Some(scope) = scopes.iter().find(|scope| !client.scopes.contains(scope)) {
        return Err(Refusal::malformed(format!("scope {scope} is not allowed for the client")));
    }
    if let Some(resource) = resources.iter().find(|resource| !client.requests.resources.contains(resource)) {
        return Err(Refusal::malformed(format!("resource {resource} is not allowed for the client")));
    }
    Ok(())
}

fn parse_claims(names: &[String]) -> Result<Vec<String>, Refusal> {
    if names.len() > MAX_CLAIMS {
        return Err(Refusal::malformed(format!("at most {MAX_CLAIMS} claims are asked for by name")));
    }
    names.iter().map(|name| text::required("claim", name, text::MAX_TEXT_BYTES)).collect()
}

/// Parses 32 bytes, or nothing.
pub(super) fn parse_challenge(bytes: &[u8]) -> Result<Option<[u8; 32]>, Refusal> {
    match bytes {
        [] => Ok(None),
        bytes => {
            let challenge = bytes.try_into();
            challenge.map(Some).map_err(|_| Refusal::malformed("code_challenge must be 32 bytes (S256)"))
        }
    }
}
