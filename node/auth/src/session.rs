//! The session cookie, and the permit that proves a live session.
//!
//! The cookie is a handle: it names the session, proves possession, and carries the log index of the write that made
//! it. A lagging node waits for that index before it decides, so a user who has just signed in at another node never
//! sees the login page (docs/design/README.md, P5).

use std::sync::Arc;

use conclave_state::{
    State,
    ids::{AppSessionId, SecretHash, SessionId},
    session::Session,
    user::User,
};

use conclave_crypto::handle::{HandleContents, HandleError, HandleKind, HandleSecret, LineageTag};

use super::{Auth, AuthError};

/// A signed-in user, as seen in this version of the state. Functions that need a user take this type.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub session: Arc<Session>,
    pub user: Arc<User>,
    pub state: Arc<State>,
}

/// The session that a browser's cookie names, and the hash of the secret in the cookie. The rules check the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownSession {
    pub session: SessionId,
    pub secret_hash: SecretHash,
}

impl Auth {
    /// The session that this cookie names, live or not. `None` if the cookie was not made here.
    pub fn shown_session(&self, cookie: Option<&str>) -> Option<ShownSession> {
        let handle = self.parse(HandleKind::Session, cookie?)?;
        let secret_hash = SecretHash::new(handle.secret_hash());
        Some(ShownSession { session: SessionId::new(handle.id), secret_hash })
    }

    /// The user and session of the session cookie. `None` if there is no cookie, it was not made here, or the session
    /// has ended.
    ///
    /// # Errors
    /// Fails if this node is behind and cannot catch up. The user must not be asked to sign in again then.
    pub async fn signed_in(&self, cookie: Option<&str>) -> Result<Option<SignedIn>, AuthError> {
        let Some(handle) = cookie.and_then(|text| self.parse(HandleKind::Session, text)) else {
            return Ok(None);
        };
        let Some(state) = self.state_at(&handle).await? else { return Ok(None) };
        Ok(self.live(&state, &handle))
    }

    /// The live session behind an app-session cookie, if it is valid for `host`. The state must be a version on which
    /// checks may be decided, and must include the handle's index.
    pub fn live_on_host(&self, state: &Arc<State>, handle: &HandleContents, host: &str) -> Option<SignedIn> {
        let app_session = state.app_session(AppSessionId::new(handle.id))?;
        if !app_session.secret_hash.matches(&SecretHash::new(handle.secret_hash()))
            || !app_session.counts_on(host)
        {
            return None;
        }
        let (session, user) = state.live_session(app_session.session, self.now(state))?;
        Some(SignedIn { session: Arc::clone(session), user: Arc::clone(user), state: Arc::clone(state) })
    }

    /// The text of a session's cookie.
    pub fn session_cookie(&self, session: SessionId, secret: HandleSecret, index: u64) -> String {
        self.issue(HandleKind::Session, *session.bytes(), secret, 0, index)
    }

    /// The text of a handle of the current lineage.
    pub fn issue(
        &self,
        kind: HandleKind,
        id: [u8; 16],
        secret: HandleSecret,
        generation: u64,
        index: u64,
    ) -> String {
        self.handles().issue(&HandleContents {
            kind,
            id,
            secret,
            generation,
            lineage: self.lineage_tag(),
            index,
        })
    }

    /// Parses a handle of this kind and the current lineage. Returns `None` for any invalid handle; the reason is
    /// deliberately not reported. A handle of an earlier lineage is accepted if its row was restored; its index
    /// precedes every index of the current lineage.
    pub fn parse(&self, kind: HandleKind, text: &str) -> Option<HandleContents> {
        match self.read(kind, self.lineage_tag(), text) {
            Err(HandleError::OtherLineage) if kind.may_outlive_a_restore() => self.parse_former(kind, text),
            parsed => parsed.ok(),
        }
    }

    /// Tries the present secrets first, and an earlier one only if none of them made the handle.
    fn read(&self, kind: HandleKind, lineage: LineageTag, text: &str) -> Result<HandleContents, HandleError> {
        match self.handles().parse(kind, lineage, text) {
            Err(HandleError::Forged) => self.parse_of_earlier_secret(kind, lineage, text),
            parsed => parsed,
        }
    }

    fn parse_former(&self, kind: HandleKind, text: &str) -> Option<HandleContents> {
        let cluster = self.cluster().lineage().cluster;
        let state = self.cluster().view();
        let former = state.meta().former_epochs.iter().rev();
        former.map(|epoch| LineageTag::of(&cluster, *epoch)).find_map(|tag| self.read(kind, tag, text).ok())
    }

    /// True if a handle or token made in this lineage epoch may be accepted now.
    pub fn knows_epoch(&self, epoch: u64) -> bool {
        self.cluster().lineage().epoch == epoch || self.cluster().view().meta().former_epochs.contains(&epoch)
    }

    /// A version of the state that includes the handle's row and every acknowledged revocation. `None` if the index
    /// does not belong to this history.
    ///
    /// # Errors
    /// Fails if this node cannot catch up in time.
    pub async fn state_at(&self, handle: &HandleContents) -> Result<Option<Arc<State>>, AuthError> {
        match self.cluster().serving_view(handle.index).await {
            Ok(state) => Ok(Some(state)),
            Err(conclave_cluster::ViewError::FromTheFuture) => Ok(None),
            Err(error @ conclave_cluster::ViewError::Behind) => Err(error.into()),
        }
    }

    /// The live session behind a session cookie's handle. Requirements for `state` are those of [`Self::live_on_host`].
    pub fn live(&self, state: &Arc<State>, handle: &HandleContents) -> Option<SignedIn> {
        let (session, user) = state.live_session(SessionId::new(handle.id), self.now(state))?;
        let presented = SecretHash::new(handle.secret_hash());
        session.secret_hash.matches(&presented).then(|| SignedIn {
            session: Arc::clone(session),
            user: Arc::clone(user),
            state: Arc::clone(state),
        })
    }
}
