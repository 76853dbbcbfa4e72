//! An upstream login in progress. It travels as the `state` parameter, sealed under a key of the cluster and bound to
//! the browser, so that any node can continue it and another browser cannot. The nonce and the PKCE verifier are
//! derived from a secret inside the seal. The final write spends the login ticket inside.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_state::upstream::Upstream;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    Auth, AuthError,
    ticket::{Ticket, TicketError},
};
use conclave_base::runtime::Entropy;
use conclave_crypto::{keys::Key, mac};

/// The purpose that the seal is bound to; a value sealed for another purpose does not open.
const PURPOSE: &str = "upstream-flight/1";

/// An upstream login in progress.
#[derive(Serialize, Deserialize)]
pub struct UpstreamLogin {
    pub ticket: Ticket,
    pub upstream: String,
    secret: [u8; 32],
}

impl std::fmt::Debug for UpstreamLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamLogin").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

/// The callback's parameters.
#[derive(Debug, Default, Deserialize)]
pub struct Callback {
    #[serde(default)]
    pub state: String,
    pub code: Option<String>,
    pub iss: Option<String>,
    pub error: Option<String>,
}

/// The parameters of the authorization request to the provider.
pub(super) struct UpstreamRequest<'a> {
    pub upstream: &'a Upstream,
    pub redirect_uri: &'a str,
    pub state: &'a str,
    /// Maximum age of the user's authentication, seconds.
    pub age: Option<u64>,
}

impl UpstreamLogin {
    /// An upstream login whose callback was verified by another slice.
    pub fn of_verified_callback(ticket: Ticket, upstream: &str) -> Self {
        Self { ticket, upstream: upstream.to_owned(), secret: [0; 32] }
    }

    pub(super) fn begin(ticket: Ticket, upstream: &str, entropy: &dyn Entropy) -> Self {
        Self { ticket, upstream: upstream.to_owned(), secret: entropy.bytes() }
    }

    /// The nonce that the ID token must repeat.
    pub fn nonce(&self) -> String {
        self.derived(b"nonce")
    }

    /// The PKCE verifier for the token endpoint (RFC 7636).
    pub fn verifier(&self) -> String {
        self.derived(b"verifier")
    }

    fn derived(&self, label: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(mac::hmac_sha256(&Key::new(self.secret), &[b"upstream-flight", label]))
    }

    /// The provider's authorization URL with all parameters. `None` if the endpoint is not an address that a browser
    /// may be redirected to.
    pub(super) fn authorization_url(&self, endpoint: &str, request: &UpstreamRequest<'_>) -> Option<String> {
        let mut url = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "https" | "http"))?;
        let challenge = URL_SAFE_NO_PAD.encode(mac::sha256(self.verifier().as_bytes()));
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &request.upstream.client_id)
            .append_pair("redirect_uri", request.redirect_uri)
            .append_pair("state", request.state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if !request.upstream.scopes.is_empty() {
            query.append_pair("scope", &request.upstream.scopes.join(" "));
        }
        if request.upstream.is_openid() {
            query.append_pair("nonce", &self.nonce());
        }
        if let Some(age) = request.age {
            // With `max_age` in the request, `auth_time` must be in the ID token (OIDC Core §2).
            query.append_pair("max_age", &age.to_string());
        }
        if request.age == Some(0) {
            query.append_pair("prompt", "login");
        }
        drop(query);
        Some(url.into())
    }
}

impl Auth {
    pub(super) fn seal_upstream_login(&self, login: &UpstreamLogin) -> Result<String, AuthError> {
        self.seal_for_browser(PURPOSE, login)
    }

    /// Opens the `state` that this browser returned.
    ///
    /// # Errors
    /// [`TicketError`]; a login that is not bound to a browser is refused.
    pub fn open_upstream_login(
        &self,
        text: &str,
        browser: Option<&str>,
    ) -> Result<UpstreamLogin, TicketError> {
        let login: UpstreamLogin = self.open_sealed(PURPOSE, text)?;
        if login.ticket.browser.is_none() {
            return Err(TicketError::NotOurs);
        }
        self.check_ticket(&login.ticket, browser)?;
        Ok(login)
    }
}
