//! A signed assertion: proof for applications that do not trust the headers of whoever reaches them. A JWT, verifiable
//! with the cluster's published keys, that names the person, the host, the method and the address of one request, and
//! is good for a minute.
//!
//! One ECDSA signature a request, so only where an application wants it. Its `typ` is of its own: no token of the
//! provider passes for one, and it passes for none.

use conclave_state::{application::Application, client::SigningAlgorithm};
use serde::Serialize;

use crate::auth::{Auth, AuthError, session::SignedIn};

use super::{
    identity,
    metadata::{Original, UNTOLD},
};

/// `typ` of an assertion.
pub const TYP: &str = "conclave-assertion+jwt";
/// How long one is good, seconds: the proxy passes it on at once, and clocks differ.
const LIFE_SECS: u64 = 60;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    /// The origin that the request is for.
    aud: String,
    /// The user's id.
    sub: String,
    iat: u64,
    exp: u64,
    /// The method (as in RFC 9449 §4.2); absent when the proxy does not tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    htm: Option<&'a str>,
    /// The address without its query (as in RFC 9449 §4.2).
    htu: String,
    preferred_username: &'a str,
    name: &'a str,
    email: &'a str,
    groups: Vec<&'a str>,
}

/// The assertion for one request.
///
/// # Errors
/// When there is no key to sign with.
pub fn sign(
    auth: &Auth,
    signed_in: &SignedIn,
    application: &Application,
    original: &Original,
) -> Result<String, AuthError> {
    let (user, origin) = (&signed_in.user, original.url.origin());
    let path = original.url.path.split('?').next().unwrap_or_default();
    let iat = auth.now(&signed_in.state).0 / 1_000;
    let method = original.method.as_str();
    let claims = Claims {
        iss: auth.settings().public_url.issuer(),
        htu: format!("{origin}{path}"),
        aud: origin,
        sub: user.id.to_string(),
        iat,
        exp: iat.saturating_add(LIFE_SECS),
        htm: (method != UNTOLD).then_some(method),
        preferred_username: &user.username,
        name: if user.display_name.is_empty() { &user.username } else { &user.display_name },
        email: signed_in.state.address_of(user),
        groups: identity::groups_of(signed_in, application).names,
    };
    let key = auth.signing().signer(&signed_in.state, SigningAlgorithm::Es256)?;
    key.sign(TYP, &claims).map_err(|error| AuthError::Internal(error.to_string()))
}
