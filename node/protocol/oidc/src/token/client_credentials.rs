//! The client credentials grant (RFC 6749 §4.4): an access token for the client itself. There is no user, so no ID
//! token, no refresh token and no scope about a user. Nothing is written, unless the client's proof must be spent.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_state::{
    State,
    client::{Client, GrantType, OFFLINE_ACCESS},
};

use crate::clients::authentication as client_auth;
use crate::token::audience::Audience;
use crate::token::request::TokenRequest;
use crate::token::tokens::{AccessClaims, Confirmation, TokenResponse, access_text, seconds};
use crate::{Oidc, error::TokenError};

/// Scopes about a user.
const OF_PEOPLE: [&str; 2] = ["openid", OFFLINE_ACCESS];

/// Issues a token to the client itself.
///
/// # Errors
/// [`TokenError`].
pub(crate) async fn grant(oidc: &Oidc, request: &TokenRequest<'_>) -> Result<TokenResponse, TokenError> {
    let (known, state) = client_auth::authenticate_now(oidc, request.headers, &request.form).await?;
    if !known.client.allows(GrantType::ClientCredentials) {
        return Err(TokenError::UnauthorizedClient("the client may not use client_credentials"));
    }
    if known.client.tokens.dpop_bound && request.proof.is_none() {
        return Err(TokenError::InvalidRequest("this client must send a DPoP proof"));
    }
    if request.form.get("resource").is_some() {
        return Err(TokenError::InvalidTarget("a client's own token cannot be requested for a resource"));
    }
    let scope = scope(request.form.get("scope"), &known.client)?;
    let spent = request.proof.as_ref().map(|proof| proof.spent_by(known.client.id.as_str()));
    let cnf = Confirmation::of(request.proof.as_ref().map(|proof| proof.jkt), known.certificate);
    let client = known.used_up(oidc, spent).await?;
    let claims = claims(oidc, &state, &client, scope, cnf);
    let text = access_text(&oidc.auth, &state, &client, &claims)?;
    Ok(TokenResponse::of_access(text, &claims))
}

/// The requested scopes, which must be the client's; all of the client's if it requests none (RFC 6749 §3.3).
fn scope(requested: Option<&str>, client: &Client) -> Result<String, TokenError> {
    let own: Vec<&str> =
        client.scopes.iter().map(String::as_str).filter(|scope| !OF_PEOPLE.contains(scope)).collect();
    let Some(requested) = requested else { return Ok(own.join(" ")) };
    let wanted: Vec<&str> = requested.split(' ').filter(|scope| !scope.is_empty()).collect();
    if wanted.iter().any(|scope| !own.contains(scope)) {
        return Err(TokenError::InvalidScope("a scope is not the client's, or is about a user"));
    }
    Ok(wanted.join(" "))
}

fn claims(
    oidc: &Oidc,
    state: &State,
    client: &Client,
    scope: String,
    cnf: Option<Confirmation>,
) -> AccessClaims {
    let issuer = oidc.auth.settings().public_url.issuer();
    let iat = oidc.auth.now(state).0 / 1_000;
    AccessClaims {
        iss: issuer.to_owned(),
        sub: client.id.to_string(),
        aud: Audience::One(issuer.to_owned()),
        client_id: client.id.to_string(),
        scope,
        sid: None,
        iat,
        exp: iat.saturating_add(seconds(oidc.auth.settings().tokens.access_ttl)),
        auth_time: None,
        jti: URL_SAFE_NO_PAD.encode(oidc.auth.runtime().entropy.bytes::<16>()),
        gid: None,
        idx: state.index(),
        epc: oidc.auth.cluster().lineage().epoch,
        cnf,
        act: None,
        exchanged: Vec::new(),
    }
}
