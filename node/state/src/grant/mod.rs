//! Authorization grants: what a user allowed a client, its one-time code, and its refresh token family.
//!
//! A grant ends with its session (unless `offline_access`), its user, its client, its expiry, or misuse. Access tokens
//! name the grant, so that userinfo refuses them once it has ended.

mod dpop;
mod issue;
mod redeem;
mod rotate;
mod wire;

use std::sync::Arc;

pub(crate) use {
    dpop::proved_key,
    issue::{issue_code, open, within_client},
    redeem::{redeem_as, redeem_code},
    rotate::rotate_refresh,
};

pub use issue::MAX_NONCE_BYTES;

use conclave_proto::command::v1 as pb;

use crate::{
    client::{ClientId, OFFLINE_ACCESS},
    draft::Draft,
    ids::{FamilyId, GrantId, SecretHash, SessionId, UserId},
    reply::{Reason, Refusal, Reply, done},
    stamp::Stamp,
    state::{Expiring, State},
    user::User,
};

/// The authorization that a user gave a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The grant's id.
    pub id: GrantId,
    /// The session in which it was given.
    pub session: SessionId,
    /// The user who gave it.
    pub user: UserId,
    /// The client that received it.
    pub client: ClientId,
    /// The redirect URI of the code; the redemption must name it again (RFC 6749 §4.1.3).
    pub redirect_uri: String,
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// Goes into the ID token (OIDC Core §3.1.2.1).
    pub nonce: String,
    /// S256 challenge (RFC 7636); none if the client may omit PKCE.
    pub code_challenge: Option<[u8; 32]>,
    /// Hash of the code's secret.
    pub secret_hash: SecretHash,
    /// Expiry of the code.
    pub code_expires_at: Stamp,
    /// The time at which the code was redeemed, if it was.
    pub redeemed_at: Option<Stamp>,
    /// The refresh token family that was issued from it.
    pub family: Option<FamilyId>,
    /// The time after which nothing that was issued from it is valid.
    pub expires_at: Stamp,
    /// The time at which the user authenticated.
    pub auth_time: Stamp,
    /// The authentication methods.
    pub amr: Vec<String>,
    /// The revocation epoch in which it was made.
    pub epoch: u64,
    /// The audience of its access tokens (RFC 8707); empty = the provider itself.
    pub resources: Vec<String>,
    /// Claims requested by name for the ID token (OIDC Core §5.5).
    pub id_token_claims: Vec<String>,
    /// Claims requested by name for userinfo.
    pub userinfo_claims: Vec<String>,
    /// The DPoP key that the code is bound to (RFC 9449 §10), SHA-256 thumbprint.
    pub dpop_jkt: Option<[u8; 32]>,
}

impl Grant {
    /// True if it outlives its session (OIDC Core §11).
    pub fn is_offline(&self) -> bool {
        self.scopes.iter().any(|scope| scope == OFFLINE_ACCESS)
    }
}

/// A family of refresh tokens. Only the current generation is valid; for a short time, the previous one gets its reply
/// again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshFamily {
    /// The family's id.
    pub id: FamilyId,
    /// The grant it belongs to.
    pub grant: GrantId,
    /// The generation of the valid token, from 1.
    pub generation: u64,
    /// The time at which it was issued.
    pub rotated_at: Stamp,
    /// The log index at which it was issued. The token contains it, so that the retry of a lost response gives the same
    /// token.
    pub rotated_index: u64,
    /// Expiry of the family.
    pub expires_at: Stamp,
    /// The DPoP key that must be proved with it (RFC 9449 §5), for a public client that presented one. A confidential
    /// client authenticates instead.
    pub dpop_jkt: Option<[u8; 32]>,
}

pub(crate) fn revoke(draft: &mut Draft, command: &pb::RevokeGrant) -> Result<Reply, Refusal> {
    draft.state.take_grant(GrantId::parse(&command.grant_id)?);
    Ok(done())
}

