//! OIDC clients (relying parties): authentication, redirect URIs, and what they may request.
//!
//! Redirect URIs are compared as exact strings here (RFC 9700 §2.1). The one parser at the edge checks that a string is
//! a valid URI before it becomes part of a command.

mod certificate;
mod commands;
mod policy;
mod redirect;
mod requests;
mod wire;

use std::{borrow::Borrow, fmt, sync::Arc};

pub use conclave_proto::command::v1::{ClientAuthMethod, ConsentMode, SigningAlgorithm};

pub use certificate::{CertificateName, NameKind};
pub use policy::{AccessTokenFormat, ClaimRule, GrantType, TokenPolicy};
pub use requests::{Exceptions, RequestPolicy};

pub(crate) use {
    commands::{create, delete, update},
    wire::parse_algorithm,
};

use crate::{
    ids::{ApplicationId, SecretHash},
    reply::{Reason, Refusal},
    stamp::Stamp,
    state::State,
    text,
    user::User,
};

/// The scope that lets a refresh family outlive the session (OIDC Core §11).
pub const OFFLINE_ACCESS: &str = "offline_access";

/// Longest client id.
const MAX_CLIENT_ID_BYTES: usize = 128;

/// `client_id` (RFC 6749 §2.2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// Letters, digits, `-`, `_`, `.`, `:`, `/`, at most 128 bytes.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let text = text::required("client_id", text, MAX_CLIENT_ID_BYTES)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/');
        if !text.chars().all(fits) {
            return Err(Refusal::malformed(
                "client_id may hold letters, digits, '-', '_', '.', ':' and '/' only",
            ));
        }
        Ok(Self(text.into()))
    }

    /// A value that sorts before every id: the start of a range over one user's clients.
    pub(crate) fn lowest() -> Self {
        Self("".into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({})", self.0)
    }
}

/// Longest time for which two secrets are valid, in milliseconds: 90 days, for the slowest deployments.
const MAX_OVERLAP_MS: u64 = 90 * 24 * 3_600_000;

/// A relying party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// `client_id`.
    pub id: ClientId,
    /// Display name, for the consent page.
    pub name: String,
    /// Authentication method at the token endpoint.
    pub auth_method: ClientAuthMethod,
    /// Hash of its secret; none for a public client.
    pub secret_hash: Option<SecretHash>,
    /// URIs to which codes may be sent; exact strings.
    pub redirect_uris: Vec<String>,
    /// URIs to which a user may be redirected after logout; exact strings.
    pub post_logout_redirect_uris: Vec<String>,
    /// Scopes that it may request.
    pub scopes: Vec<String>,
    /// Signing algorithm of its tokens.
    pub signing_algorithm: SigningAlgorithm,
    /// Consent mode: whether users are asked for consent.
    pub consent: ConsentMode,
    /// The application whose access rule applies; none = every user.
    pub application: Option<ApplicationId>,
    /// A disabled client gets nothing.
    pub disabled: bool,
    /// Creation time.
    pub created_at: Stamp,
    /// The endpoint that receives back-channel logout tokens; empty = none.
    pub back_channel_logout_uri: String,
    /// Requirements and permissions for its authorization requests.
    pub requests: RequestPolicy,
    /// Rules for requesting, making and binding its tokens.
    pub tokens: TokenPolicy,
    /// The former secret, while it is still valid.
    pub previous_secret: Option<PreviousSecret>,
    /// Access tokens that it obtained for itself before this log index are dead.
    pub own_tokens_since: u64,
    /// The time at which the metadata document at the URL that is its id was last seen with this content; none for a
    /// registered client.
    pub document_seen_at: Option<Stamp>,
}

/// A secret that was replaced, for the overlap in which both are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousSecret {
    /// Its hash.
    pub hash: SecretHash,
    /// The end of its validity.
    pub until: Stamp,
}

impl Client {
    /// This client with its times limited to what log time `to` allows, if any is later. A later time would keep its
    /// document from being fetched again, and its former secret valid for longer than allowed. None if nothing changes.
    pub(crate) fn moved_before(&self, to: Stamp) -> Option<Self> {
        let latest = to.plus_ms(MAX_OVERLAP_MS);
        let previous_secret = self
            .previous_secret
            .map(|previous| PreviousSecret { until: previous.until.min(latest), ..previous });
        let document_seen_at = self.document_seen_at.map(|seen| seen.min(to));
        let is_changed = previous_secret != self.previous_secret || document_seen_at != self.document_seen_at;
        is_changed.then(|| Self { previous_secret, document_seen_at, ..self.clone() })
    }

