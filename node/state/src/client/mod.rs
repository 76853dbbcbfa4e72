//! OIDC clients (relying parties): how they prove themselves, where they may be answered, what they may ask for.
//!
//! Redirect URIs are compared as exact strings here (RFC 9700 §2.1); whether a string is a sound URI is decided by the one
//! parser at the edge before it becomes part of a command.

mod commands;
mod wire;

use std::{borrow::Borrow, fmt, sync::Arc};

pub use conclave_proto::command::v1::{ClientAuthMethod, ConsentMode, SigningAlgorithm};

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
}

impl Client {
    /// Whether this client has no way to prove itself (RFC 6749 §2.1).
    pub const fn is_public(&self) -> bool {
        self.secret_hash.is_none()
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

    /// Whether the access rule behind the client admits the user. A rule that is gone admits nobody.
    pub fn client_admits(&self, client: &Client, user: &User) -> bool {
        match client.application {
            None => !user.disabled,
            Some(id) => self.application(id).is_some_and(|application| application.access.admits(user)),
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
