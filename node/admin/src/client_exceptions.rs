//! Exceptions that a client has by explicit permission, and the warnings for the operator.

use conclave_proto::admin::v1 as pb;
use conclave_state::{State, level};
use tonic::Status;

use super::errors;

/// The shortest secret that an operator may bring. A shorter one can be guessed, since the state keeps a plain hash.
const MIN_SECRET_BYTES: usize = 16;
/// The longest secret: other providers make secrets of up to 128 bytes.
const MAX_SECRET_BYTES: usize = 512;

/// Checks that the existing secret of an application can be taken over.
pub(super) fn check_secret(secret: &str) -> Result<(), Status> {
    let fits = (MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&secret.len());
    if fits && secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(errors::invalid(format!(
        "client_secret: must be {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} visible ASCII characters; have one made instead"
    )))
}

pub(super) const fn are_wanted(message: &pb::CreateClientRequest) -> bool {
    message.strict_authentication
        || message.pkce_without_nonce
        || message.allow_http
        || message.omit_error_issuer
        || !message.allowed_schemes.is_empty()
        || !message.default_resources.is_empty()
}

pub(super) const fn are_changed(message: &pb::UpdateClientRequest) -> bool {
    message.strict_authentication.is_some()
        || message.pkce_without_nonce.is_some()
        || message.allow_http.is_some()
        || message.omit_error_issuer.is_some()
        || message.subject_type.is_some()
        || message.sector.is_some()
        || message.allowed_schemes.is_some()
        || message.default_resources.is_some()
        || message.auth_method.is_some()
        || message.application.is_some()
}

/// Refuses these properties while a member runs an older version: it would drop them.
pub(super) fn check_level(state: &State, is_needed: bool) -> Result<(), Status> {
    if !is_needed || state.meta().level >= level::EXCEPTIONS {
        return Ok(());
    }
    Err(Status::failed_precondition(
        "a member of the cluster runs an older version, which does not know this property of clients; upgrade all members, then try again",
    ))
}

/// Warnings for the operator about the current properties of a client.
pub(super) fn warnings(client: &pb::Client) -> Vec<String> {
    let gets_codes = client.grant_types.iter().any(|grant| grant == "authorization_code");
    let has_openid = client.scopes.iter().any(|scope| scope == "openid");
    let warnings = [
        (
            client.pkce_without_nonce,
            "neither PKCE nor a nonce is required of this client: a stolen or injected code is not detected; require one of them as soon as the application supports it",
        ),
        (
            client.allow_http,
            "codes may be sent over plain http: each machine between the browser and the application can read them",
        ),
        (
            client.omit_error_issuer,
            "errors are sent to this client without iss, so it cannot tell which provider sent them; use this only if the application has no other provider",
        ),
        (
            !client.allowed_schemes.is_empty(),
            "any application on a device can claim a scheme without a dot, and receive the codes that are meant for this client",
        ),
        (
            gets_codes && client.redirect_uris.is_empty(),
            "the client has no redirect URI, so no one can sign in with it; add one with: conclave client update ID --redirect-uri URI",
        ),
        (
            gets_codes && !has_openid,
            "the client may not request the scope openid, so it gets no ID token; OpenID Connect applications need it",
        ),
    ];
    warnings.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text.to_owned()).collect()
}
