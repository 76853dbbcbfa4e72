//! The grant types: authorization code (RFC 6749 §4.1.3) and refresh (§6). Each is one write, which also decides the
//! single use.

use std::sync::Arc;

use conclave_proto::command::v1::{RedeemCode, RotateRefresh, SpentProof, command::Body};
use conclave_state::{
    Refusal, ReplyBody, State,
    client::Client,
    ids::{FamilyId, GrantId, SessionId, UserId},
    user::User,
};

use conclave_auth::{
    AuthError,
    complete::{millis, unexpected},
    policy::Circumstances,
};
use conclave_cluster::CommittedWrite;
use conclave_crypto::{
    handle::{HandleContents, HandleKind},
    mac,
};

use crate::authorization::request::{Parameters, resources};
use crate::clients::authentication::{self, AuthenticatedClient};
use crate::token::request::TokenRequest;
use crate::token::tokens::{self, Issue, TokenResponse};
use crate::{Oidc, error::TokenError};

/// A verifier has 43 to 128 characters (RFC 7636 §4.1).
const VERIFIER_CHARS: std::ops::RangeInclusive<usize> = 43..=128;

const BAD_CODE: TokenError = TokenError::InvalidGrant("the code is invalid, expired or used");
const BAD_REFRESH: TokenError = TokenError::InvalidGrant("the refresh token is invalid, expired or revoked");

/// Redeems an authorization code.
///
/// # Errors
/// [`TokenError`].
#[tracing::instrument(name = "oidc.token.code", skip_all)]
pub(crate) async fn code(oidc: &Oidc, request: &TokenRequest<'_>) -> Result<TokenResponse, TokenError> {
    let form = &request.form;
    let text = form.get("code").ok_or(TokenError::InvalidRequest("code is missing"))?;
    // The code records whether a verifier is required.
    let verifier = form.get("code_verifier");
    let redirect_uri =
        form.get("redirect_uri").ok_or(TokenError::InvalidRequest("redirect_uri is missing"))?;
    if verifier.is_some_and(|verifier| !VERIFIER_CHARS.contains(&verifier.len())) {
        return Err(BAD_CODE);
    }
    let (handle, known) = handle_and_client(oidc, request, HandleKind::Code, text, BAD_CODE).await?;
    let (client, binding) = (Arc::clone(&known.client), Binding::of(known, request)?);
    let state = oidc.auth.cluster().view();
    if let Some(grant) = state.grant(GrantId::new(handle.id)).filter(|grant| grant.client == client.id) {
        // Before the write: an error must not spend the code.
        narrowed_resources(form, &grant.resources)?;
    }
    let command = RedeemCode {
        grant_id: handle.id.to_vec(),
        secret_hash: handle.secret_hash().to_vec(),
        client_id: client.id.to_string(),
        redirect_uri: redirect_uri.to_owned(),
        code_challenge: verifier.map(|text| mac::sha256(text.as_bytes()).to_vec()).unwrap_or_default(),
        family_id: request.write_key.id("family").to_vec(),
        refresh_ttl_ms: millis(oidc.auth.settings().tokens.refresh_ttl),
        access_ttl_ms: millis(oidc.auth.settings().tokens.access_ttl),
        dpop_jkt: binding.bound.jkt.map(|jkt| jkt.to_vec()).unwrap_or_default(),
        proofs: binding.proofs,
        policy_version: admitted_by(oidc, &client, Some(GrantId::new(handle.id))),
    };
    let committed = oidc.auth.cluster().propose(request.write_key.request(), Body::RedeemCode(command)).await;
    let committed = committed.map_err(AuthError::from)?;
    redeemed(oidc, &client, form, binding.bound, &committed)
}

