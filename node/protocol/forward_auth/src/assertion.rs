//! A signed assertion: proof for applications that do not trust plain headers, because clients may reach them without
//! the proxy. It is a JWT, verifiable with the cluster's published keys, that names the user, the host, the method and
//! the address of one request, and is valid for a minute.
//!
//! It costs one ECDSA signature per request, so only applications that require it get one. It has its own `typ`: a
//! token of the provider is not accepted as an assertion, nor the reverse.

use conclave_state::{application::Application, client::SigningAlgorithm};
use serde::Serialize;

use conclave_auth::{Auth, AuthError, session::SignedIn};

use super::{
    identity,
    metadata::{METHOD_UNKNOWN, Original},
};

/// `typ` of an assertion.
pub const TYP: &str = "conclave-assertion+jwt";
/// Lifetime of an assertion, seconds: the proxy passes it on at once, and clocks differ.
const LIFE_SECS: u64 = 60;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    /// The origin of the request.
    aud: String,
    /// The user's id.
    sub: String,
    iat: u64,
    exp: u64,
    /// The method (as in RFC 9449 §4.2); absent if the proxy does not send it.
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
/// Fails if there is no key to sign with.
pub(crate) fn sign(
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
        htm: (method != METHOD_UNKNOWN).then_some(method),
        preferred_username: &user.username,
        name: if user.display_name.is_empty() { &user.username } else { &user.display_name },
        email: signed_in.state.address_of(user),
        groups: identity::groups_of(signed_in, application).names,
    };
    let key = auth.signing().signer(&signed_in.state, SigningAlgorithm::Es256)?;
    key.sign(TYP, &claims).map_err(|error| AuthError::Internal(error.to_string()))
}
