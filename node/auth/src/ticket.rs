//! A login in progress. The ticket is sealed under a key of the cluster, carried by the browser and bound to it, so
//! that any node can continue the login and an unauthenticated visitor costs no write. Its id is spent inside the
//! rules, once (docs/design/consistency.md).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_state::ids::TicketId;
use serde::{Deserialize, Serialize};

use conclave_crypto::mac;

use super::{Auth, authorization::AuthorizationRequest};

/// Maximum length of a ticket's text: it must fit into a URL with everything else.
const MAX_TEXT_BYTES: usize = 8 * 1024;
/// The purpose that the seal is bound to; a value sealed for another purpose does not open.
const PURPOSE: &str = "login-ticket/1";

/// The goal of a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginTarget {
    /// A code for an OAuth client.
    Authorize(Box<AuthorizationRequest>),
    /// A page behind forward-auth. `binding` is the SHA-256 of the browser's cookie on that host.
    Open { url: AppUrl, binding: Option<[u8; 32]> },
    /// The home page of this site.
    Home,
    /// The page for the code of a device, with the code that was typed or scanned.
    Device { user_code: String },
    /// Another site. In a logout, an address that the client registered; in a sign-in with another account, a page of
    /// an application.
    Leave { uri: String },
}

/// A URL on an application's host, built from a proxy's metadata and never from a query string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppUrl {
    /// `https` or `http`.
    pub scheme: String,
    /// The canonical `host[:port]` ([`conclave_http::host`]), without the scheme's default port.
    pub authority: String,
    /// Path and query, ASCII: raw bytes outside ASCII were percent-encoded when it was parsed.
    pub path: String,
    /// The mount of this product's own routes on that host.
    #[serde(default)]
    pub mount: Mount,
}

/// The path prefix of this product's own routes on an application's host. The proxy forwards them here without a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// This product's own prefix.
    #[default]
    Conclave,
    /// The prefix of the product whose proxy configurations work here unchanged (decision 0047).
    Authentik,
}

impl Mount {
    /// All mounts.
    pub const ALL: [Self; 2] = [Self::Conclave, Self::Authentik];

    /// The prefix of `/start`, `/callback` and the sign-out on the application's host.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Conclave => "/.conclave",
            Self::Authentik => "/outpost.goauthentik.io",
        }
    }

    /// The prefix of the routes that proxies send checks to.
    pub const fn checks(self) -> &'static str {
        match self {
            Self::Conclave => "",
            Self::Authentik => "/outpost.goauthentik.io",
        }
    }

    /// The path of the sign-out.
    pub fn sign_out(self) -> String {
        let name = match self {
            Self::Conclave => "sign-out",
            Self::Authentik => "sign_out",
        };
        format!("{}/{name}", self.prefix())
    }
}

impl AppUrl {
    /// The host without its port, by which applications are found.
    pub fn host(&self) -> String {
        let host = match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => &self.authority,
        };
        host.to_owned()
    }

    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }
}

impl std::fmt::Display for AppUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

/// The state of a login attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginStep {
    /// The user must authenticate. If `fresh` is true, a session older than the ticket does not satisfy this.
    Login { fresh: bool },
    /// The user of this session must accept or reject the client.
    Consent { session: [u8; 16] },
    /// The session, written at `index`, is to become a session on the application's host.
    #[serde(rename = "HandOver")]
    AppSso { session: [u8; 16], index: u64 },
    /// The user must confirm the logout.
    Logout,
    /// The user of this session must accept or reject the device.
    Device { session: [u8; 16], device: [u8; 16] },
    /// The user of this session must sign in at an upstream provider, to link that identity to the account here.
    Link { session: [u8; 16] },
    /// The browser is at an application's host, about to be sent here. Not bound to a browser yet.
    Outside,
}

/// A login in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub id: [u8; 16],
    pub issued_at_ms: u64,
    pub expires_at_ms: u64,
    /// SHA-256 of the browser's own cookie; `None` while the ticket is not bound to a browser.
    pub browser: Option<[u8; 32]>,
    pub step: LoginStep,
    pub target: LoginTarget,
    /// The reason why the form is shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Note>,
}

/// The note on a form that is shown again, with the username that was typed before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub why: NoteReason,
    #[serde(default)]
    pub username: String,
}

/// The reason why a form is shown again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoteReason {
    /// Wrong username or password.
    Wrong,
    /// The account is disabled.
    Disabled,
    /// Too many attempts; the next one may be made after this many seconds.
    TooMany { seconds: u64 },
    /// The form was open longer than the lifetime of a ticket.
    Expired,
    /// The form was sent before, and its action is done.
    Spent,
    /// The form was shown in another browser, or the browser has lost its cookies.
    OtherBrowser,
    /// The form was sent without proof that this site showed it to this browser.
    NotFromHere,
}