/// The tokens for a redeemed grant.
///
/// # Errors
/// [`TokenError`].
pub(crate) fn redeemed(
    oidc: &Oidc,
    client: &Client,
    form: &Parameters,
    bound: Bound,
    committed: &CommittedWrite,
) -> Result<TokenResponse, TokenError> {
    let ReplyBody::CodeRedeemed(redeemed) = &committed.body else {
        return Err(unexpected(&committed.body).into());
    };
    let family = match redeemed.family_id.as_slice() {
        // The client may not use refresh tokens.
        [] => None,
        id => Some(FamilyId::parse(id).map_err(AuthError::Refused)?),
    };
    let rows = Rows::find(&committed.state, &redeemed.user_id, &redeemed.grant_id, &redeemed.session_id)?;
    let granted = committed.state.grant(rows.grant).map(|grant| grant.resources.as_slice());
    let resources = narrowed_resources(form, granted.unwrap_or_default())?;
    let issue = Issue {
        state: &committed.state,
        client,
        user: &rows.user,
        grant: rows.grant,
        session: rows.session,
        scopes: &redeemed.scopes,
        resources: &resources,
        nonce: &redeemed.nonce,
        auth_time_ms: redeemed.auth_time_ms,
        amr: &redeemed.amr,
        refresh: family.map(|family| (family, 1)),
        dpop_jkt: bound.jkt,
        certificate: bound.certificate,
        at_ms: redeemed.at_ms,
        index: redeemed.index,
    };
    Ok(tokens::issue(&oidc.auth, &issue)?)
}

/// Uses a refresh token. A retry after a lost response gets the same successor.
///
/// # Errors
/// [`TokenError`].
#[tracing::instrument(name = "oidc.token.refresh", skip_all)]
pub(crate) async fn refresh(oidc: &Oidc, request: &TokenRequest<'_>) -> Result<TokenResponse, TokenError> {
    let text =
        request.form.get("refresh_token").ok_or(TokenError::InvalidRequest("refresh_token is missing"))?;
    let (handle, known) = handle_and_client(oidc, request, HandleKind::Refresh, text, BAD_REFRESH).await?;
    let (client, binding) = (Arc::clone(&known.client), Binding::of(known, request)?);
    if !oidc.auth.is_refresh_secret(&handle) {
        return Err(BAD_REFRESH);
    }
    let settings = &oidc.auth.settings().tokens;
    let state = oidc.auth.cluster().view();
    let family = state.family(FamilyId::new(handle.id));
    let grant = family.and_then(|family| state.grant(family.grant)).filter(|grant| grant.client == client.id);
    if let Some(grant) = grant {
        // Before the write: an error must not spend the token.
        narrowed(request.form.get("scope"), &grant.scopes)?;
        narrowed_resources(&request.form, &grant.resources)?;
    }
    let command = RotateRefresh {
        family_id: handle.id.to_vec(),
        client_id: client.id.to_string(),
        generation: handle.generation,
        retry_window_ms: millis(settings.refresh_retry_window),
        access_ttl_ms: millis(settings.access_ttl),
        dpop_jkt: binding.bound.jkt.map(|jkt| jkt.to_vec()).unwrap_or_default(),
        proofs: binding.proofs,
        policy_version: admitted_by(oidc, &client, family.map(|family| family.grant)),
    };
    let committed =
        oidc.auth.cluster().propose(request.write_key.request(), Body::RotateRefresh(command)).await;
    let committed = committed.map_err(AuthError::from)?;
    let ReplyBody::RefreshRotated(rotated) = &committed.body else {
        return Err(unexpected(&committed.body).into());
    };
    let rows = Rows::find(&committed.state, &rotated.user_id, &rotated.grant_id, &rotated.session_id)?;
    let scopes = narrowed(request.form.get("scope"), &rotated.scopes)?;
    let granted = committed.state.grant(rows.grant).map(|grant| grant.resources.as_slice());
    let resources = narrowed_resources(&request.form, granted.unwrap_or_default())?;
    let issue = Issue {
        state: &committed.state,
        client: &client,
        user: &rows.user,
        grant: rows.grant,
        session: rows.session,
        scopes: &scopes,
        resources: &resources,
        nonce: "",
        auth_time_ms: rotated.auth_time_ms,
        amr: &rotated.amr,
        refresh: Some((FamilyId::new(handle.id), rotated.generation)),
        dpop_jkt: binding.bound.jkt,
        certificate: binding.bound.certificate,
        at_ms: rotated.at_ms,
        index: rotated.index,
    };
    Ok(tokens::issue(&oidc.auth, &issue)?)
}

