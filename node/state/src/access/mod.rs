//! Access tokens that were revoked one by one before they expired (RFC 7009). A live token has no row: it is
//! self-contained, and ends with its grant, its client or its expiry. Only an early revocation is remembered, until the
//! token would have expired anyway.

use conclave_proto::{command::v1 as pb, state::v1 as rows};

use crate::{
    draft::Draft,
    ids::AccessTokenId,
    reply::{Reason, Refusal, Reply, done},
    snapshot::Row,
    stamp::Stamp,
    state::{Expiring, State},
};

/// Longest lifetime of an access token: a day, as in the configuration.
const MAX_LIFE_MS: u64 = 24 * 3_600_000;
/// Most revoked tokens remembered. A client can only revoke tokens that were issued to it, and has to wait for each.
const MAX_REMEMBERED: usize = 1_000_000;

/// An access token that was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedAccess {
    /// The token's `jti`.
    pub id: AccessTokenId,
    /// The time at which it would have expired.
    pub expires_at: Stamp,
}

/// Revokes an access token. A token that has already ended for any reason gets the normal reply, because revocation is
/// idempotent.
pub(crate) fn revoke(draft: &mut Draft, command: &pb::RevokeAccessToken) -> Result<Reply, Refusal> {
    let id = AccessTokenId::parse(&command.token_id)?;
    let expires_at = Stamp(command.expires_at_ms);
    if expires_at.is_over_at(draft.at) || draft.state.revoked_access.contains_key(&id) {
        return Ok(done());
    }
    if expires_at > draft.at.plus_ms(MAX_LIFE_MS) {
        return Err(Refusal::malformed("no access token lives that long"));
    }
    if draft.state.revoked_access.len() >= MAX_REMEMBERED {
        return Err(Refusal::new(Reason::TooManyRemembered, "too many ended tokens are remembered"));
    }
    RevokedAccess { id, expires_at }.put(&mut draft.state);
    Ok(done())
}

impl State {
    /// True if this access token was revoked before it expired.
    pub fn is_access_revoked(&self, id: AccessTokenId) -> bool {
        self.revoked_access.contains_key(&id)
    }
}

impl Row for RevokedAccess {
    const TABLE: u32 = 20;
    type Wire = rows::RevokedAccessRow;

    fn to_wire(&self) -> rows::RevokedAccessRow {
        rows::RevokedAccessRow { token_id: self.id.to_vec(), expires_at_ms: self.expires_at.0 }
    }

    fn from_wire(wire: rows::RevokedAccessRow) -> Result<Self, Refusal> {
        Ok(Self { id: AccessTokenId::parse(&wire.token_id)?, expires_at: Stamp(wire.expires_at_ms) })
    }

    fn put(self, state: &mut State) {
        state.expire_at(self.expires_at, Expiring::RevokedAccess(self.id));
        state.revoked_access.insert(self.id, self);
    }
}
