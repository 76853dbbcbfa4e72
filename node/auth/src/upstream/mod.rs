//! Sign-in at another provider: an OpenID Provider found by discovery, or plain OAuth 2.0 with a userinfo endpoint.
//!
//! | file | owns |
//! |---|---|
//! | `login` | a login at a provider in progress: sealed, carried by `state`, bound to the browser |
//! | `provider` | a provider's endpoints and keys, fetched and cached |
//! | `exchange` | exchanges a code for the provider's claims |
//! | `id_token` | validates an ID token: signature, issuer, audience, times, nonce |
//! | `identity` | the provider's claims about the user, by the configured names |
//! | `complete` | the one write at the end: a session, or a link |
//!
//! The provider is trusted about its own subjects and nothing else: an e-mail address, verified or not, never leads to
//! an account here. All requests go through [`Outbound`], a bounded number at a time. One-time values are spent by the
//! final write, inside the rules, so that any node may handle the callback.

mod complete;
mod exchange;
mod id_token;
mod identity;
mod login;
mod provider;

use std::{sync::Arc, time::Duration};

use conclave_state::{State, upstream::Upstream};
use tokio::sync::Semaphore;

use conclave_crypto::{
    aead::{SealError, Sealer},
    keys::ClusterKeys,
};
use conclave_http::{Outbound, outbound::OutboundError};

use super::{
    Auth, AuthError,
    ticket::{LoginStep, LoginTarget, Ticket, TicketError},
};

pub use complete::{is_decided_by_handle, is_kept_by_handle};
pub use id_token::IdTokenError;
pub use identity::UpstreamIdentity;
pub use login::{Callback, UpstreamLogin};

use provider::Providers;

/// Maximum number of callbacks handled at once: each holds a connection to a provider for some seconds at most.
const AT_ONCE: usize = 64;
/// Accepted difference between a provider's clock and ours.
pub const SKEW_SECS: u64 = 60;
/// The page on which a user enters an Atmosphere identity. Its slice serves it.
pub const ATMOSPHERE: &str = "/atproto";
/// Maximum age of an authentication with which a user may change their ways to sign in.
pub const FRESH: Duration = Duration::from_mins(10);

/// The state of this module about providers. Nothing of it is needed after a restart.
pub struct Upstreams {
    pub outbound: Outbound,
    sealer: Sealer,
    providers: Providers,
    places: Arc<Semaphore>,
}

