//! Machine clients at the check, without a browser and a session: app passwords, and the interface for access tokens.

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

/// The authentication method of a machine client, in place of a user's.
const APP_PASSWORD_METHOD: &str = "app_password";

/// The hash of an app password in replicated state. It is fast, because the secret is random. It is keyed, so that a
/// guess cannot be confirmed with a copy of the state alone.
pub fn app_password_hash(key: &Key, secret: &HandleSecret) -> [u8; 32] {
    mac::hmac_sha256(key, &[b"app-password", secret.expose()])
}

/// The user that an app password authenticates, and its restriction.
#[derive(Debug)]
pub struct AppPasswordUser {
    pub signed_in: SignedIn,
    /// The only application that it opens; `None` means every application that accepts app passwords.
    pub only: Option<ApplicationId>,
}

/// The user that an access token authenticates, and its audiences.
#[derive(Debug)]
pub struct AccessTokenUser {
    pub signed_in: SignedIn,
    /// The token's `aud`.
    pub audiences: Vec<String>,
}

/// Validates access tokens. Implemented by the slice that issues them, so that callers do not depend on it.
pub trait AccessTokens: Send + Sync {
    /// Returns the token's user if the token is valid and its session is live. Returns `None` for an invalid token, for
    /// one bound to a key that a bearer request does not prove, and for one without a user.
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Option<AccessTokenUser>, AuthError>>;
}

impl Auth {
    /// Returns the user of this app password, presented with a username or with an e-mail address of that user. Returns
    /// `None` if it was not made here, belongs to another user, or has expired.
    ///
    /// # Errors
    /// Fails if this node is behind and cannot catch up.
    pub async fn app_password(
        &self,
        username: &str,
        text: &str,
    ) -> Result<Option<AppPasswordUser>, AuthError> {
        let Some(handle) = self.parse(HandleKind::AppPassword, text) else { return Ok(None) };
        let Some(state) = self.state_at(&handle).await? else { return Ok(None) };
        let id = AppPasswordId::new(handle.id);
        let Some((password, user)) = state.live_app_password(id, self.now(&state)) else { return Ok(None) };
        let named = state.user_by_sign_in_name(&text::address(username));
        if !self.is_app_password(password, &handle.secret) || named.is_none_or(|named| named.id != user.id) {
            return Ok(None);
        }
        // Policies read the time and method of a sign-in. A machine client never signs in, so the creation time of its
        // password is used.
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
        Ok(Some(AppPasswordUser { signed_in, only: password.application }))
    }
}
