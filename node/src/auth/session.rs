//! The session cookie, and the permit that a live session was seen.
//!
//! The cookie is a handle: it names the session, proves it, and carries the log index that made it. A node that lags
//! waits for that index before it decides, so that a person who has just signed in elsewhere never sees the login page
//! (design.md P5).

use std::sync::Arc;

use conclave_state::{
    State,
    ids::{AppSessionId, SecretHash, SessionId},
    session::Session,
    user::User,
};

use conclave_crypto::handle::{Handle, HandleError, HandleKind, HandleSecret, LineageTag};

use super::{Auth, AuthError};

/// Someone is signed in, as seen in this version of the state. Functions that need a person take this and nothing less.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub session: Arc<Session>,
    pub user: Arc<User>,
    pub state: Arc<State>,
}

/// The session that a browser's cookie names, and the hash of the secret in it. The rules decide whether the browser
/// holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownSession {
    pub session: SessionId,
    pub secret_hash: SecretHash,
}

impl Auth {
    /// The session that this cookie shows, alive or not. None when the cookie was not made here.
    pub fn shown_session(&self, cookie: Option<&str>) -> Option<ShownSession> {
        let handle = self.parse(HandleKind::Session, cookie?)?;
        let secret_hash = SecretHash::new(handle.secret_hash());
        Some(ShownSession { session: SessionId::new(handle.id), secret_hash })
    }

    /// Who the session cookie stands for. None when there is no cookie, it is not ours, or the session is over.
    ///
    /// # Errors
    /// When this node is behind and cannot catch up: then nobody is told to sign in again.
    pub async fn signed_in(&self, cookie: Option<&str>) -> Result<Option<SignedIn>, AuthError> {
        let Some(handle) = cookie.and_then(|text| self.parse(HandleKind::Session, text)) else {
            return Ok(None);
        };
        let Some(state) = self.state_at(&handle).await? else { return Ok(None) };
        Ok(self.live(&state, &handle))
    }

    /// Whom a handle stands for in this version of the state, on this host only. The version must be one that checks
    /// may be decided on, and have seen the handle's index.
    pub fn live_on_host(&self, state: &Arc<State>, handle: &Handle, host: &str) -> Option<SignedIn> {
        let arm = state.app_session(AppSessionId::new(handle.id))?;
        if !arm.secret_hash.matches(&SecretHash::new(handle.secret_hash())) || !arm.counts_on(host) {
            return None;
        }
        let (session, user) = state.live_session(arm.session, self.now(state))?;
        Some(SignedIn { session: Arc::clone(session), user: Arc::clone(user), state: Arc::clone(state) })
    }

    /// The text of a session's cookie.
    pub fn session_cookie(&self, session: SessionId, secret: HandleSecret, index: u64) -> String {
        self.issue(HandleKind::Session, *session.bytes(), secret, 0, index)
    }

    /// The text of a handle of this cluster's present life.
    pub fn issue(
        &self,
        kind: HandleKind,
        id: [u8; 16],
        secret: HandleSecret,
        generation: u64,
        index: u64,
    ) -> String {
        self.handles().issue(&Handle { kind, id, secret, generation, lineage: self.lineage_tag(), index })
    }

    /// A handle of this kind and of this cluster's present life, or nothing. Why not is nobody's business. One of an
    /// earlier life counts as far as its row has been restored; its index is before every one of this life.
    pub fn parse(&self, kind: HandleKind, text: &str) -> Option<Handle> {
        match self.read(kind, self.lineage_tag(), text) {
            Err(HandleError::OtherLineage) if kind.may_outlive_a_restore() => self.parse_former(kind, text),
            parsed => parsed.ok(),
        }
    }

    /// Of the present secrets first: one of an earlier secret is looked at only when it is of none of them.
    fn read(&self, kind: HandleKind, lineage: LineageTag, text: &str) -> Result<Handle, HandleError> {
        match self.handles().parse(kind, lineage, text) {
            Err(HandleError::Forged) => self.parse_of_earlier_secret(kind, lineage, text),
            parsed => parsed,
        }
    }

    fn parse_former(&self, kind: HandleKind, text: &str) -> Option<Handle> {
        let cluster = self.cluster().lineage().cluster;
        let state = self.cluster().view();
        let former = state.meta().former_epochs.iter().rev();
        former.map(|epoch| LineageTag::of(&cluster, *epoch)).find_map(|tag| self.read(kind, tag, text).ok())
    }

    /// Whether what was made in the life of this epoch may count now.
    pub fn knows_epoch(&self, epoch: u64) -> bool {
        self.cluster().lineage().epoch == epoch || self.cluster().view().meta().former_epochs.contains(&epoch)
    }

    /// A version of the state that knows the handle's row and every acknowledged revocation. None: the index is not of
    /// this history.
    ///
    /// # Errors
    /// When this node cannot catch up in time.
    pub async fn state_at(&self, handle: &Handle) -> Result<Option<Arc<State>>, AuthError> {
        match self.cluster().serving_view(handle.index).await {
            Ok(state) => Ok(Some(state)),
            Err(conclave_cluster::ViewError::FromTheFuture) => Ok(None),
            Err(error @ conclave_cluster::ViewError::Behind) => Err(error.into()),
        }
    }

    /// The same for the handle of the session itself.
    pub fn live(&self, state: &Arc<State>, handle: &Handle) -> Option<SignedIn> {
        let (session, user) = state.live_session(SessionId::new(handle.id), self.now(state))?;
        let presented = SecretHash::new(handle.secret_hash());
        session.secret_hash.matches(&presented).then(|| SignedIn {
            session: Arc::clone(session),
            user: Arc::clone(user),
            state: Arc::clone(state),
        })
    }
}
