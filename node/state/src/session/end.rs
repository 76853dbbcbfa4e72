//! The end of sessions: `RevokeSession`, `RevokeUserSessions`, `RevokeUserAccess`, and the parts that disabling and
//! deleting users need.
//!
//! A session ends its grants with it, except those with `offline_access` (OIDC Core §11), which end with the user, the
//! client or "sign out everywhere". Every client that received something from the session, and registered for logout
//! notices, is notified through the outbox.

use conclave_proto::command::v1 as pb;

use crate::{
    client::OFFLINE_ACCESS,
    draft::Draft,
    event::Event,
    ids::{GrantId, SessionId, UserId},
    reply::{Refusal, Reply, done},
};

/// Ends a session. A session that has already ended gets the same reply, because logout is idempotent.
pub(crate) fn revoke(draft: &mut Draft, command: &pb::RevokeSession) -> Result<Reply, Refusal> {
    draft.end_session(SessionId::parse(&command.session_id)?);
    Ok(done())
}

pub(crate) fn revoke_of_user(draft: &mut Draft, command: &pb::RevokeUserSessions) -> Result<Reply, Refusal> {
    let user = draft.state.existing_user(UserId::parse(&command.user_id)?)?;
    let except = match command.except_session_id.as_slice() {
        [] => None,
        bytes => Some(SessionId::parse(bytes)?),
    };
    draft.end_everything_of(user.id, except);
    Ok(done())
}

/// Ends everything that an attacker with a user's devices could still use, app passwords included.
pub(crate) fn revoke_access_of_user(
    draft: &mut Draft,
    command: &pb::RevokeUserAccess,
) -> Result<Reply, Refusal> {
    let user = draft.state.existing_user(UserId::parse(&command.user_id)?)?.id;
    draft.end_everything_of(user, None);
    draft.state.take_app_passwords_of(user);
    Ok(done())
}

impl Draft {
    /// Ends one session, its app sessions and its grants.
    pub(crate) fn end_session(&mut self, id: SessionId) {
        let Some(session) = self.state.take_session(id) else { return };
        let from = (id, GrantId::new([0; 16]));
        let grants: Vec<GrantId> = self
            .state
            .grants_by_session
            .range(from..)
            .take_while(|(s, _)| *s == id)
            .map(|(_, grant)| *grant)
            .collect();
        let mut notified = imbl::OrdSet::new();
        for client in &session.clients {
            notified.insert(client.clone());
            self.announce_logout(client, id, session.user);
        }
        for grant in grants {
            let Some(row) = self.state.grants.get(&grant).cloned() else { continue };
            if notified.insert(row.client.clone()).is_none() {
                self.announce_logout(&row.client, id, session.user);
            }
            if !row.scopes.iter().any(|scope| scope == OFFLINE_ACCESS) {
                self.state.take_grant(grant);
            }
        }
        self.report(Event::SessionRevoked { session: id });
    }

    /// Ends the user's sessions and every grant, offline ones included. `except` and its grants stay.
    pub(crate) fn end_everything_of(&mut self, user: UserId, except: Option<SessionId>) {
        let sessions: Vec<SessionId> = self.state.sessions_of(user).map(|session| session.id).collect();
        for session in sessions.into_iter().filter(|id| Some(*id) != except) {
            self.end_session(session);
        }
        let from = (user, GrantId::new([0; 16]));
        let grants: Vec<GrantId> = self
            .state
            .grants_by_user
            .range(from..)
            .take_while(|(u, _)| *u == user)
            .map(|(_, grant)| *grant)
            .collect();
        for grant in grants {
            let kept = self.state.grants.get(&grant).is_some_and(|row| Some(row.session) == except);
            if !kept {
                self.state.take_grant(grant);
            }
        }
    }
}
