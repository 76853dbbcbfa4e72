//! Who the client at the token endpoint and its neighbours is (RFC 6749 §2.3): none, secret in HTTP Basic, secret in the body, signed
//! assertion, certificate of its TLS connection (RFC 8705). Only the method the client was registered with counts, and only one at a time.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use conclave_proto::command::v1::{SpendProofs, SpentProof, command::Body};
use conclave_state::{
    State,
    client::{Client, ClientAuthMethod},
    ids::SecretHash,
};

use crate::{
    auth::{AuthError, derive::Derivation},
    crypto::{certificate, jwks, mac},
    http::tls::ClientCertificate,
};

use super::{Oidc, assertion, error::TokenError, head::Head, paths, request::Parameters};

/// A client that proved itself.
pub struct Authenticated {
    pub client: Arc<Client>,
    /// What must be used up with whatever it proved itself for: its assertion, if that was how.
    pub proofs: Vec<SpentProof>,
    /// SHA-256 of the certificate by which it did: its tokens are bound to it.
    pub certificate: Option<[u8; 32]>,
}

impl Authenticated {
    /// The client, where nothing else is written: its proofs, and this further one, are used up by a write of their own. That write
    /// has a name of its own as well: whoever sends a whole request again, `Idempotency-Key` and all, sends a used proof.
    ///
    /// # Errors
    /// [`TokenError`]; `invalid_client` for an assertion that came before.
    pub async fn used_up(self, oidc: &Oidc, further: Option<SpentProof>) -> Result<Arc<Client>, TokenError> {
        let proofs: Vec<SpentProof> = self.proofs.into_iter().chain(further).collect();
        if !proofs.is_empty() {
            let order = Body::SpendProofs(SpendProofs { proofs });
            let (keys, runtime) = (oidc.auth.deriving_keys(), oidc.auth.runtime());
            let request = Derivation::fresh(&keys.request, &*runtime.entropy).request();
            oidc.auth.cluster().propose(request, order).await.map_err(AuthError::from)?;
        }
        Ok(self.client)
    }
}

/// What was presented.
enum Presented {
    Basic { id: String, secret: String },
    Body { id: String, secret: String },
    Assertion { id: String, assertion: String },
    IdOnly { id: String },
}

impl Presented {
    fn id(&self) -> &str {
        match self {
            Self::Basic { id, .. }
            | Self::Body { id, .. }
            | Self::Assertion { id, .. }
            | Self::IdOnly { id } => id,
        }
    }
}

/// The client, authenticated against `state`.
///
/// # Errors
/// `invalid_client`, or `invalid_request` when two methods are mixed.
pub fn authenticate(
    oidc: &Oidc,
    headers: &Head,
    form: &Parameters,
    state: &State,
) -> Result<Authenticated, TokenError> {
    let presented = read(headers, form)?;
    let invalid = || TokenError::InvalidClient { basic: matches!(presented, Presented::Basic { .. }) };
    let client = state.client(presented.id()).filter(|client| !client.disabled).ok_or_else(invalid)?;
    let proofs = proved(oidc, headers, &presented, client, state).ok_or_else(invalid)?;
    let by_certificate = is_by_certificate(client.auth_method);
    let certificate = headers.thumbprint().filter(|_| by_certificate);
    Ok(Authenticated { client: Arc::clone(client), proofs, certificate })
}

/// The same where no handle says which version of the state knows the client: one that was registered, or whose secret was changed,
/// a moment ago on another node is asked of the leader before it is refused.
///
/// # Errors
/// As [`authenticate`], and when no version can be had that may be decided on.
pub async fn authenticate_now(
    oidc: &Oidc,
    headers: &Head,
    form: &Parameters,
) -> Result<(Authenticated, Arc<State>), TokenError> {
    let state = oidc.auth.cluster().serving_view(0).await.map_err(|_| TokenError::Unavailable)?;
    match authenticate(oidc, headers, form, &state) {
        Err(TokenError::InvalidClient { .. }) => {
            let state = oidc.auth.cluster().confirmed_view().await.ok_or(TokenError::Unavailable)?;
            Ok((authenticate(oidc, headers, form, &state)?, state))
        }
        result => result.map(|authenticated| (authenticated, state)),
    }
}

