//! Token exchange (RFC 8693) among the cluster's own tokens. A client that received a user's access token gets one of
//! its own for that user: with no more scopes, no longer lifetime, and revoked together with the first. `act` names the
//! acting clients (§4.1).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_state::{
    State,
    client::{Client, GrantType},
};

use crate::clients::authentication as client_auth;
use crate::token::audience::Audience;
use crate::token::request::TokenRequest;
use crate::token::tokens::{AccessClaims, Actor, Confirmation, TokenResponse, access_text, seconds};
use crate::userinfo::access::{self, Dead, LiveToken};
use crate::{Oidc, error::TokenError};

/// The only token type accepted and issued.
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Maximum length of a chain of exchanges: each is named in the token.
const MAX_CHAIN: usize = 4;

/// Exchanges an access token.
///
/// # Errors
/// [`TokenError`].
pub(crate) async fn grant(oidc: &Oidc, request: &TokenRequest<'_>) -> Result<TokenResponse, TokenError> {
    let (known, _) = client_auth::authenticate_now(oidc, request.headers, &request.form).await?;
    if !known.client.allows(GrantType::TokenExchange) {
        return Err(TokenError::UnauthorizedClient("the client may not exchange tokens"));
    }
    if known.client.tokens.dpop_bound && request.proof.is_none() {
        return Err(TokenError::InvalidRequest("this client must send a DPoP proof"));
    }
    let cnf = Confirmation::of(request.proof.as_ref().map(|proof| proof.jkt), known.certificate);
    let subject = subject(oidc, request, &known.client).await?;
    let scope = scope(request.form.get("scope"), &subject.claims.scope, &known.client)?;
    let aud = audience(request, &subject)?;
    let spent = request.proof.as_ref().map(|proof| proof.spent_by(known.client.id.as_str()));
    let client = known.used_up(oidc, spent).await?;
    let claims = claims(oidc, cnf, &client, &subject, scope, aud)?;
    let text = access_text(&oidc.auth, &subject.state, &client, &claims)?;
    Ok(TokenResponse::of_access(text, &claims).issued_as(ACCESS_TOKEN))
}

/// The token to exchange. It must be valid, a user's, and either the client's own or meant for the client.
async fn subject(oidc: &Oidc, request: &TokenRequest<'_>, client: &Client) -> Result<LiveToken, TokenError> {
    let form = &request.form;
    if form.get("actor_token").is_some() {
        return Err(TokenError::InvalidRequest("actor_token is not supported: the client itself acts"));
    }
    if form.get("requested_token_type").is_some_and(|wanted| wanted != ACCESS_TOKEN)
        || form.get("subject_token_type") != Some(ACCESS_TOKEN)
    {
        return Err(TokenError::InvalidRequest("only access tokens are exchanged, for access tokens"));
    }
    let text = form.get("subject_token").ok_or(TokenError::InvalidRequest("subject_token is missing"))?;
    let bad =
        TokenError::InvalidRequest("subject_token is invalid, expired, or not this client's to exchange");
    let subject = match access::live(oidc, text).await {
        Ok(live) => live,
        Err(Dead::Invalid) => return Err(bad),
        Err(Dead::Unavailable) => return Err(TokenError::Unavailable),
    };
    let is_its_own = subject.claims.client_id == client.id.as_str();
    if subject.person.is_none() || !(is_its_own || is_meant_for(&subject.claims.aud, client)) {
        return Err(bad);
    }
    let proved =
        Confirmation::of(request.proof.as_ref().map(|proof| proof.jkt), request.headers.thumbprint());
    let proved = proved.as_ref();
    let is_proved = |cnf: &Confirmation| {
        let key = cnf.jkt.is_none() || proved.is_some_and(|proved| proved.jkt == cnf.jkt);
        key && (cnf.x5t.is_none() || proved.is_some_and(|proved| proved.x5t == cnf.x5t))
    };
    if !subject.claims.cnf.as_ref().is_none_or(is_proved) {
        return Err(TokenError::InvalidRequest("subject_token is bound to a key that was not proved"));
    }
    if subject.claims.exchanged.len() >= MAX_CHAIN {
        return Err(TokenError::InvalidRequest("subject_token was exchanged too often"));
    }
    Ok(subject)
}

/// True if the client is among the token's audiences.
pub(crate) fn is_meant_for(aud: &Audience, client: &Client) -> bool {
    let names = std::iter::once(client.id.as_str());
    names.chain(client.tokens.audiences.iter().map(String::as_str)).any(|name| aud.includes(name))
}

/// The requested scopes, which must be both the token's and the client's.
fn scope(requested: Option<&str>, had: &str, client: &Client) -> Result<String, TokenError> {
    let possible: Vec<&str> =
        had.split(' ').filter(|scope| client.scopes.iter().any(|own| own == scope)).collect();
    let wanted: Vec<&str> = match requested {
        None => possible.clone(),
        Some(requested) => requested.split(' ').filter(|scope| !scope.is_empty()).collect(),
    };
    if wanted.is_empty() || wanted.iter().any(|scope| !possible.contains(scope)) {
        return Err(TokenError::InvalidScope("a scope is not the token's, or not the client's"));
    }
    Ok(wanted.join(" "))
}

/// The requested audience: another client as a resource server, by its `client_id` or another of its names. Without
/// one, the audience of the original token.
fn audience(request: &TokenRequest<'_>, subject: &LiveToken) -> Result<Audience, TokenError> {
    if request.form.get("resource").is_some() {
        return Err(TokenError::InvalidTarget("name the target as audience"));
    }
    let Some(name) = request.form.get("audience") else { return Ok(subject.claims.aud.clone()) };
    if is_known(&subject.state, name) {
        return Ok(Audience::One(name.to_owned()));
    }
    Err(TokenError::InvalidTarget("no client here has this audience"))
}

fn is_known(state: &State, name: &str) -> bool {
    state.client(name).is_some_and(|client| !client.disabled)
        || state.clients_after(None).any(|client| !client.disabled && client.answers_to(name))
}

fn claims(
    oidc: &Oidc,
    cnf: Option<Confirmation>,
    client: &Client,
    subject: &LiveToken,
    scope: String,
    aud: Audience,
) -> Result<AccessClaims, TokenError> {
    let before = &subject.claims;
    let person = subject.person.as_ref().ok_or(TokenError::InvalidRequest("the token has no user"))?;
    let iat = oidc.auth.now(&subject.state).0 / 1_000;
    let exp = iat.saturating_add(seconds(oidc.auth.settings().tokens.access_ttl)).min(before.exp);
    let mut exchanged = before.exchanged.clone();
    exchanged.push(before.jti.clone());
    Ok(AccessClaims {
        sub: oidc.auth.subject(client, person)?,
        aud,
        client_id: client.id.to_string(),
        scope,
        iat,
        exp,
        jti: URL_SAFE_NO_PAD.encode(oidc.auth.runtime().entropy.bytes::<16>()),
        idx: subject.state.index(),
        cnf,
        act: Some(Actor { sub: client.id.to_string(), act: before.act.clone().map(Box::new) }),
        exchanged,
        ..before.clone()
    })
}
