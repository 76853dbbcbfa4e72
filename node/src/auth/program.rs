//! Programs at the check, which have no browser and no session: app passwords, and who judges access tokens.

use std::sync::Arc;

use conclave_state::{
    Stamp,
    ids::{AppPasswordId, ApplicationId, SessionId},
    session::Session,
};
use futures_util::future::BoxFuture;

use conclave_base::text;
use conclave_crypto::{
    handle::{HandleKind, HandleSecret},
    keys::Key,
    mac,
};

use super::{Auth, AuthError, session::SignedIn};

/// How a program proved whose it is, in place of an authentication method of a person.
const APP_PASSWORD_METHOD: &str = "app_password";

/// What replicated state keeps of an app password's secret. Fast, since the secret is random; keyed, so that a copy of
/// the state alone confirms no guess.
pub fn app_password_hash(key: &Key, secret: &HandleSecret) -> [u8; 32] {
    mac::hmac_sha256(key, &[b"app-password", secret.expose()])
}

/// Whom an app password speaks for, and where.
#[derive(Debug)]
pub struct ByAppPassword {
    pub signed_in: SignedIn,
    /// The only application that it opens; none = every one that takes app passwords.
    pub only: Option<ApplicationId>,
}

/// Whom an access token speaks for, and at whom.
#[derive(Debug)]
pub struct ByAccessToken {
    pub signed_in: SignedIn,
    /// Its `aud`.
    pub audiences: Vec<String>,
}

/// Who judges access tokens. The slice that issues them; whoever asks knows nothing of it.
pub trait AccessTokens: Send + Sync {
    /// Whom the token speaks for, if it is good and its session is alive. None for every token that is not, that is
    /// bound to a key which a bearer does not prove, or that speaks for no person.
    fn judge<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<ByAccessToken>, AuthError>>;
}

impl Auth {
    /// Whom this app password speaks for, presented with this username or with an address that leads to its user. None:
    /// it is not ours, not theirs, or over.
    ///
    /// # Errors
    /// When this node is behind and cannot catch up.
    pub async fn app_password(&self, username: &str, text: &str) -> Result<Option<ByAppPassword>, AuthError> {
        let Some(handle) = self.parse(HandleKind::AppPassword, text) else { return Ok(None) };
        let Some(state) = self.state_at(&handle).await? else { return Ok(None) };
        let id = AppPasswordId::new(handle.id);
        let Some((password, user)) = state.live_app_password(id, self.now(&state)) else { return Ok(None) };
        let named = state.user_by_sign_in_name(&text::address(username));
        if !self.is_app_password(password, &handle.secret) || named.is_none_or(|named| named.id != user.id) {
            return Ok(None);
        }
        // What decides on people asks when and how they signed in. A program never has; it speaks from when its
        // password was made.
        let session = Session {
            id: SessionId::new(handle.id),
            user: user.id,
            secret_hash: password.secret_hash,
            amr: vec![APP_PASSWORD_METHOD.to_owned()],
            auth_time: password.created_at,
            expires_at: password.expires_at.unwrap_or(Stamp(u64::MAX)),
            epoch: state.meta().revocation_epoch,
            user_agent: String::new(),
            address: String::new(),
            clients: Vec::new(),
            upstream: Arc::default(),
            former_secret_hash: None,
        };
        let signed_in =
            SignedIn { session: Arc::new(session), user: Arc::clone(user), state: Arc::clone(&state) };
        Ok(Some(ByAppPassword { signed_in, only: password.application }))
    }
}
