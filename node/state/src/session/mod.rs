//! Sessions: a browser's sign-in, and its app sessions on the hosts of applications.
//!
//! A session is live while its row exists, it has not expired, its epoch is the current one and its user is not
//! disabled. Code that decides on a session calls [`State::live_session`]; there is no other way to obtain one.

mod again;
mod app_session;
mod end;
mod start;
mod wire;

use std::sync::Arc;

pub(crate) use {
    again::{PresentedSession, sign_in_again},
    app_session::open_app_session,
    end::{revoke, revoke_access_of_user, revoke_of_user},
    start::{Authentication, open, start},
};

use crate::{
    client::ClientId,
    draft::Draft,
    ids::{AppSessionId, SecretHash, SessionId, UserId},
    reply::{Reason, Refusal},
    stamp::Stamp,
    state::{Expiring, State},
    user::User,
};

/// A browser's sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The session's id; the `sid` claim.
    pub id: SessionId,
    /// The user who signed in.
    pub user: UserId,
    /// Hash of the cookie's secret.
    pub secret_hash: SecretHash,
    /// The authentication methods (RFC 8176).
    pub amr: Vec<String>,
    /// The time at which the user authenticated.
    pub auth_time: Stamp,
    /// Expiry.
    pub expires_at: Stamp,
    /// The revocation epoch in which it was started.
    pub epoch: u64,
    /// The browser's `User-Agent`.
    pub user_agent: String,
    /// The client address at sign-in.
    pub address: String,
    /// Clients that received something from this session, in the order in which they first did. They are notified of
    /// its end, even if nothing of what they received is left.
    pub clients: Vec<ClientId>,
    /// The provider at which the user signed in; empty = here.
    pub upstream: Arc<str>,
    /// The hash of the cookie secret before the last renewal. It opens nothing. Together with a new proof of the same
    /// user it shows that the browser is the one of this session, for a form that was sent before the renewed cookie
    /// arrived.
    pub former_secret_hash: Option<SecretHash>,
}

/// Most clients remembered with a session; of further ones only those with a live grant are notified of its end.
const MAX_CLIENTS: usize = 256;

/// An app session: another cookie of the same session, on an application's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSession {
    /// The app session's id.
    pub id: AppSessionId,
    /// The session it belongs to.
    pub session: SessionId,
    /// Hash of the cookie's secret.
    pub secret_hash: SecretHash,
    /// The only host on which it is valid; with a leading dot, that domain and every host below it.
    pub host: Arc<str>,
}

impl AppSession {
    /// True if the app session is valid on this host (lower case, without port).
    pub fn counts_on(&self, host: &str) -> bool {
        match self.host.strip_prefix('.') {
            Some(domain) => host == domain || host.ends_with(&*self.host),
            None => host == &*self.host,
        }
    }
}

impl Draft {
    /// Records with the session that this client received something from it.
    pub(crate) fn note_client(&mut self, session: &Session, client: &ClientId) {
        if session.clients.len() >= MAX_CLIENTS || session.clients.contains(client) {
            return;
        }
        let mut session = session.clone();
        session.clients.push(client.clone());
        self.state.put_session(session);
    }
}

impl State {
    /// The session and its user, if both are valid at `now`.
    pub fn live_session(&self, id: SessionId, now: Stamp) -> Option<(&Arc<Session>, &Arc<User>)> {
        let session = self.sessions.get(&id)?;
        let user = self.users.get(&session.user)?;
        let live = !session.expires_at.is_over_at(now)
            && session.epoch == self.meta.revocation_epoch
            && !user.disabled;
        live.then_some((session, user))
    }

    /// The app session with this id, whether or not its session is live.
    pub fn app_session(&self, id: AppSessionId) -> Option<&Arc<AppSession>> {
        self.app_sessions.get(&id)
    }

    /// Sessions in the order of their ids, after `after`.
    pub fn sessions_after(&self, after: Option<SessionId>) -> impl Iterator<Item = &Arc<Session>> {
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.sessions.range((start, std::ops::Bound::Unbounded)).map(|(_, session)| session)
    }

    /// The sessions of one user.
    pub fn sessions_of(&self, user: UserId) -> impl Iterator<Item = &Arc<Session>> {
        let from = (user, SessionId::new([0; 16]));
        let own = self.sessions_by_user.range(from..).take_while(move |(owner, _)| *owner == user);
        own.filter_map(|(_, id)| self.sessions.get(id))
    }

    /// The client address at the session's sign-in, live or not; none if it is gone.
    pub fn session_address(&self, id: SessionId) -> Option<&str> {
        self.sessions.get(&id).map(|session| session.address.as_str())
    }

    pub(crate) fn existing_live_session(
        &self,
        id: SessionId,
        now: Stamp,
    ) -> Result<(Arc<Session>, Arc<User>), Refusal> {
        let (session, user) = self
            .live_session(id, now)
            .ok_or_else(|| Refusal::new(Reason::SessionUnknown, "the session is over"))?;
        Ok((session.clone(), user.clone()))
    }

    /// Removes the session's entry in the expiry index, before a renewed row replaces it.
    fn take_expiry_of(&mut self, session: &Session) {
        self.forget_expiry(session.expires_at, Expiring::Session(session.id));
    }

    pub(crate) fn put_session(&mut self, session: Session) {
        self.sessions_by_user.insert((session.user, session.id));
        self.expire_at(session.expires_at, Expiring::Session(session.id));
        self.sessions.insert(session.id, Arc::new(session));
    }

    /// Removes the row, its app sessions and the derived index entries. The caller, who knows the reason, ends the
    /// grants.
    pub(crate) fn take_session(&mut self, id: SessionId) -> Option<Arc<Session>> {
        let session = self.sessions.remove(&id)?;
        self.sessions_by_user.remove(&(session.user, id));
        self.forget_expiry(session.expires_at, Expiring::Session(id));
        let from = (id, AppSessionId::new([0; 16]));
        let app_sessions: Vec<_> =
            self.app_sessions_by_session.range(from..).take_while(|(s, _)| *s == id).copied().collect();
        for app_session in app_sessions {
            self.app_sessions_by_session.remove(&app_session);
            self.app_sessions.remove(&app_session.1);
        }
        Some(session)
    }

    pub(crate) fn put_app_session(&mut self, app_session: AppSession) {
        self.app_sessions_by_session.insert((app_session.session, app_session.id));
        self.app_sessions.insert(app_session.id, Arc::new(app_session));
    }
}
