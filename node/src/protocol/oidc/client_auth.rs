//! Who the client at the token endpoint is (RFC 6749 §2.3): none, secret in HTTP Basic, secret in the body. Only the method the
//! client was registered with counts, and only one at a time.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use conclave_state::{
    State,
    client::{Client, ClientAuthMethod},
    ids::SecretHash,
};

use crate::crypto::mac;

use super::{error::TokenError, request::Parameters};

/// What was presented.
enum Presented {
    Basic { id: String, secret: String },
    Body { id: String, secret: String },
    IdOnly { id: String },
}

/// The client, authenticated against `state`.
///
/// # Errors
/// `invalid_client`, or `invalid_request` when two methods are mixed.
pub fn authenticate(
    headers: &HeaderMap,
    form: &Parameters,
    state: &State,
) -> Result<Arc<Client>, TokenError> {
    let presented = read(headers, form)?;
    let (id, basic) = match &presented {
        Presented::Basic { id, .. } => (id, true),
        Presented::Body { id, .. } | Presented::IdOnly { id } => (id, false),
    };
    let invalid = || TokenError::InvalidClient { basic };
    let client = state.client(id).filter(|client| !client.disabled).ok_or_else(invalid)?;
    let proved = match (&presented, client.auth_method) {
        (Presented::Basic { secret, .. }, ClientAuthMethod::SecretBasic)
        | (Presented::Body { secret, .. }, ClientAuthMethod::SecretPost) => secret_matches(client, secret),
        (Presented::IdOnly { .. }, ClientAuthMethod::None) => client.is_public(),
        _ => false,
    };
    if proved { Ok(Arc::clone(client)) } else { Err(invalid()) }
}

fn secret_matches(client: &Client, secret: &str) -> bool {
    let presented = SecretHash::new(mac::sha256(secret.as_bytes()));
    client.secret_hash.is_some_and(|stored| stored.matches(&presented))
}

fn read(headers: &HeaderMap, form: &Parameters) -> Result<Presented, TokenError> {
    let in_body = (form.get("client_id"), form.get("client_secret"));
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = authorizations.next() else {
        return match in_body {
            (Some(id), Some(secret)) => Ok(Presented::Body { id: id.into(), secret: secret.into() }),
            (Some(id), None) => Ok(Presented::IdOnly { id: id.into() }),
            (None, _) => Err(TokenError::InvalidClient { basic: false }),
        };
    };
    if authorizations.next().is_some() || in_body.1.is_some() {
        return Err(TokenError::InvalidRequest("the client authenticates in more than one way"));
    }
    let (id, secret) =
        value.to_str().ok().and_then(basic).ok_or(TokenError::InvalidClient { basic: true })?;
    if in_body.0.is_some_and(|other| other != id) {
        return Err(TokenError::InvalidRequest("client_id contradicts the Authorization header"));
    }
    Ok(Presented::Basic { id, secret })
}

/// `Basic base64(urlencoded id ":" urlencoded secret)` (RFC 6749 §2.3.1).
fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((form_decoded(id)?, form_decoded(secret)?))
}

/// One form-encoded value.
fn form_decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}
