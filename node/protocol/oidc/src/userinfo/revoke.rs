//! Token revocation (RFC 7009). Revoking a refresh token ends its grant and everything issued under it; revoking an
//! access token ends only that token. The response is sent once no node accepts the token any more. A party that
//! verifies a JWT by itself still accepts it until it expires, which nothing here can change.

use axum::{
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use conclave_proto::command::v1::{RevokeAccessToken, RevokeGrant, command::Body};
use conclave_state::{client::Client, ids::FamilyId};

use conclave_auth::{AuthError, write_key::WriteKey};
use conclave_crypto::handle::{HandleContents, HandleKind};

use crate::clients::authentication as client_auth;
use crate::form::read_form;
use crate::userinfo::access;
use crate::{
    Oidc,
    error::{TokenError, no_store},
    head::RequestHead,
};

const FOREIGN: TokenError = TokenError::UnauthorizedClient("the token was given to another client");

pub(crate) async fn endpoint(State(oidc): State<Oidc>, headers: RequestHead, body: Bytes) -> Response {
    match answer(&oidc, &headers, &body).await {
        Ok(()) => (StatusCode::OK, no_store()).into_response(),
        Err(error) => error.into_response(),
    }
}

/// An unknown token counts as revoked (§2.2). `token_type_hint` is not needed: a token's form shows its type.
#[tracing::instrument(name = "oidc.revoke", skip_all)]
async fn answer(oidc: &Oidc, headers: &RequestHead, body: &[u8]) -> Result<(), TokenError> {
    let (form, write_key) = read_form(oidc, "revoke", headers, body, b"")?;
    let (known, _) = client_auth::authenticate_now(oidc, headers, &form).await?;
    let client = known.used_up(oidc, None).await?;
    let token = form.get("token").ok_or(TokenError::InvalidRequest("token is missing"))?;
    match oidc.auth.parse(HandleKind::Refresh, token) {
        Some(handle) => refresh(oidc, &client, &handle, &write_key).await,
        None => access(oidc, &client, token, &write_key).await,
    }
}

/// A token of an earlier generation ends the family as well.
async fn refresh(
    oidc: &Oidc,
    client: &Client,
    handle: &HandleContents,
    write_key: &WriteKey,
) -> Result<(), TokenError> {
    if !oidc.auth.is_refresh_secret(handle) {
        return Ok(());
    }
    let Some(state) = oidc.auth.state_at(handle).await? else { return Ok(()) };
    let Some(grant) = state.grant_of_family(FamilyId::new(handle.id)) else { return Ok(()) };
    if grant.client != client.id {
        return Err(FOREIGN);
    }
    let command = Body::RevokeGrant(RevokeGrant { grant_id: grant.id.to_vec() });
    propose(oidc, write_key, command).await
}

async fn access(oidc: &Oidc, client: &Client, token: &str, write_key: &WriteKey) -> Result<(), TokenError> {
    let Some(claims) = access::read(oidc, token).await else { return Ok(()) };
    if claims.client_id != client.id.as_str() {
        return Err(FOREIGN);
    }
    let Some(id) = access::token_id(&claims.jti) else { return Ok(()) };
    let command =
        RevokeAccessToken { token_id: id.to_vec(), expires_at_ms: claims.exp.saturating_mul(1_000) };
    propose(oidc, write_key, Body::RevokeAccessToken(command)).await
}

async fn propose(oidc: &Oidc, write_key: &WriteKey, command: Body) -> Result<(), TokenError> {
    oidc.auth.cluster().propose(write_key.request(), command).await.map_err(AuthError::from)?;
    Ok(())
}
