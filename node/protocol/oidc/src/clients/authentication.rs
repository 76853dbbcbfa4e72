//! Client authentication at the token endpoint and the endpoints like it (RFC 6749 §2.3): none, secret in HTTP Basic,
//! secret in the body, signed assertion, certificate of the TLS connection (RFC 8705). A secret is accepted in the
//! header, in the body, or equal in both, unless the client is registered as strict. Every other method is accepted
//! only if it is the registered one and the only one in the request. A secret sent by a public client is ignored: it
//! proves nothing.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use conclave_proto::command::v1::{SpendProofs, SpentProof, command::Body};
use conclave_state::{
    State,
    client::{Client, ClientAuthMethod},
    ids::SecretHash,
};

use crate::clients::certificate;
use conclave_auth::{AuthError, write_key::WriteKey};
use conclave_crypto::{jwks, mac};
use conclave_http::tls::ClientCertificate;

use crate::authorization::request::Parameters;
use crate::clients::assertion;
use crate::{Oidc, error::TokenError, head::RequestHead, paths};

/// An authenticated client.
pub(crate) struct AuthenticatedClient {
    pub client: Arc<Client>,
    /// The proofs to spend with the write that follows: the client's assertion, if it sent one.
    pub proofs: Vec<SpentProof>,
    /// SHA-256 of the certificate that authenticated the client: its tokens are bound to it.
    pub certificate: Option<[u8; 32]>,
}

impl AuthenticatedClient {
    /// Spends the client's proofs, and this further one, by a write of their own, for endpoints that write nothing
    /// else. The write has a fresh request id: a request that is sent again in full, including its `Idempotency-Key`,
    /// presents a spent proof.
    ///
    /// # Errors
    /// [`TokenError`]; `invalid_client` for an assertion that was used before.
    pub(crate) async fn used_up(
        self,
        oidc: &Oidc,
        further: Option<SpentProof>,
    ) -> Result<Arc<Client>, TokenError> {
        let proofs: Vec<SpentProof> = self.proofs.into_iter().chain(further).collect();
        if !proofs.is_empty() {
            let command = Body::SpendProofs(SpendProofs { proofs });
            let (keys, runtime) = (oidc.auth.deriving_keys(), oidc.auth.runtime());
            let request = WriteKey::fresh(&keys.request, &*runtime.entropy).request();
            oidc.auth.cluster().propose(request, command).await.map_err(AuthError::from)?;
        }
        Ok(self.client)
    }
}

/// The place of a secret in the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Body,
    Both,
}

/// The credentials in a request.
enum Presented {
    Secret { id: String, secret: String, place: Place },
    Assertion { id: String, assertion: String },
    IdOnly { id: String },
}

impl Presented {
    fn id(&self) -> &str {
        match self {
            Self::Secret { id, .. } | Self::Assertion { id, .. } | Self::IdOnly { id } => id,
        }
    }

    const fn refused(&self, why: &'static str) -> TokenError {
        let basic = matches!(self, Self::Secret { place: Place::Header | Place::Both, .. });
        TokenError::InvalidClient { basic, why }
    }

    /// The error for credentials that prove nothing. It does not reveal if the client exists.
    const fn refusal(&self) -> TokenError {
        self.refused(match self {
            Self::Secret { .. } => {
                "the client is unknown or disabled, its secret is wrong, or it uses another authentication method; compare client_id, \
                 client_secret and the method with its registration"
            }
            Self::Assertion { .. } => {
                "the client is unknown or disabled, or its assertion is not valid; check its key, algorithm and clock, that iss and sub are \
                 the client_id, that aud is the issuer or the URL of this endpoint, and that jti is new"
            }
            Self::IdOnly { .. } => {
                "the client is unknown or disabled, or must authenticate; send client_secret in an Authorization header (Basic) or in the body, \
                 or what it is registered for"
            }
        })
    }
}

const NOTHING_SHOWN: TokenError = TokenError::InvalidClient {
    basic: false,
    why: "the request does not say which client sends it; send client_id, or an Authorization header (Basic)",
};
const BASIC_IS_MALFORMED: TokenError = TokenError::InvalidClient {
    basic: true,
    why: "the Authorization header is not Basic with the base64 of client_id, a colon and client_secret",
};