impl State {
    /// The grant and its user, if both are valid at `now`: not ended, not expired, and the session live or the grant
    /// offline.
    pub fn live_grant(&self, id: GrantId, now: Stamp) -> Option<(&Arc<Grant>, &Arc<User>)> {
        let grant = self.grants.get(&id)?;
        let user = self.users.get(&grant.user)?;
        let session_counts = grant.is_offline() || self.live_session(grant.session, now).is_some();
        let live = !grant.expires_at.is_over_at(now)
            && grant.epoch == self.meta.revocation_epoch
            && !user.disabled
            && session_counts;
        live.then_some((grant, user))
    }

    /// The grants of a session; for a session that has ended, those that outlive it.
    pub fn grants_of_session(&self, session: SessionId) -> impl Iterator<Item = &Arc<Grant>> {
        let from = (session, GrantId::new([0; 16]));
        let own = self.grants_by_session.range(from..).take_while(move |(of, _)| *of == session);
        own.filter_map(|(_, grant)| self.grants.get(grant))
    }

    /// The grant with this id, live or not.
    pub fn grant(&self, id: GrantId) -> Option<&Arc<Grant>> {
        self.grants.get(&id)
    }

    /// The refresh family with this id, live or not.
    pub fn family(&self, id: FamilyId) -> Option<&Arc<RefreshFamily>> {
        self.families.get(&id)
    }

    /// The grant that a refresh family belongs to, live or not.
    pub fn grant_of_family(&self, id: FamilyId) -> Option<&Arc<Grant>> {
        self.grants.get(&self.families.get(&id)?.grant)
    }

    pub(crate) fn existing_live_grant(
        &self,
        id: GrantId,
        now: Stamp,
    ) -> Result<(Arc<Grant>, Arc<User>), Refusal> {
        let (grant, user) = self
            .live_grant(id, now)
            .ok_or_else(|| Refusal::new(Reason::GrantUnknown, "the grant has ended"))?;
        Ok((grant.clone(), user.clone()))
    }

    pub(crate) fn put_grant(&mut self, grant: Grant) {
        if let Some(before) = self.grants.get(&grant.id).cloned() {
            self.forget_expiry(before.expires_at, Expiring::Grant(before.id));
        }
        self.grants_by_session.insert((grant.session, grant.id));
        self.grants_by_user.insert((grant.user, grant.id));
        self.grants_by_client.insert((grant.client.clone(), grant.id));
        self.expire_at(grant.expires_at, Expiring::Grant(grant.id));
        self.grants.insert(grant.id, Arc::new(grant));
    }

    /// Removes the grant, its code and its refresh family.
    pub(crate) fn take_grant(&mut self, id: GrantId) {
        let Some(grant) = self.grants.remove(&id) else { return };
        self.grants_by_session.remove(&(grant.session, id));
        self.grants_by_user.remove(&(grant.user, id));
        self.grants_by_client.remove(&(grant.client.clone(), id));
        self.forget_expiry(grant.expires_at, Expiring::Grant(id));
        if let Some(family) = grant.family {
            self.families.remove(&family);
        }
    }

    /// True if this client has any grant.
    pub(crate) fn has_grants(&self, client: &ClientId) -> bool {
        let from = (client.clone(), GrantId::new([0; 16]));
        self.grants_by_client.range(from..).next().is_some_and(|(of, _)| of == client)
    }

    pub(crate) fn put_family(&mut self, family: RefreshFamily) {
        self.families.insert(family.id, Arc::new(family));
    }
}

impl Draft {
    pub(crate) fn end_grants_of_client(&mut self, client: &ClientId) {
        let from = (client.clone(), GrantId::new([0; 16]));
        let own = self.state.grants_by_client.range(from..).take_while(|(c, _)| c == client);
        let grants: Vec<GrantId> = own.map(|(_, grant)| *grant).collect();
        grants.into_iter().for_each(|grant| self.state.take_grant(grant));
    }
}
