//! The token endpoint (RFC 6749 §3.2). Everything is read from the form once; a grant type adds a function to `grants`.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use crate::auth::derive::Derivation;

use super::{
    Oidc,
    error::{TokenError, no_store},
    grants,
    request::Parameters,
    tokens::TokenResponse,
};

/// What a grant type works with.
pub struct TokenRequest<'a> {
    pub headers: &'a HeaderMap,
    pub form: Parameters,
    /// The name of the write; from the `Idempotency-Key` and everything the client sent, if it sent a key.
    pub derivation: Derivation,
}

pub async fn endpoint(State(oidc): State<Oidc>, headers: HeaderMap, body: Bytes) -> Response {
    match answer(&oidc, &headers, &body).await {
        Ok(tokens) => (no_store(), Json(tokens)).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn answer(oidc: &Oidc, headers: &HeaderMap, body: &[u8]) -> Result<TokenResponse, TokenError> {
    let is_form =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value
                .split(';')
                .next()
                .is_some_and(|t| t.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
        });
    if !is_form {
        return Err(TokenError::InvalidRequest("send the parameters as application/x-www-form-urlencoded"));
    }
    let form = Parameters::parse(body)
        .map_err(|_| TokenError::InvalidRequest("the form cannot be read, or has a parameter twice"))?;
    let credentials = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let derivation = Derivation::of_request(
        &oidc.auth.cluster_keys().request,
        headers.get("idempotency-key").and_then(|value| value.to_str().ok()),
        &[b"token", credentials, body],
        &*oidc.auth.runtime().entropy,
    );
    let grant_type = form.get("grant_type").map(str::to_owned);
    let request = TokenRequest { headers, form, derivation };
    match grant_type.as_deref() {
        Some("authorization_code") => grants::code(oidc, &request).await,
        Some("refresh_token") => grants::refresh(oidc, &request).await,
        Some(_) => Err(TokenError::UnsupportedGrantType),
        None => Err(TokenError::InvalidRequest("grant_type is missing")),
    }
}
