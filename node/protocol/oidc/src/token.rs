//! The token endpoint (RFC 6749 §3.2). The form is parsed once; each grant type is a function.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use conclave_auth::write_key::WriteKey;

use super::{
    Oidc, client_credentials, device,
    dpop::{self, DpopProof},
    error::{TokenError, no_store},
    exchange, grants,
    head::RequestHead,
    paths,
    request::Parameters,
    tokens::TokenResponse,
};

/// The input of a grant type.
pub struct TokenRequest<'a> {
    pub headers: &'a RequestHead,
    pub form: Parameters,
    /// The key of the write. With an `Idempotency-Key` it depends on the key and on everything that the client
    /// sent.
    pub write_key: WriteKey,
    /// The key that the tokens are bound to, if the client proved one.
    pub proof: Option<DpopProof>,
}

pub async fn endpoint(State(oidc): State<Oidc>, headers: RequestHead, body: Bytes) -> Response {
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

/// The parameters of a form, and the key of the write that the request may lead to.
///
/// # Errors
/// `invalid_request`.
pub fn read_form(
    oidc: &Oidc,
    endpoint: &str,
    headers: &HeaderMap,
    body: &[u8],
    key: &[u8],
) -> Result<(Parameters, WriteKey), TokenError> {
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
    let write_key = WriteKey::of_request(
        &oidc.auth.deriving_keys().request,
        headers.get("idempotency-key").and_then(|value| value.to_str().ok()),
        &[endpoint.as_bytes(), credentials, body, key],
        &*oidc.auth.runtime().entropy,
    );
    Ok((form, write_key))
}

async fn answer(oidc: &Oidc, headers: &RequestHead, body: &[u8]) -> Result<TokenResponse, TokenError> {
    let proof = dpop::verify_proof(oidc, headers, "POST", paths::TOKEN, None)?;
    // The key is part of the write key: a retry under another key is another request.
    let jkt = proof.as_ref().map_or(&b""[..], |proof| &proof.jkt);
    let certificate = headers.thumbprint().map(|hash| hash.to_vec()).unwrap_or_default();
    let key = [jkt, &certificate].concat();
    let (form, write_key) = read_form(oidc, "token", headers, body, &key)?;
    let grant_type = form.get("grant_type").map(str::to_owned);
    let request = TokenRequest { headers, form, write_key, proof };
    match grant_type.as_deref() {
        Some("authorization_code") => grants::code(oidc, &request).await,
        Some("refresh_token") => grants::refresh(oidc, &request).await,
        Some(device::GRANT_TYPE) => device::redeem(oidc, &request).await,
        Some("client_credentials") => client_credentials::grant(oidc, &request).await,
        Some(exchange::GRANT_TYPE) => exchange::grant(oidc, &request).await,
        Some(_) => Err(TokenError::UnsupportedGrantType),
        None => Err(TokenError::InvalidRequest("grant_type is missing")),
    }
}