/// What is to be used up; none when nothing was proved.
fn proved(
    oidc: &Oidc,
    head: &Head,
    presented: &Presented,
    client: &Client,
    state: &State,
) -> Option<Vec<SpentProof>> {
    let now = oidc.auth.now(state);
    match (presented, client.auth_method) {
        (Presented::Basic { secret, .. }, ClientAuthMethod::SecretBasic)
        | (Presented::Body { secret, .. }, ClientAuthMethod::SecretPost) => {
            let hash = SecretHash::new(mac::sha256(secret.as_bytes()));
            client.secret_is(&hash, now).then(Vec::new)
        }
        (Presented::Assertion { assertion, .. }, ClientAuthMethod::PrivateKeyJwt) => {
            let url = &oidc.auth.settings().public_url;
            let audiences = [url.issuer(), &url.join(paths::TOKEN)];
            assertion::verify(client, assertion, &audiences, now.0).map(|spent| vec![spent])
        }
        (Presented::IdOnly { .. }, ClientAuthMethod::None) => client.is_public().then(Vec::new),
        (Presented::IdOnly { .. }, method) if is_by_certificate(method) => {
            let certificate = head.certificate.as_ref().filter(|_| oidc.auth.settings().mtls.is_on)?;
            is_certificate_of(client, certificate).then(Vec::new)
        }
        _ => None,
    }
}

const fn is_by_certificate(method: ClientAuthMethod) -> bool {
    matches!(method, ClientAuthMethod::TlsClientAuth | ClientAuthMethod::SelfSignedTlsClientAuth)
}

/// The handshake has shown that whoever asks has the certificate's key. Whose it is, an authority says under the registered name
/// (RFC 8705 §2.1), or the client said when it registered this very certificate (§2.2).
fn is_certificate_of(client: &Client, certificate: &ClientCertificate) -> bool {
    match client.auth_method {
        ClientAuthMethod::TlsClientAuth => {
            let name = client.tokens.certificate_name.as_ref();
            certificate.is_trusted() && name.is_some_and(|name| certificate::bears(certificate.der(), name))
        }
        ClientAuthMethod::SelfSignedTlsClientAuth => {
            let registered = jwks::certificates(&client.tokens.jwks).unwrap_or_default();
            registered.iter().any(|known| mac::equal(known, &certificate.thumbprint()))
        }
        _ => false,
    }
}

fn read(headers: &HeaderMap, form: &Parameters) -> Result<Presented, TokenError> {
    let (id, secret) = (form.get("client_id"), form.get("client_secret"));
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let basic = authorizations.next();
    let assertion = form.get("client_assertion");
    let methods = [basic.is_some(), secret.is_some(), assertion.is_some(), authorizations.next().is_some()];
    if methods.into_iter().filter(|shown| *shown).count() > 1 {
        return Err(TokenError::InvalidRequest("the client authenticates in more than one way"));
    }
    if let Some(value) = basic {
        return in_header(value.to_str().ok(), id);
    }
    if let Some(assertion) = assertion {
        return asserted(assertion, form.get("client_assertion_type"), id);
    }
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(Presented::Body { id: id.into(), secret: secret.into() }),
        (Some(id), None) => Ok(Presented::IdOnly { id: id.into() }),
        (None, _) => Err(TokenError::InvalidClient { basic: false }),
    }
}

fn in_header(value: Option<&str>, in_body: Option<&str>) -> Result<Presented, TokenError> {
    let (id, secret) = value.and_then(basic).ok_or(TokenError::InvalidClient { basic: true })?;
    if in_body.is_some_and(|other| other != id) {
        return Err(TokenError::InvalidRequest("client_id contradicts the Authorization header"));
    }
    Ok(Presented::Basic { id, secret })
}

fn asserted(
    assertion: &str,
    assertion_type: Option<&str>,
    in_body: Option<&str>,
) -> Result<Presented, TokenError> {
    if assertion_type != Some(assertion::TYPE) {
        return Err(TokenError::InvalidRequest("client_assertion_type is missing or not jwt-bearer"));
    }
    let id = assertion::unverified_client(assertion).ok_or(TokenError::InvalidClient { basic: false })?;
    if in_body.is_some_and(|other| other != id) {
        return Err(TokenError::InvalidRequest("client_id contradicts the client assertion"));
    }
    Ok(Presented::Assertion { id, assertion: assertion.into() })
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
