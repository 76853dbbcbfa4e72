//! Userinfo (OIDC Core §5.3): claims for an access token whose grant is alive in the state that this node has now.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use conclave_state::ids::GrantId;

use crate::crypto::{
    jwk::Alg,
    jwt::{Expect, unverified_kid},
};

use super::{
    Oidc, claims,
    error::{BearerError, no_store},
    request::Parameters,
    tokens::{ACCESS_TYP, AccessClaims},
};

pub async fn by_get(State(oidc): State<Oidc>, headers: HeaderMap) -> Response {
    respond(answer(&oidc, bearer(&headers)).await)
}

/// The token may also come in the form body (RFC 6750 §2.2), but not in both places.
pub async fn by_post(State(oidc): State<Oidc>, headers: HeaderMap, body: Bytes) -> Response {
    let in_body = Parameters::parse(&body).ok().and_then(|form| form.get("access_token").map(str::to_owned));
    let token = match (bearer(&headers), in_body) {
        (Ok(_), Some(_)) => Err(BearerError::InvalidRequest),
        (Err(BearerError::Missing), Some(token)) => Ok(token),
        (from_header, _) => from_header,
    };
    respond(answer(&oidc, token).await)
}

fn respond(result: Result<serde_json::Map<String, serde_json::Value>, BearerError>) -> Response {
    match result {
        Ok(claims) => (no_store(), Json(claims)).into_response(),
        Err(error) => error.into_response(),
    }
}

fn bearer(headers: &HeaderMap) -> Result<String, BearerError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(BearerError::Missing)?;
    if values.next().is_some() {
        return Err(BearerError::InvalidRequest);
    }
    let value = value.to_str().map_err(|_| BearerError::InvalidRequest)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim().to_owned()),
        _ => Err(BearerError::InvalidRequest),
    }
}

async fn answer(
    oidc: &Oidc,
    token: Result<String, BearerError>,
) -> Result<serde_json::Map<String, serde_json::Value>, BearerError> {
    let claims = verified(oidc, &token?)?;
    let state = match oidc.auth.cluster().serving_view(claims.idx).await {
        Ok(state) => state,
        Err(crate::cluster::ViewError::FromTheFuture) => return Err(BearerError::InvalidToken),
        Err(crate::cluster::ViewError::Behind) => return Err(BearerError::Unavailable),
    };
    let now = oidc.auth.now(&state);
    if claims.exp.saturating_mul(1_000) <= now.0 {
        return Err(BearerError::InvalidToken);
    }
    let grant = GrantId::from_hex(&claims.gid).ok_or(BearerError::InvalidToken)?;
    let (grant, user) = state.live_grant(grant, now).ok_or(BearerError::InvalidToken)?;
    let client_stands = state
        .client(grant.client.as_str())
        .is_some_and(|client| !client.disabled && state.client_admits(client, user));
    if !client_stands {
        return Err(BearerError::InvalidToken);
    }
    let scopes: Vec<String> = claims.scope.split(' ').map(str::to_owned).collect();
    if !scopes.iter().any(|scope| scope == "openid") {
        return Err(BearerError::InsufficientScope);
    }
    Ok(claims::of(user, &state, &scopes))
}

/// An access token that this cluster signed in its present life. Its signature is checked before anything in it is used.
fn verified(oidc: &Oidc, token: &str) -> Result<AccessClaims, BearerError> {
    let invalid = BearerError::InvalidToken;
    let kid = unverified_kid(token).ok().flatten().ok_or(invalid)?;
    let key = oidc.auth.signing().verifier(&oidc.auth.cluster().view(), &kid).ok_or(invalid)?;
    let expect = Expect { typ: Some(ACCESS_TYP), algs: &Alg::ALL };
    let claims: AccessClaims =
        serde_json::from_slice(&key.verify(token, expect).map_err(|_| invalid)?).map_err(|_| invalid)?;
    let ours = claims.iss == oidc.auth.settings().public_url.issuer()
        && claims.epc == oidc.auth.cluster().lineage().epoch;
    if ours { Ok(claims) } else { Err(invalid) }
}
