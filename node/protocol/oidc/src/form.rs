//! The form of a request that a program sends, and the key of the write that it may lead to.

use conclave_auth::write_key::WriteKey;
use http::{HeaderMap, header};

use crate::{Oidc, authorization::request::Parameters, error::TokenError};

/// The parameters of a form, and the key of the write that the request may lead to.
///
/// # Errors
/// `invalid_request`.
pub(crate) fn read_form(
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
