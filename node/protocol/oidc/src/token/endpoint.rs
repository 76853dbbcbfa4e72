//! The token endpoint (RFC 6749 §3.2). The form is parsed once; each grant type is a function.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};

use crate::form;
use crate::grant_type;
use crate::token::client_credentials;
use crate::token::device;
use crate::token::dpop;
use crate::token::exchange;
use crate::token::grants;
use crate::token::request::TokenRequest;
use crate::token::tokens::TokenResponse;
use crate::{
    Oidc,
    error::{TokenError, no_store},
    head::RequestHead,
    paths,
};

pub(crate) async fn endpoint(State(oidc): State<Oidc>, headers: RequestHead, body: Bytes) -> Response {
    let answer = answer(&oidc, &headers, &body).await;
    let brings_nonce = headers.contains_key(dpop::DPOP);
    let mut response = match answer {
        Ok(tokens) => (no_store(), Json(tokens)).into_response(),
        Err(error) => error.into_response(),
    };
    if let Some(nonce) = dpop::next_nonce(&oidc).filter(|_| brings_nonce) {
        response.headers_mut().insert(dpop::DPOP_NONCE, nonce);
    }
    response
}

#[tracing::instrument(name = "oidc.token", skip_all)]
async fn answer(oidc: &Oidc, headers: &RequestHead, body: &[u8]) -> Result<TokenResponse, TokenError> {
    let proof = dpop::verify_proof(oidc, headers, "POST", paths::TOKEN, None)?;
    // The key is part of the write key: a retry under another key is another request.
    let jkt = proof.as_ref().map_or(&b""[..], |proof| &proof.jkt);
    let certificate = headers.thumbprint().map(|hash| hash.to_vec()).unwrap_or_default();
    let key = [jkt, &certificate].concat();
    let (form, write_key) = form::read_form(oidc, "token", headers, body, &key)?;
    let grant_type = form.get("grant_type").map(str::to_owned);
    let request = TokenRequest { headers, form, write_key, proof };
    match grant_type.as_deref() {
        Some("authorization_code") => grants::code(oidc, &request).await,
        Some("refresh_token") => grants::refresh(oidc, &request).await,
        Some(grant_type::DEVICE_CODE) => device::redeem(oidc, &request).await,
        Some("client_credentials") => client_credentials::grant(oidc, &request).await,
        Some(grant_type::TOKEN_EXCHANGE) => exchange::grant(oidc, &request).await,
        Some(_) => Err(TokenError::UnsupportedGrantType),
        None => Err(TokenError::InvalidRequest("grant_type is missing")),
    }
}