    /// True if this client cannot authenticate (RFC 6749 §2.1).
    pub const fn is_public(&self) -> bool {
        matches!(self.auth_method, ClientAuthMethod::None)
    }

    /// True if this is its secret, or the former one while that is still valid at `now`.
    pub fn secret_is(&self, presented: &SecretHash, now: Stamp) -> bool {
        let is_present = self.secret_hash.is_some_and(|hash| hash.matches(presented));
        let is_previous = self
            .previous_secret
            .is_some_and(|previous| previous.hash.matches(presented) && !previous.until.is_over_at(now));
        is_present || is_previous
    }

    /// True if it may use this grant type at the token endpoint.
    pub fn allows(&self, grant_type: GrantType) -> bool {
        self.tokens.allows(grant_type)
    }

    /// True if a token for this audience is meant for this client as a resource server.
    pub fn answers_to(&self, audience: &str) -> bool {
        self.id.as_str() == audience || self.tokens.audiences.iter().any(|name| name == audience)
    }

    pub(crate) fn must_allow(&self, grant_type: GrantType) -> Result<(), Refusal> {
        if self.allows(grant_type) {
            return Ok(());
        }
        let detail = format!("client {} may not use {}", self.id, grant_type.as_str_name());
        Err(Refusal::new(Reason::GrantTypeNotAllowed, detail))
    }

    /// True if it registered itself (RFC 7591).
    pub const fn is_self_registered(&self) -> bool {
        self.requests.registration_token_hash.is_some() || self.is_described()
    }

    /// True if the metadata document at the URL that is its id describes it (Client ID Metadata Documents).
    pub const fn is_described(&self) -> bool {
        self.document_seen_at.is_some()
    }

    /// True if an authorization of this client may omit PKCE.
    pub fn may_omit_pkce(&self, nonce: &str) -> bool {
        let by_nonce = self.requests.pkce_optional && !nonce.is_empty();
        !self.is_public() && (by_nonce || self.requests.exceptions.pkce_without_nonce)
    }
}

impl State {
    /// The client with this `client_id`.
    pub fn client(&self, id: &str) -> Option<&Arc<Client>> {
        self.clients.get(id)
    }

    /// Clients in the order of their ids, after `after`.
    pub fn clients_after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<Client>> {
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.clients.range::<_, str>((start, std::ops::Bound::Unbounded)).map(|(_, client)| client)
    }

    /// True if the access rule or policy of the client's application admits the user. A missing application admits no
    /// user. A policy is evaluated outside this crate, because it needs facts that the rules do not have; its decision
    /// is accepted only while `decided_by` is the version in force.
    pub(crate) fn client_admits(&self, client: &Client, user: &User, decided_by: u64) -> bool {
        let Some(id) = client.application else { return !user.disabled };
        match self.active_policy(id) {
            Some(policy) => !user.disabled && policy.version == decided_by,
            None => self.application(id).is_some_and(|application| application.access.admits(user)),
        }
    }

    /// Counts self-registered clients by a walk over all clients: self-registration is rare.
    pub(crate) fn self_registered(&self) -> usize {
        self.clients.values().filter(|client| client.is_self_registered()).count()
    }

    /// If there are too many, removes one described client that has no grants: the one whose document has not been
    /// fetched for the longest time.
    pub(crate) fn make_room_for_described(&mut self, most: usize) {
        if self.self_registered() < most {
            return;
        }
        let unused =
            |client: &&Arc<Client>| client.is_described() && !client.disabled && !self.has_grants(&client.id);
        let oldest = self.clients.values().filter(unused).min_by_key(|client| client.document_seen_at);
        if let Some(id) = oldest.map(|client| client.id.clone()) {
            self.forget_consents_to(&id);
            self.clients.remove(&id);
        }
    }

    pub(crate) fn existing_client(&self, id: &ClientId) -> Result<Arc<Client>, Refusal> {
        self.clients
            .get(id)
            .cloned()
            .ok_or_else(|| Refusal::new(Reason::ClientUnknown, format!("there is no client {id}")))
    }

    /// The client, unless disabled.
    pub(crate) fn able_client(&self, id: &ClientId) -> Result<Arc<Client>, Refusal> {
        let client = self.existing_client(id)?;
        if client.disabled {
            return Err(Refusal::new(Reason::ClientDisabled, format!("client {id} is disabled")));
        }
        Ok(client)
    }

    pub(crate) fn put_client(&mut self, client: Client) {
        self.clients.insert(client.id.clone(), Arc::new(client));
    }
}