/// The reason why a sign-in at a provider failed.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("there is no such provider, or it is disabled")]
    Unknown,
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error("the provider cannot be reached: {0}")]
    Unreachable(#[from] OutboundError),
    /// The text is for the log.
    #[error("the provider's response cannot be used: {0}")]
    Answer(String),
    #[error("the user or the provider denied the sign-in")]
    Denied,
    #[error("the response came from another provider than the requested one")]
    MixUp,
    #[error("the ID token is not valid: {0}")]
    Token(#[from] IdTokenError),
    /// The user had to authenticate again and did not, or the provider does not state the time of authentication.
    #[error("the provider does not confirm that the user has just authenticated")]
    NotFresh,
    /// No account is linked to this identity, and the provider does not admit new users.
    #[error("no account is linked to this identity")]
    NotLinked,
    /// No account is linked to this DID, and neither the DID nor its handle is listed.
    #[error("no account is linked to this DID, and it is not listed")]
    NotListed,
    /// No account is linked to this DID, and new users are not admitted without an invitation.
    #[error("no account is linked to this DID, and new users are not admitted")]
    NoSignUp,
    #[error(transparent)]
    Failed(#[from] AuthError),
}

impl Upstreams {
    pub fn new(keys: &ClusterKeys, outbound: Outbound) -> Self {
        Self {
            outbound,
            sealer: Sealer::ring(keys, |keys| &keys.sealing),
            providers: Providers::default(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

fn purpose(name: &str) -> String {
    format!("upstream-secret/{name}")
}

/// The path of the provider's callback. Each provider has its own, so that no provider can answer for another.
pub fn callback_path(name: &str) -> String {
    format!("/upstream/{name}/callback")
}

impl Auth {
    /// The cluster's client secret at a provider, sealed for the state.
    ///
    /// # Errors
    /// Fails if it is too long.
    pub fn seal_upstream_secret(&self, name: &str, secret: &str) -> Result<Vec<u8>, AuthError> {
        if secret.is_empty() {
            return Ok(Vec::new());
        }
        let entropy = &*self.runtime().entropy;
        let sealed = self.upstreams().sealer.seal(&purpose(name), secret.as_bytes(), entropy);
        sealed.map_err(|error| AuthError::Internal(format!("a client secret cannot be sealed: {error}")))
    }

    /// The secret of a provider's row, sealed again under the current key; `None` if it already is.
    ///
    /// # Errors
    /// Fails if this node cannot open it.
    pub fn resealed_upstream(&self, row: &Upstream) -> Result<Option<Vec<u8>>, SealError> {
        if row.sealed_secret.is_empty() {
            return Ok(None);
        }
        self.upstreams().sealer.renewed(&purpose(&row.name), &row.sealed_secret, &*self.runtime().entropy)
    }

    fn upstream_secret(&self, upstream: &Upstream) -> Result<Option<String>, AuthError> {
        if upstream.sealed_secret.is_empty() {
            return Ok(None);
        }
        let opened = self.upstreams().sealer.open(&purpose(&upstream.name), &upstream.sealed_secret);
        let unusable = |why: &dyn std::fmt::Display| {
            AuthError::Internal(format!("the client secret of upstream {}: {why}", upstream.name))
        };
        let text = String::from_utf8(opened.map_err(|e| unusable(&e))?).map_err(|e| unusable(&e))?;
        Ok(Some(text))
    }

    /// The redirect URI to register at the provider.
    pub fn upstream_redirect_uri(&self, name: &str) -> String {
        self.settings().public_url.join(&callback_path(name))
    }

    /// The address of the provider's sign-in for the login that `ticket` stands for.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn upstream_authorization_url(
        &self,
        name: &str,
        ticket: Ticket,
    ) -> Result<String, UpstreamError> {
        let state = self.cluster().view();
        let upstream = able(&state, name)?;
        let age = wanted_age(&ticket);
        if age.is_some() && !upstream.is_openid() {
            return Err(UpstreamError::NotFresh);
        }
        if upstream.is_atmosphere() {
            // The user names the server on a page of that slice.
            return Ok(format!("{ATMOSPHERE}?ticket={}", self.seal(&ticket)?));
        }
        let provider = self.upstreams().providers.of(self, upstream).await?;
        let login = UpstreamLogin::begin(ticket, name, &*self.runtime().entropy);
        let sealed = self.seal_upstream_login(&login)?;
        let redirect_uri = self.upstream_redirect_uri(name);
        let request = login::UpstreamRequest { upstream, redirect_uri: &redirect_uri, state: &sealed, age };
        login.authorization_url(&provider.authorization, &request).ok_or_else(|| {
            UpstreamError::Answer("its authorization endpoint is not an http or https URL".into())
        })
    }

    /// Exchanges the code of a callback for the provider's identity of the user.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn exchange_upstream_code(
        &self,
        name: &str,
        login: &UpstreamLogin,
        callback: &Callback,
    ) -> Result<UpstreamIdentity, UpstreamError> {
        let _place = self.upstreams().places.try_acquire().map_err(|_| AuthError::Busy)?;
        if login.upstream != name {
            return Err(UpstreamError::MixUp);
        }
        let state = self.cluster().view();
        let upstream = able(&state, name)?;
        let provider = self.upstreams().providers.of(self, upstream).await?;
        provider.is_answered_by(callback.iss.as_deref())?;
        if let Some(error) = &callback.error {
            return Err(refused_by(error));
        }
        let code = callback.code.as_deref().filter(|code| !code.is_empty());
        let code = code.ok_or_else(|| UpstreamError::Answer("it sent no code".into()))?;
        let identity = self.redeem_upstream_code(upstream, &provider, login, code).await?;
        if let Some(age) = wanted_age(&login.ticket) {
            let least = (login.ticket.issued_at_ms / 1_000).saturating_sub(age).saturating_sub(SKEW_SECS);
            if identity.auth_time_secs.is_none_or(|at| at < least) {
                return Err(UpstreamError::NotFresh);
            }
        }
        Ok(identity)
    }
}

/// The provider with this name, unless disabled.
fn able<'a>(state: &'a State, name: &str) -> Result<&'a Upstream, UpstreamError> {
    let upstream = state.upstream(name).filter(|upstream| !upstream.disabled);
    upstream.map(|upstream| &**upstream).ok_or(UpstreamError::Unknown)
}

/// Maximum age of the user's authentication for this login, seconds; `None` for any age.
pub fn wanted_age(ticket: &Ticket) -> Option<u64> {
    if matches!(ticket.step, LoginStep::Login { fresh: true }) {
        return Some(0);
    }
    match &ticket.target {
        LoginTarget::Authorize(request) if request.prompt.login => Some(0),
        LoginTarget::Authorize(request) => request.max_age_secs,
        LoginTarget::Open { .. }
        | LoginTarget::Home
        | LoginTarget::Device { .. }
        | LoginTarget::Leave { .. } => None,
    }
}

/// The error for an error response (RFC 6749 §4.1.2.1). Its text may be from an attacker, so only the usual codes are
/// repeated.
fn refused_by(error: &str) -> UpstreamError {
    match error {
        "access_denied" | "login_required" | "interaction_required" | "consent_required" => {
            UpstreamError::Denied
        }
        "temporarily_unavailable" | "server_error" => {
            UpstreamError::Answer(format!("it returned the error {error}"))
        }
        _ => UpstreamError::Answer("it returned an error".into()),
    }
}
