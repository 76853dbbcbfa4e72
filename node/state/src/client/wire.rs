//! Clients on the wire.

use conclave_proto::state::v1 as rows;

use super::{
    Client, ClientAuthMethod, ClientId, ConsentMode, PreviousSecret, RequestPolicy, SigningAlgorithm,
    TokenPolicy,
};
use crate::{
    ids::{ApplicationId, SecretHash},
    reply::Refusal,
    snapshot::Row,
    stamp::Stamp,
    state::State,
    text,
};

/// Most URIs of one kind.
const MAX_URIS: usize = 32;
/// Most scopes of a client.
const MAX_SCOPES: usize = 64;
/// Longest scope token.
const MAX_SCOPE_BYTES: usize = 128;

pub(super) fn parse_uris(field: &str, uris: &[String]) -> Result<Vec<String>, Refusal> {
    if uris.len() > MAX_URIS {
        return Err(Refusal::malformed(format!("{field} holds at most {MAX_URIS}")));
    }
    uris.iter().map(|uri| text::required(field, uri, text::MAX_URI_BYTES)).collect()
}

/// Scope tokens of RFC 6749 §3.3: printable ASCII without space, `"` and `\`.
pub(crate) fn parse_scopes(scopes: &[String]) -> Result<Vec<String>, Refusal> {
    if scopes.len() > MAX_SCOPES {
        return Err(Refusal::malformed(format!("at most {MAX_SCOPES} scopes")));
    }
    let fits = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    scopes
        .iter()
        .map(|scope| match text::required("scope", scope, MAX_SCOPE_BYTES)? {
            scope if scope.chars().all(fits) => Ok(scope),
            _ => Err(Refusal::malformed("a scope has a character that RFC 6749 §3.3 forbids")),
        })
        .collect()
}

pub(crate) fn parse_algorithm(algorithm: SigningAlgorithm) -> Result<SigningAlgorithm, Refusal> {
    match algorithm {
        SigningAlgorithm::Unspecified => Err(Refusal::malformed("signing_algorithm is missing")),
        algorithm => Ok(algorithm),
    }
}

impl Row for Client {
    const TABLE: u32 = 6;
    type Wire = rows::ClientRow;

    fn to_wire(&self) -> rows::ClientRow {
        rows::ClientRow {
            client_id: self.id.to_string(),
            name: self.name.clone(),
            auth_method: self.auth_method.into(),
            secret_hash: self.secret_hash.map(|h| h.bytes().to_vec()).unwrap_or_default(),
            redirect_uris: self.redirect_uris.clone(),
            post_logout_redirect_uris: self.post_logout_redirect_uris.clone(),
            scopes: self.scopes.clone(),
            signing_algorithm: self.signing_algorithm.into(),
            consent: self.consent.into(),
            application_id: self
                .application
                .map(super::super::ids::ApplicationId::to_vec)
                .unwrap_or_default(),
            disabled: self.disabled,
            created_at_ms: self.created_at.0,
            back_channel_logout_uri: self.back_channel_logout_uri.clone(),
            back_channel_logout_session_required: self.requests.back_channel_logout_session_required,
            require_pushed_authorization_requests: self.requests.must_be_pushed,
            pkce_optional: self.requests.pkce_optional,
            resources: self.requests.resources.clone(),
            front_channel_logout_uri: self.requests.front_channel_logout_uri.clone(),
            registration_token_hash: self
                .requests
                .registration_token_hash
                .map(|hash| hash.bytes().to_vec())
                .unwrap_or_default(),
            tokens: self.tokens.to_wire(),
            previous_secret_hash: self.previous_secret.map(|p| p.hash.bytes().to_vec()).unwrap_or_default(),
            previous_secret_until_ms: self.previous_secret.map(|p| p.until.0).unwrap_or_default(),
            own_tokens_since_index: self.own_tokens_since,
            document_seen_at_ms: self.document_seen_at.map_or(0, |at| at.0),
            strict_authentication: self.requests.exceptions.strict_authentication,
            pkce_without_nonce: self.requests.exceptions.pkce_without_nonce,
            allow_http: self.requests.exceptions.allow_http,
            allowed_schemes: self.requests.exceptions.allowed_schemes.clone(),
            default_resources: self.requests.exceptions.default_resources.clone(),
            omit_error_issuer: self.requests.exceptions.omit_error_issuer,
        }
    }

    fn from_wire(wire: rows::ClientRow) -> Result<Self, Refusal> {
        let unknown = |what: &str| Refusal::malformed(format!("{what} is of a newer version"));
        Ok(Self {
            auth_method: ClientAuthMethod::try_from(wire.auth_method).map_err(|_| unknown("auth_method"))?,
            signing_algorithm: SigningAlgorithm::try_from(wire.signing_algorithm)
                .map_err(|_| unknown("algorithm"))?,
            consent: ConsentMode::try_from(wire.consent).map_err(|_| unknown("consent"))?,
            requests: RequestPolicy::of_row(&wire)?,
            id: ClientId::parse(&wire.client_id)?,
            name: wire.name,
            secret_hash: match wire.secret_hash.as_slice() {
                [] => None,
                hash => Some(SecretHash::parse(hash)?),
            },
            redirect_uris: wire.redirect_uris,
            post_logout_redirect_uris: wire.post_logout_redirect_uris,
            scopes: wire.scopes,
            application: match wire.application_id.as_slice() {
                [] => None,
                id => Some(ApplicationId::parse(id)?),
            },
            disabled: wire.disabled,
            created_at: Stamp(wire.created_at_ms),
            back_channel_logout_uri: wire.back_channel_logout_uri,
            tokens: TokenPolicy::from_wire(wire.tokens.as_ref())?,
            previous_secret: match wire.previous_secret_hash.as_slice() {
                [] => None,
                hash => Some(PreviousSecret {
                    hash: SecretHash::parse(hash)?,
                    until: Stamp(wire.previous_secret_until_ms),
                }),
            },
            own_tokens_since: wire.own_tokens_since_index,
            document_seen_at: (wire.document_seen_at_ms > 0).then_some(Stamp(wire.document_seen_at_ms)),
        })
    }

    fn put(self, state: &mut State) {
        state.put_client(self);
    }
}