impl NoteReason {
    /// One line for the user.
    pub fn text(self) -> String {
        match self {
            Self::Wrong => "The username or password is wrong.".into(),
            Self::Disabled => "This account is disabled. Ask your administrator.".into(),
            Self::TooMany { seconds } => match seconds.div_ceil(60) {
                0 | 1 => "Too many attempts. Try again in about a minute.".into(),
                minutes => format!("Too many attempts. Try again in about {minutes} minutes."),
            },
            Self::Expired => "This page was open for too long. Please try again.".into(),
            Self::Spent => "This form was sent before. Please try again.".into(),
            Self::NotFromHere => {
                "This form was sent from another page, or your browser does not keep cookies. Allow cookies for this site and try again."
                    .into()
            }
            Self::OtherBrowser => {
                "This page was opened in another browser, or your browser has lost its cookies. Please try again.".into()
            }
        }
    }
}

/// The reason why a ticket is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    #[error("the sign-in link is damaged or was not made here")]
    NotOurs,
    #[error("the sign-in took too long")]
    Expired,
    #[error("the sign-in was started in another browser")]
    OtherBrowser,
}

impl TicketError {
    /// The reason shown on the new form.
    pub const fn why(self) -> NoteReason {
        match self {
            Self::Expired => NoteReason::Expired,
            Self::NotOurs | Self::OtherBrowser => NoteReason::OtherBrowser,
        }
    }
}

impl Ticket {
    pub const fn ticket_id(&self) -> TicketId {
        TicketId::new(self.id)
    }
}

/// The hash of a browser's cookie that a ticket contains.
pub fn browser_hash(cookie: &str) -> [u8; 32] {
    mac::sha256(cookie.as_bytes())
}

impl Auth {
    /// A new ticket for this browser.
    pub fn ticket(&self, step: LoginStep, target: LoginTarget, browser: Option<&str>) -> Ticket {
        let now = self.runtime().clock.now_ms();
        let life = u64::try_from(self.settings().login.flow_ttl.as_millis()).unwrap_or(u64::MAX);
        Ticket {
            id: self.runtime().entropy.bytes(),
            issued_at_ms: now,
            expires_at_ms: now.saturating_add(life),
            browser: browser.map(browser_hash),
            step,
            target,
            note: None,
        }
    }

    /// The ticket as text for a URL or a form field.
    ///
    /// # Errors
    /// Fails if it is too long to be carried.
    pub fn seal(&self, ticket: &Ticket) -> Result<String, super::AuthError> {
        self.seal_for_browser(PURPOSE, ticket)
    }

    /// Seals a value that a browser carries for a while, as text.
    pub fn seal_for_browser(&self, purpose: &str, what: &impl Serialize) -> Result<String, super::AuthError> {
        let internal =
            |e: &dyn std::fmt::Display| super::AuthError::Internal(format!("a ticket cannot be sealed: {e}"));
        let plain = serde_json::to_vec(what).map_err(|e| internal(&e))?;
        let sealed =
            self.inner.tickets.seal(purpose, &plain, &*self.runtime().entropy).map_err(|e| internal(&e))?;
        let text = URL_SAFE_NO_PAD.encode(sealed);
        if text.len() > MAX_TEXT_BYTES {
            return Err(super::AuthError::TooLong);
        }
        Ok(text)
    }

    /// Opens a ticket presented by this browser.
    ///
    /// # Errors
    /// [`TicketError`].
    pub fn open(&self, text: &str, browser: Option<&str>) -> Result<Ticket, TicketError> {
        let ticket: Ticket = self.open_sealed(PURPOSE, text)?;
        self.check_ticket(&ticket, browser)?;
        Ok(ticket)
    }

    /// Opens a ticket of this cluster even if it has expired or belongs to another browser, and returns that problem.
    /// The target of such a ticket must be checked again ([`Auth::still_stands`]) before the user may continue with it.
    ///
    /// # Errors
    /// [`TicketError::NotOurs`].
    pub fn reopen(
        &self,
        text: &str,
        browser: Option<&str>,
    ) -> Result<(Ticket, Option<TicketError>), TicketError> {
        let ticket: Ticket = self.open_sealed(PURPOSE, text)?;
        let trouble = self.check_ticket(&ticket, browser).err();
        Ok((ticket, trouble))
    }

    /// Opens what [`seal_for_browser`](Self::seal_for_browser) sealed.
    pub fn open_sealed<T: for<'de> Deserialize<'de>>(
        &self,
        purpose: &str,
        text: &str,
    ) -> Result<T, TicketError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TicketError::NotOurs);
        }
        let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| TicketError::NotOurs)?;
        let plain = self.inner.tickets.open(purpose, &sealed).map_err(|_| TicketError::NotOurs)?;
        serde_json::from_slice(&plain).map_err(|_| TicketError::NotOurs)
    }

    /// Checks that the ticket has not expired and belongs to this browser.
    pub fn check_ticket(&self, ticket: &Ticket, browser: Option<&str>) -> Result<(), TicketError> {
        if self.runtime().clock.now_ms() >= ticket.expires_at_ms {
            return Err(TicketError::Expired);
        }
        if let Some(bound) = ticket.browser {
            let here = browser.map(browser_hash);
            if !here.is_some_and(|here| mac::equal(&here, &bound)) {
                return Err(TicketError::OtherBrowser);
            }
        }
        Ok(())
    }
}
