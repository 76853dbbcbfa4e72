//! `/continue`: the response to a form, as a page of its own.
//!
//! A browser that sent a form is redirected here and never gets a page in response to the POST, so Back and reload
//! never send the form again. The content of the page, or the next address, is carried in the URL, sealed and bound to
//! the browser.
//!
//! To another site the browser continues from here by `<meta http-equiv="refresh">` and a link, not by a redirect.
//! Chromium applies `form-action` to every redirect after a form, so a callback that redirects to another origin would
//! be blocked. A navigation of this page is not part of the form's redirect chain, and `form-action` stays `'self'`
//! (decision 0046). Programs, which do not accept HTML, are redirected at once.

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{Html, IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};

use crate::views;
use conclave_auth::{
    authorization::{ClientResponse, ResponseMode},
    dispatch::Next,
    ticket::{TicketError, browser_hash},
};
use conclave_crypto::mac;
use conclave_http::{Denial, Fault, RequestId, WayOn, denial::not_denied, fault::wants_page};

use super::{
    logout,
    site::{Browser, Site, denied_by_policy, see_other},
};

/// The purpose that the seal is bound to.
const PURPOSE: &str = "onward/1";
/// Time for which the page may be opened: as long as a user may look at it and reload it.
const LIFETIME_MS: u64 = 15 * 60_000;
/// Maximum length of a text, in bytes, in the `Location` of a response. With the cookies that follow a sign-in and the
/// other headers it fits into the 4 KiB that nginx accepts by default. If the text is longer, the response is the page
/// itself.
pub(super) const MAX_IN_LOCATION: usize = 2_000;

/// The step after a form.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Onward {
    /// A redirect to a checked address.
    Away(String),
    /// A form post to a client with that response mode.
    Post { action: String, fields: Vec<(String, String)> },
    /// The page after a logout: the pages to load, and the next address.
    SignedOut { frames: Vec<String>, next: Option<String> },
    /// The user may not open it.
    Forbidden { what: String, username: String, decision: Option<String>, request: String, switch: String },
    /// The user accepted or rejected the device.
    DeviceDone { allowed: bool },
    /// An error page.
    Fault { status: u16, code: String, title: String, detail: String, request: String, way_on: Option<WayOn> },
}

#[derive(Serialize, Deserialize)]
struct SealedOnward {
    expires_at_ms: u64,
    /// SHA-256 of the browser's own cookie; `None` for content that does not concern a user.
    browser: Option<[u8; 32]>,
    onward: Onward,
}

#[derive(Deserialize)]
pub(super) struct OnwardQuery {
    #[serde(default)]
    to: String,
}

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    id: RequestId,
    headers: HeaderMap,
    Query(query): Query<OnwardQuery>,
) -> Response {
    let browser = match site.browser(&headers) {
        Ok(browser) => browser,
        Err(fault) => return site.fault(&fault, &id),
    };
    match site.open_onward(&query.to, &browser) {
        // The refusal was logged when the form was answered.
        Ok(onward) => not_denied(site.onward_page(&onward)),
        // Expired, or of another browser: the start page leads everywhere.
        Err(_) => site.with_browser(&browser, see_other("/")),
    }
}

impl Site {
    /// The response to a form that leads to the next step.
    pub fn answer_form(&self, next: Next, browser: &Browser, id: &RequestId) -> Response {
        if !browser.reads_pages {
            return self.show(next, browser, id);
        }
        let response = match next {
            Next::Consent { ref ticket, .. } => match self.auth.seal(ticket) {
                Ok(text) if text.len() <= MAX_IN_LOCATION => see_other(&format!("/consent?ticket={text}")),
                // The application's request may be long; then the page carries it in its form.
                _ => return self.show(next, browser, id),
            },
            Next::Redirect(location) => self.leave(&location, browser),
            Next::Open { url, by, redirect } => self.to_application(&url, &by, redirect, browser, id, true),
            Next::Answer(answer) => self.leave_with(&answer, browser),
            Next::Forbidden { what, username, decision, target } => {
                let switch = self.switch_url(&target);
                let request = id.to_string();
                let denial = denied_by_policy(&username, &what, decision.as_deref());
                let forbidden = Onward::Forbidden { what, username, decision, request, switch };
                denial.on(self.onward(forbidden, browser))
            }
            Next::Gone(what) => self.fault_after_form(&super::site::fault_of_gone(what), id),
            next @ Next::Login { .. } => return self.show(next, browser, id),
        };
        self.with_browser(browser, response)
    }