/// The version of the policy that still admits the user of the grant; 0 if none does, and then the rules refuse.
fn admitted_by(oidc: &Oidc, client: &Client, grant: Option<GrantId>) -> u64 {
    let state = oidc.auth.cluster().view();
    let live = grant.and_then(|grant| state.live_grant(grant, oidc.auth.now(&state)));
    live.map_or(0, |(grant, user)| {
        oidc.auth.admitted_by(&state, client, user, &Circumstances::of_grant(&state, grant))
    })
}

/// Parses the handle first: it determines the version of the state against which the client is authenticated.
pub(crate) async fn handle_and_client(
    oidc: &Oidc,
    request: &TokenRequest<'_>,
    kind: HandleKind,
    text: &str,
    bad: TokenError,
) -> Result<(HandleContents, AuthenticatedClient), TokenError> {
    let handle = oidc.auth.parse(kind, text);
    let state = match &handle {
        Some(handle) => oidc.auth.state_at(handle).await?,
        None => None,
    };
    // A client that fails to authenticate gets that error, whatever token it presents.
    let current = state.unwrap_or_else(|| oidc.auth.cluster().view());
    let known = authentication::authenticate(oidc, request.headers, &request.form, &current)?;
    Ok((handle.ok_or(bad)?, known))
}

/// The keys that the tokens are bound to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bound {
    /// A DPoP key, SHA-256 thumbprint.
    pub jkt: Option<[u8; 32]>,
    /// The certificate that authenticated the client, SHA-256.
    pub certificate: Option<[u8; 32]>,
}

/// The keys that the tokens are bound to, and the proofs to spend with the write.
pub(crate) struct Binding {
    pub bound: Bound,
    pub proofs: Vec<SpentProof>,
}

impl Binding {
    /// The binding for a request.
    ///
    /// # Errors
    /// `invalid_request` when the client must prove a key and does not.
    pub(crate) fn of(known: AuthenticatedClient, request: &TokenRequest<'_>) -> Result<Self, TokenError> {
        if known.client.tokens.dpop_bound && request.proof.is_none() {
            return Err(TokenError::InvalidRequest("this client must send a DPoP proof"));
        }
        let certificate = known.certificate;
        let mut proofs = known.proofs;
        proofs.extend(request.proof.as_ref().map(|proof| proof.spent_by(known.client.id.as_str())));
        let bound = Bound { jkt: request.proof.as_ref().map(|proof| proof.jkt), certificate };
        Ok(Self { bound, proofs })
    }
}

/// The requested scopes: a refresh may request fewer than were granted, never more (RFC 6749 §6).
fn narrowed(requested: Option<&str>, granted: &[String]) -> Result<Vec<String>, TokenError> {
    let Some(requested) = requested else { return Ok(granted.to_vec()) };
    let wanted: Vec<String> = requested.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect();
    if wanted.is_empty() || wanted.iter().any(|scope| !granted.contains(scope)) {
        return Err(TokenError::InvalidScope("a refresh cannot ask for more than was granted"));
    }
    Ok(wanted)
}

/// The requested resources: an access token may be requested for fewer than were granted, never for others (RFC 8707
/// §2.2).
fn narrowed_resources(form: &Parameters, granted: &[String]) -> Result<Vec<String>, TokenError> {
    let requested = resources(form, granted).map_err(TokenError::InvalidTarget)?;
    Ok(if requested.is_empty() { granted.to_vec() } else { requested })
}

/// The rows that a reply names.
struct Rows {
    user: Arc<User>,
    grant: GrantId,
    session: SessionId,
}

impl Rows {
    fn find(state: &State, user: &[u8], grant: &[u8], session: &[u8]) -> Result<Self, TokenError> {
        let refused = |refusal: Refusal| TokenError::from(AuthError::Refused(refusal));
        let user = UserId::parse(user).map_err(refused)?;
        // The user was deleted meanwhile: no tokens are made.
        let user = state.user(user).cloned().ok_or(BAD_CODE)?;
        Ok(Self {
            user,
            grant: GrantId::parse(grant).map_err(refused)?,
            session: SessionId::parse(session).map_err(refused)?,
        })
    }
}