/// Authenticates the client against `state`.
///
/// # Errors
/// `invalid_client`, or `invalid_request` when two methods are mixed.
pub(crate) fn authenticate(
    oidc: &Oidc,
    headers: &RequestHead,
    form: &Parameters,
    state: &State,
) -> Result<AuthenticatedClient, TokenError> {
    let mut refused = None;
    for presented in read(headers, form)? {
        match known(oidc, headers, &presented, state) {
            Ok(authenticated) => return Ok(authenticated),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or(NOTHING_SHOWN))
}

fn known(
    oidc: &Oidc,
    headers: &RequestHead,
    presented: &Presented,
    state: &State,
) -> Result<AuthenticatedClient, TokenError> {
    let client = state.client(presented.id()).filter(|client| !client.disabled);
    let client = client.ok_or_else(|| presented.refusal())?;
    let proofs = proved(oidc, headers, presented, client, state)?.ok_or_else(|| presented.refusal())?;
    let by_certificate = is_by_certificate(client.auth_method);
    let certificate = headers.thumbprint().filter(|_| by_certificate);
    Ok(AuthenticatedClient { client: Arc::clone(client), proofs, certificate })
}

/// Like [`authenticate`], for requests without a handle that determines the version of the state. The client may have
/// been registered, or its secret changed, a moment ago on another node, so the leader is consulted before the client
/// is refused.
///
/// # Errors
/// As [`authenticate`], and if no version of the state may be decided on.
pub(crate) async fn authenticate_now(
    oidc: &Oidc,
    headers: &RequestHead,
    form: &Parameters,
) -> Result<(AuthenticatedClient, Arc<State>), TokenError> {
    let state = oidc.auth.cluster().serving_view(0).await.map_err(|_| TokenError::Unavailable)?;
    match authenticate(oidc, headers, form, &state) {
        Err(TokenError::InvalidClient { .. }) => {
            let state = oidc.auth.cluster().confirmed_view().await.ok_or(TokenError::Unavailable)?;
            Ok((authenticate(oidc, headers, form, &state)?, state))
        }
        result => result.map(|authenticated| (authenticated, state)),
    }
}

/// The proofs to spend; `None` if the credentials prove nothing.
///
/// # Errors
/// Fails if a strict client sends its own secret in the wrong place.
fn proved(
    oidc: &Oidc,
    head: &RequestHead,
    presented: &Presented,
    client: &Client,
    state: &State,
) -> Result<Option<Vec<SpentProof>>, TokenError> {
    let now = oidc.auth.now(state);
    let nothing_to_spend = |is_proved: bool| Ok(is_proved.then(Vec::new));
    match (presented, client.auth_method) {
        (
            Presented::Secret { secret, place, .. },
            ClientAuthMethod::SecretBasic | ClientAuthMethod::SecretPost,
        ) => {
            let hash = SecretHash::new(mac::sha256(secret.as_bytes()));
            let is_right = client.secret_is(&hash, now);
            if is_right && let Some(why) = misplaced(client, *place) {
                return Err(presented.refused(why));
            }
            nothing_to_spend(is_right)
        }
        (Presented::Assertion { assertion, .. }, ClientAuthMethod::PrivateKeyJwt) => {
            let settings = oidc.auth.settings();
            let bases = [Some(&settings.public_url), settings.mtls.alias.as_ref()];
            let mut audiences = vec![settings.public_url.issuer().to_owned()];
            for url in bases.into_iter().flatten() {
                audiences.extend([url.join(paths::TOKEN), url.join(&head.path)]);
            }
            let audiences: Vec<&str> = audiences.iter().map(String::as_str).collect();
            Ok(assertion::verify(client, assertion, &audiences, now.0).map(|spent| vec![spent]))
        }
        (Presented::IdOnly { .. } | Presented::Secret { .. }, ClientAuthMethod::None) => {
            nothing_to_spend(client.is_public())
        }
        (Presented::IdOnly { .. }, method) if is_by_certificate(method) => {
            let certificate = head.certificate.as_ref().filter(|_| oidc.auth.settings().mtls.is_on);
            nothing_to_spend(certificate.is_some_and(|shown| is_certificate_of(client, shown)))
        }
        _ => Ok(None),
    }
}

/// The reason why a strict client may not send its secret there. Returned only to a client that sent the right one.
fn misplaced(client: &Client, place: Place) -> Option<&'static str> {
    if !client.requests.exceptions.strict_authentication {
        return None;
    }
    match (client.auth_method, place) {
        (ClientAuthMethod::SecretBasic, Place::Body | Place::Both) => Some(
            "the secret is right, but this client is strict and registered for client_secret_basic; send it in the Authorization header alone",
        ),
        (ClientAuthMethod::SecretPost, Place::Header | Place::Both) => Some(
            "the secret is right, but this client is strict and registered for client_secret_post; send it in the body alone",
        ),
        _ => None,
    }
}

