//! Grants and refresh families on the wire.

use conclave_proto::state::v1 as rows;

use super::{Grant, RefreshFamily, dpop, issue::parse_challenge};
use crate::{
    client::ClientId,
    ids::{FamilyId, GrantId, SecretHash, SessionId, UserId},
    reply::Refusal,
    snapshot::Row,
    stamp::Stamp,
    state::State,
};

impl Row for Grant {
    const TABLE: u32 = 9;
    type Wire = rows::GrantRow;

    fn to_wire(&self) -> rows::GrantRow {
        rows::GrantRow {
            grant_id: self.id.to_vec(),
            session_id: self.session.to_vec(),
            user_id: self.user.to_vec(),
            client_id: self.client.to_string(),
            redirect_uri: self.redirect_uri.clone(),
            scopes: self.scopes.clone(),
            nonce: self.nonce.clone(),
            code_challenge: self.code_challenge.map(|hash| hash.to_vec()).unwrap_or_default(),
            secret_hash: self.secret_hash.bytes().to_vec(),
            code_expires_at_ms: self.code_expires_at.0,
            redeemed_at_ms: self.redeemed_at.unwrap_or_default().0,
            family_id: self.family.map(FamilyId::to_vec).unwrap_or_default(),
            expires_at_ms: self.expires_at.0,
            auth_time_ms: self.auth_time.0,
            amr: self.amr.clone(),
            epoch: self.epoch,
            resources: self.resources.clone(),
            id_token_claims: self.id_token_claims.clone(),
            userinfo_claims: self.userinfo_claims.clone(),
            dpop_jkt: self.dpop_jkt.map(|jkt| jkt.to_vec()).unwrap_or_default(),
        }
    }

    fn from_wire(wire: rows::GrantRow) -> Result<Self, Refusal> {
        Ok(Self {
            id: GrantId::parse(&wire.grant_id)?,
            session: SessionId::parse(&wire.session_id)?,
            user: UserId::parse(&wire.user_id)?,
            client: ClientId::parse(&wire.client_id)?,
            redirect_uri: wire.redirect_uri,
            scopes: wire.scopes,
            nonce: wire.nonce,
            code_challenge: parse_challenge(&wire.code_challenge)?,
            secret_hash: SecretHash::parse(&wire.secret_hash)?,
            code_expires_at: Stamp(wire.code_expires_at_ms),
            redeemed_at: (wire.redeemed_at_ms != 0).then_some(Stamp(wire.redeemed_at_ms)),
            family: match wire.family_id.as_slice() {
                [] => None,
                id => Some(FamilyId::parse(id)?),
            },
            expires_at: Stamp(wire.expires_at_ms),
            auth_time: Stamp(wire.auth_time_ms),
            amr: wire.amr,
            epoch: wire.epoch,
            resources: wire.resources,
            id_token_claims: wire.id_token_claims,
            userinfo_claims: wire.userinfo_claims,
            dpop_jkt: dpop::parse(&wire.dpop_jkt)?,
        })
    }

    fn put(self, state: &mut State) {
        state.put_grant(self);
    }
}

impl Row for RefreshFamily {
    const TABLE: u32 = 10;
    type Wire = rows::RefreshFamilyRow;

    fn to_wire(&self) -> rows::RefreshFamilyRow {
        rows::RefreshFamilyRow {
            family_id: self.id.to_vec(),
            grant_id: self.grant.to_vec(),
            generation: self.generation,
            rotated_at_ms: self.rotated_at.0,
            rotated_index: self.rotated_index,
            expires_at_ms: self.expires_at.0,
            dpop_jkt: self.dpop_jkt.map(|jkt| jkt.to_vec()).unwrap_or_default(),
        }
    }

    fn from_wire(wire: rows::RefreshFamilyRow) -> Result<Self, Refusal> {
        Ok(Self {
            id: FamilyId::parse(&wire.family_id)?,
            grant: GrantId::parse(&wire.grant_id)?,
            generation: wire.generation,
            rotated_at: Stamp(wire.rotated_at_ms),
            rotated_index: wire.rotated_index,
            expires_at: Stamp(wire.expires_at_ms),
            dpop_jkt: dpop::parse(&wire.dpop_jkt)?,
        })
    }

    fn put(self, state: &mut State) {
        state.put_family(self);
    }
}
