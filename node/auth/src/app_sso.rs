//! Single sign-on from a session here to a cookie on an application's own host: a one-time ticket carried by a
//! redirect.
//!
//! Cookies of this site do not reach the application's host. The forward-auth check sends a visitor to
//! `/.conclave/start` on that host, which binds the attempt to the browser there. After the login the browser returns
//! to `/.conclave/callback` with the ticket made here, which is spent for a cookie of that host. A leaked ticket is
//! useless in another browser.

use conclave_proto::command::v1::{OpenAppSession, command::Body};
use conclave_state::{ReplyBody, application::Application, ids::SessionId};

use conclave_crypto::{handle::HandleKind, mac};

use super::{
    Auth, AuthError,
    complete::unexpected,
    session::SignedIn,
    ticket::{AppUrl, LoginStep, LoginTarget, Ticket},
    write_key::WriteKey,
};

/// Lifetime of the ticket: the redirect follows at once.
const LIFETIME_MS: u64 = 60_000;

impl Auth {
    /// True if browsers send the session's own cookie to this host (`http.cookie_domain`).
    pub fn shares_session_cookie(&self, host: &str) -> bool {
        let below = |domain: &str| {
            host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.settings().cookie_domain.as_deref().is_some_and(below)
    }

    /// The longest configured domain that this host is below and whose hosts share one sign-in (`http.app_domains`).
    pub fn app_domain(&self, host: &str) -> Option<&str> {
        let is_below = |domain: &&str| {
            host.strip_suffix(*domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let domains = self.settings().app_domains.iter().map(String::as_str);
        domains.filter(is_below).max_by_key(|domain| domain.len())
    }

    /// True if this URL has the application's own origin. The proxy reports scheme and port of a request, and a session
    /// is handed to the resulting address. In production this must be https on the default port, or the origin of the
    /// application's launch URL. On a developer's machine (an issuer without TLS) any port is accepted.
    pub fn is_true_origin(&self, url: &AppUrl, application: &Application) -> bool {
        !self.settings().public_url.is_secure() || is_true_origin(url, &application.launch_url)
    }

    /// The URL on the application's host that turns this session into a cookie there.
    ///
    /// # Errors
    /// Fails if the ticket cannot be made.
    pub fn app_sso_url(
        &self,
        url: &AppUrl,
        binding: Option<[u8; 32]>,
        signed_in: &SignedIn,
    ) -> Result<String, AuthError> {
        let step =
            LoginStep::AppSso { session: *signed_in.session.id.bytes(), index: signed_in.state.index() };
        let target = LoginTarget::Open { url: url.clone(), binding };
        let mut ticket = self.ticket(step, target, None);
        ticket.browser = binding;
        ticket.expires_at_ms = ticket.issued_at_ms.saturating_add(LIFETIME_MS);
        Ok(format!("{}{}/callback?ticket={}", url.origin(), url.mount.prefix(), self.seal(&ticket)?))
    }

    /// Spends an app-SSO ticket; returns the text of the cookie for the application's host.
    ///
    /// # Errors
    /// [`AuthError`]; `Refused(TicketSpent)` when it was used before.
    pub async fn open_app_session(&self, ticket: &Ticket, write_key: &WriteKey) -> Result<String, AuthError> {
        let (LoginStep::AppSso { session, .. }, LoginTarget::Open { url, .. }) =
            (ticket.step, &ticket.target)
        else {
            return Err(AuthError::Internal(
                "a ticket of another kind reached the single sign-on of an app".into(),
            ));
        };
        let secret = write_key.secret("arm");
        let command = OpenAppSession {
            app_session_id: write_key.id("arm").to_vec(),
            session_id: SessionId::new(session).to_vec(),
            secret_hash: mac::sha256(secret.expose()).to_vec(),
            host: url.host(),
            ticket_id: ticket.id.to_vec(),
            ticket_expires_at_ms: ticket.expires_at_ms,
            domain: self.app_domain(&url.host()).unwrap_or_default().to_owned(),
        };
        let committed = self.cluster().propose(write_key.request(), Body::OpenAppSession(command)).await?;
        match &committed.body {
            ReplyBody::SessionStarted(opened) => {
                Ok(self.issue(HandleKind::AppSession, write_key.id("arm"), secret, 0, opened.index))
            }
            other => Err(unexpected(other)),
        }
    }
}

fn is_true_origin(url: &AppUrl, launch_url: &str) -> bool {
    // The authority is canonical: it contains no default port.
    let usual = url.scheme == "https" && url.authority == url.host();
    usual || super::authorization::origin_of(launch_url).is_some_and(|origin| origin == url.origin())
}

#[cfg(test)]
mod tests {
    use super::{super::ticket::Mount, *};

    #[test]
    fn a_session_is_handed_over_to_the_applications_own_origin_only() {
        let judge = |scheme: &str, authority: &str, launch_url: &str| {
            let url = AppUrl {
                scheme: scheme.into(),
                authority: authority.into(),
                path: "/".into(),
                mount: Mount::default(),
            };
            is_true_origin(&url, launch_url)
        };
        assert!(judge("https", "app.test", "") && judge("https", "[2001:db8::7]", ""));
        assert!(judge("https", "[2001:db8::7]:8443", "https://[2001:db8::7]:8443/"));
        assert!(!judge("https", "[2001:db8::7]:8443", ""));
        assert!(judge("https", "app.test:8443", "https://app.test:8443/start"));
        assert!(!judge("http", "app.test", "") && !judge("https", "app.test:1337", ""));
        assert!(!judge("http", "app.test:8443", "https://app.test:8443/"));
    }
}