const fn is_by_certificate(method: ClientAuthMethod) -> bool {
    matches!(method, ClientAuthMethod::TlsClientAuth | ClientAuthMethod::SelfSignedTlsClientAuth)
}

/// True if the certificate is the client's. The handshake has proved possession of its key. An authority certifies the
/// registered name (RFC 8705 §2.1), or the client registered this very certificate (§2.2).
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

/// The possible readings of the credentials: one, except for an Authorization header, which not every library
/// form-encodes.
fn read(headers: &HeaderMap, form: &Parameters) -> Result<Vec<Presented>, TokenError> {
    let (id, secret) = (form.get("client_id"), form.get("client_secret"));
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let basic = authorizations.next();
    let assertion = form.get("client_assertion");
    let by_secret = basic.is_some() || secret.is_some();
    if authorizations.next().is_some() || (assertion.is_some() && by_secret) {
        return Err(TokenError::InvalidRequest("the client authenticates in more than one way; use one"));
    }
    if let Some(value) = basic {
        return in_header(value.to_str().ok(), id, secret);
    }
    if let Some(assertion) = assertion {
        return asserted(assertion, form.get("client_assertion_type"), id).map(|one| vec![one]);
    }
    match (id, secret) {
        (Some(id), Some(secret)) => {
            Ok(vec![Presented::Secret { id: id.into(), secret: secret.into(), place: Place::Body }])
        }
        (Some(id), None) => Ok(vec![Presented::IdOnly { id: id.into() }]),
        (None, _) => Err(NOTHING_SHOWN),
    }
}

/// The credentials in the header. The body may repeat them, but not contradict them.
fn in_header(
    value: Option<&str>,
    id_in_body: Option<&str>,
    secret_in_body: Option<&str>,
) -> Result<Vec<Presented>, TokenError> {
    let mut readings = value.and_then(basic).ok_or(BASIC_IS_MALFORMED)?;
    readings.retain(|(id, _)| id_in_body.is_none_or(|other| other == id));
    if readings.is_empty() {
        return Err(TokenError::InvalidRequest("client_id contradicts the Authorization header"));
    }
    readings.retain(|(_, secret)| secret_in_body.is_none_or(|other| other == secret));
    if readings.is_empty() {
        return Err(TokenError::InvalidRequest(
            "client_secret contradicts the Authorization header; send it in one place",
        ));
    }
    let place = if secret_in_body.is_some() { Place::Both } else { Place::Header };
    Ok(readings.into_iter().map(|(id, secret)| Presented::Secret { id, secret, place }).collect())
}

fn asserted(
    assertion: &str,
    assertion_type: Option<&str>,
    in_body: Option<&str>,
) -> Result<Presented, TokenError> {
    if assertion_type != Some(assertion::TYPE) {
        return Err(TokenError::InvalidRequest("client_assertion_type is missing or not jwt-bearer"));
    }
    let id = assertion::unverified_client(assertion).ok_or(TokenError::InvalidClient {
        basic: false,
        why: "client_assertion is not a JWT that names the client as sub",
    })?;
    if in_body.is_some_and(|other| other != id) {
        return Err(TokenError::InvalidRequest("client_id contradicts the client assertion"));
    }
    Ok(Presented::Assertion { id, assertion: assertion.into() })
}

/// `Basic base64(urlencoded id ":" urlencoded secret)` (RFC 6749 §2.3.1). Libraries that omit the encoding send an id
/// with a colon, or a secret with `+` or `%`, as it is. Those two readings come after the standard one.
fn basic(value: &str) -> Option<Vec<(String, String)>> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let mut readings: Vec<(String, String)> =
        form_decoded(id).zip(form_decoded(secret)).into_iter().collect();
    for (id, secret) in [Some((id, secret)), decoded.rsplit_once(':')].into_iter().flatten() {
        let raw = (id.to_owned(), secret.to_owned());
        if !readings.contains(&raw) {
            readings.push(raw);
        }
    }
    Some(readings)
}

/// One form-encoded value.
fn form_decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}
