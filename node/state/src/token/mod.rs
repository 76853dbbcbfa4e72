//! Bearer tokens of the admin API.

use std::sync::Arc;

pub use conclave_proto::command::v1::ApiRole;
use conclave_proto::{command::v1 as pb, state::v1 as rows};

use crate::{
    draft::Draft,
    ids::{SecretHash, TokenId},
    reply::{Reason, Refusal, Reply, ReplyBody, body, done},
    snapshot::Row,
    stamp::Stamp,
    state::{Expiring, State},
    text,
};

/// Most tokens of a cluster.
const MAX_TOKENS: usize = 10_000;

/// A bearer token of the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// The token's id; part of the credential that its holder presents.
    pub id: TokenId,
    /// Display name.
    pub name: String,
    /// Hash of its secret.
    pub secret_hash: SecretHash,
    /// The role that it grants.
    pub role: ApiRole,
    /// Expiry; none = never.
    pub expires_at: Option<Stamp>,
    /// Creation time.
    pub created_at: Stamp,
}

pub(crate) fn create(draft: &mut Draft, command: &pb::CreateApiToken) -> Result<Reply, Refusal> {
    let id = TokenId::parse(&command.token_id)?;
    if draft.state.tokens.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, "the token exists"));
    }
    if command.role() == ApiRole::Unspecified || draft.state.tokens.len() >= MAX_TOKENS {
        return Err(Refusal::malformed("role is missing, or there are too many tokens"));
    }
    draft.state.put_token(ApiToken {
        id,
        name: text::required("name", &command.name, text::MAX_TEXT_BYTES)?,
        secret_hash: SecretHash::parse(&command.secret_hash)?,
        role: command.role(),
        expires_at: (command.ttl_ms != 0).then(|| draft.at.plus_ms(command.ttl_ms)),
        created_at: draft.at,
    });
    Ok(body(ReplyBody::ApiTokenCreated(pb::ApiTokenCreated { index: draft.index })))
}

pub(crate) fn revoke(draft: &mut Draft, command: &pb::RevokeApiToken) -> Result<Reply, Refusal> {
    let id = TokenId::parse(&command.token_id)?;
    match draft.state.take_token(id) {
        Some(_) => Ok(done()),
        None => Err(Refusal::new(Reason::TokenUnknown, format!("there is no token {id}"))),
    }
}

impl State {
    /// The token with this id, if it has not expired.
    pub fn live_token(&self, id: TokenId, now: Stamp) -> Option<&Arc<ApiToken>> {
        self.tokens.get(&id).filter(|token| !token.expires_at.is_some_and(|at| at.is_over_at(now)))
    }

    /// Tokens in the order of their ids, after `after`.
    pub fn tokens_after(&self, after: Option<TokenId>) -> impl Iterator<Item = &Arc<ApiToken>> {
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.tokens.range((start, std::ops::Bound::Unbounded)).map(|(_, token)| token)
    }

    pub(crate) fn put_token(&mut self, token: ApiToken) {
        if let Some(at) = token.expires_at {
            self.expire_at(at, Expiring::Token(token.id));
        }
        self.tokens.insert(token.id, Arc::new(token));
    }

    pub(crate) fn take_token(&mut self, id: TokenId) -> Option<Arc<ApiToken>> {
        let token = self.tokens.remove(&id)?;
        if let Some(at) = token.expires_at {
            self.forget_expiry(at, Expiring::Token(id));
        }
        Some(token)
    }
}

impl Row for ApiToken {
    const TABLE: u32 = 12;
    type Wire = rows::ApiTokenRow;

    fn to_wire(&self) -> rows::ApiTokenRow {
        rows::ApiTokenRow {
            token_id: self.id.to_vec(),
            name: self.name.clone(),
            secret_hash: self.secret_hash.bytes().to_vec(),
            role: self.role.into(),
            expires_at_ms: self.expires_at.unwrap_or_default().0,
            created_at_ms: self.created_at.0,
        }
    }

    fn from_wire(wire: rows::ApiTokenRow) -> Result<Self, Refusal> {
        Ok(Self {
            id: TokenId::parse(&wire.token_id)?,
            role: ApiRole::try_from(wire.role)
                .map_err(|_| Refusal::malformed("a role of a newer version"))?,
            name: wire.name,
            secret_hash: SecretHash::parse(&wire.secret_hash)?,
            expires_at: (wire.expires_at_ms != 0).then_some(Stamp(wire.expires_at_ms)),
            created_at: Stamp(wire.created_at_ms),
        })
    }

    fn put(self, state: &mut State) {
        state.put_token(self);
    }
}