    /// The response to a form from the result of its handler.
    pub fn formed(&self, headers: &HeaderMap, result: Result<Response, Fault>, id: &RequestId) -> Response {
        match result {
            Ok(response) => response,
            // A server error is returned as such, so that a proxy in front may try another node.
            Err(fault) if wants_page(headers) && fault.status.is_client_error() => {
                self.fault_after_form(&fault, id)
            }
            Err(fault) => self.fault(&fault, id),
        }
    }

    fn fault_after_form(&self, fault: &Fault, id: &RequestId) -> Response {
        let onward = Onward::Fault {
            status: fault.status.as_u16(),
            code: fault.code.to_owned(),
            title: fault.title.to_owned(),
            detail: fault.detail.clone(),
            request: id.to_string(),
            way_on: fault.way_on.clone(),
        };
        // Not bound to a browser: it does not concern a user, and browsers without cookies can read it too.
        Denial::new(fault.code, &fault.detail).on(self.onward_bound(onward, None))
    }

    /// Sends the browser to an address that was made here: by a redirect, or by a page with a link if the address would
    /// make the head longer than proxies accept. From that page a browser sends its cookies to an address of this site.
    pub fn go_on_to(&self, location: &str) -> Response {
        if location.len() <= MAX_IN_LOCATION {
            return see_other(location);
        }
        self.onward_page(&Onward::Away(location.to_owned()))
    }

    /// Sends the browser from a form to a checked address: on this site, on another, or of a native app.
    pub fn leave(&self, location: &str, browser: &Browser) -> Response {
        let is_web = location.starts_with("https:") || location.starts_with("http:");
        if !browser.reads_pages || !is_web {
            // An app's own scheme ends the redirect chain, and some browsers open an app only directly after a click.
            return see_other(location);
        }
        self.onward(Onward::Away(location.to_owned()), browser)
    }

    fn leave_with(&self, answer: &ClientResponse, browser: &Browser) -> Response {
        answer.mark_denial(match answer.mode {
            ResponseMode::Query | ResponseMode::Fragment => self.leave(&answer.location(), browser),
            ResponseMode::FormPost => {
                let fields =
                    answer.parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
                let action = answer.redirect_uri.clone();
                self.onward(Onward::Post { action, fields: fields.collect() }, browser)
            }
        })
    }

    /// Redirects this browser to the page with this content.
    pub(super) fn onward(&self, onward: Onward, browser: &Browser) -> Response {
        self.onward_bound(onward, Some(browser_hash(browser.id.as_str())))
    }

    fn onward_bound(&self, onward: Onward, browser: Option<[u8; 32]>) -> Response {
        let expires_at_ms = self.auth.runtime().clock.now_ms().saturating_add(LIFETIME_MS);
        let sealed = SealedOnward { expires_at_ms, browser, onward };
        match self.auth.seal_for_browser(PURPOSE, &sealed) {
            Ok(text) if text.len() <= MAX_IN_LOCATION => see_other(&format!("/continue?to={text}")),
            _ => self.onward_page(&sealed.onward),
        }
    }

    fn open_onward(&self, text: &str, browser: &Browser) -> Result<Onward, TicketError> {
        let sealed: SealedOnward = self.auth.open_sealed(PURPOSE, text)?;
        if self.auth.runtime().clock.now_ms() >= sealed.expires_at_ms {
            return Err(TicketError::Expired);
        }
        let here = browser_hash(browser.id.as_str());
        if sealed.browser.is_some_and(|bound| !mac::equal(&bound, &here)) {
            return Err(TicketError::OtherBrowser);
        }
        Ok(sealed.onward)
    }

    fn onward_page(&self, onward: &Onward) -> Response {
        match onward {
            Onward::Away(next) => {
                Html(self.pages.render(&views::ContinueView { next: next.clone() })).into_response()
            }
            Onward::Post { action, fields } => self.form_post(action, fields),
            Onward::SignedOut { frames, next } => logout::signed_out_page(self, frames, next.clone()),
            Onward::Forbidden { what, username, decision, request, switch } => {
                let view = views::ForbiddenView {
                    username: username.clone(),
                    application: what.clone(),
                    sign_out_url: Some(switch.clone()),
                    request_id: request.clone(),
                    decision_id: decision.clone(),
                    ..Default::default()
                };
                (StatusCode::FORBIDDEN, Html(self.pages.render(&view))).into_response()
            }
            Onward::DeviceDone { allowed } => super::device::done(self, *allowed),
            Onward::Fault { status, code, title, detail, request, way_on } => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_REQUEST);
                let page = self.pages.error(title, detail, code, request, way_on.as_ref());
                (status, Html(page)).into_response()
            }
        }
    }
}
