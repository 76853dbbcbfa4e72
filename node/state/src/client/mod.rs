//! OIDC clients (relying parties): how they prove themselves, where they may be answered, what they may ask for.
//!
//! Redirect URIs are compared as exact strings here (RFC 9700 §2.1); whether a string is a sound URI is decided by the
//! one parser at the edge before it becomes part of a command.

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
pub use requests::{Exceptions, Requests};

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

    /// Before every id: where a range over one user's clients begins.
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

/// Longest time in which two secrets are good, in milliseconds: a quarter, for the slowest of deployments.
const MAX_OVERLAP_MS: u64 = 90 * 24 * 3_600_000;

/// A relying party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// `client_id`.
    pub id: ClientId,
    /// For the consent page.
    pub name: String,
    /// How it proves itself at the token endpoint.
    pub auth_method: ClientAuthMethod,
    /// What its secret hashes to; none for a public client.
    pub secret_hash: Option<SecretHash>,
    /// Where codes may be sent; exact strings.
    pub redirect_uris: Vec<String>,
    /// Where a person may be sent after logout; exact strings.
    pub post_logout_redirect_uris: Vec<String>,
    /// What it may ask for.
    pub scopes: Vec<String>,
    /// How its tokens are signed.
    pub signing_algorithm: SigningAlgorithm,
    /// Whether people are asked.
    pub consent: ConsentMode,
    /// Whose access rule applies; none = every user.
    pub application: Option<ApplicationId>,
    /// A disabled client gets nothing.
    pub disabled: bool,
    /// When the row was made.
    pub created_at: Stamp,
    /// Where the end of a session is announced; empty = nowhere.
    pub back_channel_logout_uri: String,
    /// What its authorization requests must and may be.
    pub requests: Requests,
    /// How its tokens are asked for, made and bound.
    pub tokens: TokenPolicy,
    /// The secret before the present one, while it is still good.
    pub previous_secret: Option<PreviousSecret>,
    /// Access tokens that it got for itself before this log index are dead.
    pub own_tokens_since: u64,
    /// When the document at the URL that is its id was last seen to say this; none for a client that was registered.
    pub document_seen_at: Option<Stamp>,
}

/// A secret that was replaced, for the time in which both are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousSecret {
    /// What it hashes to.
    pub hash: SecretHash,
    /// When it stops.
    pub until: Stamp,
}

impl Client {
    /// This client with no time that log time cannot have given it by `to`, if it has one: its document would not be
    /// looked at again, and its secret before the present one would stay good for longer than was ever allowed. None:
    /// nothing is to be changed.
    pub(crate) fn moved_before(&self, to: Stamp) -> Option<Self> {
        let latest = to.plus_ms(MAX_OVERLAP_MS);
        let previous_secret = self
            .previous_secret
            .map(|previous| PreviousSecret { until: previous.until.min(latest), ..previous });
        let document_seen_at = self.document_seen_at.map(|seen| seen.min(to));
        let is_changed = previous_secret != self.previous_secret || document_seen_at != self.document_seen_at;
        is_changed.then(|| Self { previous_secret, document_seen_at, ..self.clone() })
    }

    /// Whether this client has no way to prove itself (RFC 6749 §2.1).
    pub const fn is_public(&self) -> bool {
        matches!(self.auth_method, ClientAuthMethod::None)
    }

    /// Whether this is its secret, or the one before that is still good at `now`.
    pub fn secret_is(&self, presented: &SecretHash, now: Stamp) -> bool {
        let is_present = self.secret_hash.is_some_and(|hash| hash.matches(presented));
        let is_previous = self
            .previous_secret
            .is_some_and(|previous| previous.hash.matches(presented) && !previous.until.is_over_at(now));
        is_present || is_previous
    }

    /// Whether it may use this at the token endpoint.
    pub fn allows(&self, grant_type: GrantType) -> bool {
        self.tokens.allows(grant_type)
    }

    /// Whether a token for this audience is for this client as a resource server.
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

    /// Whether it registered itself (RFC 7591).
    pub const fn is_self_registered(&self) -> bool {
        self.requests.registration_token_hash.is_some() || self.is_described()
    }

    /// Whether a document at the URL that is its id describes it (Client ID Metadata Documents).
    pub const fn is_described(&self) -> bool {
        self.document_seen_at.is_some()
    }

    /// Whether an authorization of this client may do without PKCE.
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

    /// Whether the rule behind the client admits the user. A rule that is gone admits nobody. A policy is decided
    /// outside of the rules, since it asks for more than they know: its word counts while it is still the one of that
    /// version.
    pub(crate) fn client_admits(&self, client: &Client, user: &User, decided_by: u64) -> bool {
        let Some(id) = client.application else { return !user.disabled };
        match self.active_policy(id) {
            Some(policy) => !user.disabled && policy.version == decided_by,
            None => self.application(id).is_some_and(|application| application.access.admits(user)),
        }
    }

    /// Looks at every client: one more registers itself seldom.
    pub(crate) fn self_registered(&self) -> usize {
        self.clients.values().filter(|client| client.is_self_registered()).count()
    }

    /// Where there are too many, one of those that nobody has let in any more: its document was not looked at for
    /// longest.
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
