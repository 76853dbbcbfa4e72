//! `RedeemCode`: redeems a code once, by the client that it was issued to, for the redirect URI that it was sent to,
//! with the verifier that it was bound to.

use conclave_proto::command::v1 as pb;

use super::{Grant, RefreshFamily, dpop, issue::parse_challenge};
use crate::{
    client::{Client, ClientId, GrantType},
    draft::Draft,
    event::Event,
    ids::{FamilyId, GrantId, SecretHash},
    reply::{Reason, Refusal, Reply, ReplyBody, body},
};

/// Longest lifetime of a refresh family, as in the configuration.
const MAX_REFRESH_TTL_MS: u64 = 400 * 24 * 3_600_000;
/// Longest lifetime of an access token: a day.
const MAX_ACCESS_TTL_MS: u64 = 24 * 3_600_000;

pub(crate) fn redeem_code(draft: &mut Draft, command: &pb::RedeemCode) -> Result<Reply, Refusal> {
    let id = GrantId::parse(&command.grant_id)?;
    let (grant, user) = draft.state.existing_live_grant(id, draft.at)?;
    if !grant.secret_hash.matches(&SecretHash::parse(&command.secret_hash)?) {
        return Err(Refusal::new(Reason::GrantUnknown, "no such code"));
    }
    if grant.client != ClientId::parse(&command.client_id)? {
        // A second use by another client ends nothing: that client could not have used the code the first time.
        return Err(mismatch());
    }
    if grant.redeemed_at.is_some() {
        // The first caller may have been the thief: revoke what the code gave (RFC 6749 §4.1.2).
        draft.state.take_grant(id);
        draft.report(Event::CodeReused { grant: id });
        return Draft::refuse_and_keep(Refusal::new(Reason::CodeAlreadyUsed, "the code was used before"));
    }
    if grant.code_expires_at.is_over_at(draft.at) {
        return Err(Refusal::new(Reason::CodeExpired, "the code has expired"));
    }
    bound_to(&grant, command)?;
    let client = draft.state.able_client(&grant.client)?;
    client.must_allow(GrantType::AuthorizationCode)?;
    dpop::proved(&client, grant.dpop_jkt, dpop::parse(&command.dpop_jkt)?)?;
    draft.use_up(&command.proofs)?;
    if !draft.state.client_admits(&client, &user, command.policy_version) {
        return Err(Refusal::new(
            Reason::AccessDenied,
            format!("{} may not open {}", user.username, client.id),
        ));
    }
    redeem_as(draft, &client, &grant, command)
}

/// Issues the tokens of a grant. Only the lifetimes, the family and the key of `command` are used.
pub(crate) fn redeem_as(
    draft: &mut Draft,
    client: &Client,
    grant: &Grant,
    command: &pb::RedeemCode,
) -> Result<Reply, Refusal> {
    let redeemed = redeemed(draft, client, grant, command)?;
    let reply = pb::CodeRedeemed {
        grant_id: grant.id.to_vec(),
        user_id: grant.user.to_vec(),
        session_id: grant.session.to_vec(),
        scopes: grant.scopes.clone(),
        nonce: grant.nonce.clone(),
        auth_time_ms: grant.auth_time.0,
        amr: grant.amr.clone(),
        family_id: redeemed.family.map(FamilyId::to_vec).unwrap_or_default(),
        index: draft.index,
        at_ms: draft.at.0,
    };
    draft.state.put_grant(redeemed);
    Ok(body(ReplyBody::CodeRedeemed(reply)))
}

/// Checks the code's bindings. A code that leaked to another client, URI or verifier is refused and stays valid for its
/// owner.
fn bound_to(grant: &Grant, command: &pb::RedeemCode) -> Result<(), Refusal> {
    // A verifier for a code without a challenge is refused too (RFC 9700 §4.8.2).
    let proved = match (grant.code_challenge, parse_challenge(&command.code_challenge)?) {
        (Some(bound), Some(shown)) => SecretHash::new(bound).matches(&SecretHash::new(shown)),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    if grant.redirect_uri == command.redirect_uri && proved { Ok(()) } else { Err(mismatch()) }
}

fn mismatch() -> Refusal {
    Refusal::new(Reason::CodeMismatch, "the code is bound to another client, URI or verifier")
}

fn redeemed(
    draft: &mut Draft,
    client: &Client,
    grant: &Grant,
    command: &pb::RedeemCode,
) -> Result<Grant, Refusal> {
    if command.access_ttl_ms == 0
        || command.access_ttl_ms > MAX_ACCESS_TTL_MS
        || command.refresh_ttl_ms > MAX_REFRESH_TTL_MS
    {
        return Err(Refusal::malformed("a token lifetime is out of bounds"));
    }
    let mut next = grant.clone();
    next.redeemed_at = Some(draft.at);
    next.expires_at = draft.at.plus_ms(command.access_ttl_ms);
    if !command.family_id.is_empty() && client.allows(GrantType::RefreshToken) {
        let id = FamilyId::parse(&command.family_id)?;
        if draft.state.families.contains_key(&id) {
            return Err(Refusal::new(Reason::AlreadyExists, "the refresh family exists"));
        }
        let expires_at = draft.at.plus_ms(command.refresh_ttl_ms);
        draft.state.put_family(RefreshFamily {
            id,
            grant: grant.id,
            generation: 1,
            rotated_at: draft.at,
            rotated_index: draft.index,
            expires_at,
            dpop_jkt: dpop::parse(&command.dpop_jkt)?.filter(|_| client.is_public()),
        });
        next.family = Some(id);
        // The last refresh may happen just before the end, and its access token lives on.
        next.expires_at = expires_at.plus_ms(command.access_ttl_ms);
    }
    Ok(next)
}
