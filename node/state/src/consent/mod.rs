//! Consents that users gave a client permanently, if the client's mode is `once`. A request for more requires consent
//! again.
//!
//! Revoking a consent deletes it and ends every grant that the client has from the user. A consent ends with its user
//! and its client.

use std::sync::Arc;

use conclave_proto::{command::v1 as pb, state::v1 as rows};

use crate::{
    client::ClientId,
    draft::Draft,
    ids::{GrantId, UserId},
    reply::{Refusal, Reply, done},
    snapshot::Row,
    stamp::Stamp,
    state::State,
};

/// The consent of a user to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// The user who gave it.
    pub user: UserId,
    /// The client that received it.
    pub client: ClientId,
    /// The granted scopes, sorted.
    pub scopes: Vec<String>,
    /// Claims that were requested by name, sorted.
    pub claims: Vec<String>,
    /// Resources that its tokens may be for, sorted.
    pub resources: Vec<String>,
    /// The time at which it was last given.
    pub granted_at: Stamp,
}

impl Consent {
    /// True if the user consented to all of this.
    pub fn covers(&self, scopes: &[String], claims: &[String], resources: &[String]) -> bool {
        scopes.iter().all(|scope| self.scopes.contains(scope))
            && claims.iter().all(|claim| self.claims.contains(claim))
            && resources.iter().all(|resource| self.resources.contains(resource))
    }
}

/// Revokes a consent. A consent that was revoked before gets the same reply.
pub(crate) fn revoke(draft: &mut Draft, command: &pb::RevokeConsent) -> Result<Reply, Refusal> {
    let user = draft.state.existing_user(UserId::parse(&command.user_id)?)?;
    let client = ClientId::parse(&command.client_id)?;
    draft.state.consents.remove(&(user.id, client.clone()));
    let from = (user.id, GrantId::new([0; 16]));
    let own = draft.state.grants_by_user.range(from..).take_while(|(of, _)| *of == user.id);
    let grants: Vec<GrantId> = own
        .map(|(_, grant)| *grant)
        .filter(|grant| draft.state.grants.get(grant).is_some_and(|row| row.client == client))
        .collect();
    grants.into_iter().for_each(|grant| draft.state.take_grant(grant));
    Ok(done())
}

impl Draft {
    /// Adds what the user just allowed to the stored consent.
    pub(crate) fn remember_consent(&mut self, user: UserId, client: &ClientId, command: &pb::IssueCode) {
        let before = self.state.consents.get(&(user, client.clone())).cloned();
        let before = before.as_deref();
        let claims = [command.id_token_claims.as_slice(), &command.userinfo_claims].concat();
        let consent = Consent {
            user,
            client: client.clone(),
            scopes: union(before.map(|c| c.scopes.as_slice()), &command.scopes),
            claims: union(before.map(|c| c.claims.as_slice()), &claims),
            resources: union(before.map(|c| c.resources.as_slice()), &command.resources),
            granted_at: self.at,
        };
        consent.put(&mut self.state);
    }
}

fn union(before: Option<&[String]>, more: &[String]) -> Vec<String> {
    let mut all: Vec<String> = before.unwrap_or_default().iter().chain(more).cloned().collect();
    all.sort();
    all.dedup();
    all
}

impl State {
    /// The user's consent to this client.
    pub fn consent(&self, user: UserId, client: &ClientId) -> Option<&Arc<Consent>> {
        self.consents.get(&(user, client.clone()))
    }

    /// The user's consents, by client.
    pub fn consents_of(&self, user: UserId) -> impl Iterator<Item = &Arc<Consent>> {
        let from = (user, ClientId::lowest());
        self.consents.range(from..).map(|(_, row)| row).take_while(move |row| row.user == user)
    }

    pub(crate) fn forget_consents_of(&mut self, user: UserId) {
        let gone: Vec<ClientId> = self.consents_of(user).map(|row| row.client.clone()).collect();
        gone.into_iter().for_each(|client| drop(self.consents.remove(&(user, client))));
    }

    /// Removes the consents to a client by a walk over every row: clients are deleted by hand, and rarely.
    pub(crate) fn forget_consents_to(&mut self, client: &ClientId) {
        let gone: Vec<_> = self.consents.keys().filter(|(_, of)| of == client).cloned().collect();
        gone.into_iter().for_each(|key| drop(self.consents.remove(&key)));
    }
}

impl Row for Consent {
    const TABLE: u32 = 32;
    type Wire = rows::ConsentRow;

    fn to_wire(&self) -> rows::ConsentRow {
        rows::ConsentRow {
            user_id: self.user.to_vec(),
            client_id: self.client.to_string(),
            scopes: self.scopes.clone(),
            granted_at_ms: self.granted_at.0,
            claims: self.claims.clone(),
            resources: self.resources.clone(),
        }
    }

    fn from_wire(wire: rows::ConsentRow) -> Result<Self, Refusal> {
        Ok(Self {
            user: UserId::parse(&wire.user_id)?,
            client: ClientId::parse(&wire.client_id)?,
            scopes: wire.scopes,
            claims: wire.claims,
            resources: wire.resources,
            granted_at: Stamp(wire.granted_at_ms),
        })
    }

    fn put(self, state: &mut State) {
        state.consents.insert((self.user, self.client.clone()), Arc::new(self));
    }
}
