//! `/logout`: asks for confirmation, then ends the session everywhere. A relying party's logout arrives here with a
//! ticket that holds the address to return to.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Query, State, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use conclave_proto::command::v1::{RevokeSession, command::Body};
use serde::Deserialize;
use url::Url;

use crate::views;
use conclave_auth::{
    AuthError,
    session::SignedIn,
    ticket::{LoginStep, LoginTarget},
};
use conclave_http::{Fault, RequestId};

use super::{
    onward::Onward,
    site::{Browser, Site, allow_way_home, fault_of, see_other},
};

/// Maximum number of clients' pages that one page loads: more would neither load in time nor fit into the content
/// security policy.
const MAX_FRAMES: usize = 32;

#[derive(Deserialize)]
pub(super) struct LogoutQuery {
    #[serde(default)]
    ticket: String,
}

#[derive(Deserialize)]
pub(super) struct LogoutForm {
    csrf: String,
    #[serde(default)]
    ticket: String,
}

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    id: RequestId,
    headers: HeaderMap,
    Query(query): Query<LogoutQuery>,
) -> Response {
    match shown(&site, &headers, &query.ticket).await {
        Ok(response) => response,
        Err(fault) => site.fault(&fault, &id),
    }
}

async fn shown(site: &Site, headers: &HeaderMap, ticket: &str) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    let target = leave_target(site, &browser, ticket);
    let visitor = site.visitor(&browser).await?;
    let Some(signed_in) = visitor.signed_in else { return Ok(left(site, target.as_ref(), &[])) };
    let view = views::LogoutView {
        form: site.form(&browser, "/logout", ticket),
        username: signed_in.user.username.to_string(),
        back: Some(views::PageLink { url: "/".into(), label: "Stay signed in".into() }),
    };
    let mut response = Html(site.pages.render(&view)).into_response();
    target.iter().for_each(|target| allow_way_home(&mut response, target));
    Ok(site.with_browser(&browser, response))
}

pub(super) async fn submit(
    State(site): State<Arc<Site>>,
    id: RequestId,
    headers: HeaderMap,
    form: Result<Form<LogoutForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        let detail = "The form arrived incomplete. Go back, reload the page and try again.";
        let fault = Fault::new(StatusCode::BAD_REQUEST, "bad_form", "The form is incomplete", detail);
        return site.formed(&headers, Err(fault.with_way_on("/logout", "Sign out")), &id);
    };
    let result = submitted(&site, &headers, form).await;
    site.formed(&headers, result.map_err(|fault| fault.with_way_on("/logout", "Sign out")), &id)
}

async fn submitted(site: &Site, headers: &HeaderMap, form: LogoutForm) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    site.check_csrf(&browser, "/logout", &form.csrf)?;
    let target = leave_target(site, &browser, &form.ticket);
    let frames = match site.visitor(&browser).await?.signed_in {
        Some(signed_in) => site.sign_out(headers, &signed_in).await.map_err(|e| fault_of(&e))?,
        None => Vec::new(),
    };
    Ok(site.signed_out_by_form(target.as_ref(), &frames, &browser))
}

impl Site {
    /// Ends the session, on every node and for all its clients. Returns the clients' pages that the browser must load
    /// (OIDC Front-Channel Logout §3).
    ///
    /// # Errors
    /// Fails if the cluster cannot accept the write. The user is then still signed in, and an error page must say so.
    pub async fn sign_out(&self, headers: &HeaderMap, signed_in: &SignedIn) -> Result<Vec<Url>, AuthError> {
        let id = signed_in.session.id;
        let write_key = self.write_key(headers, &[b"logout", id.bytes()]);
        let command = RevokeSession { session_id: id.to_vec() };
        self.auth.cluster().propose(write_key.request(), Body::RevokeSession(command)).await?;
        Ok(self.frames(signed_in))
    }

    /// The response to a logout by form.
    pub fn signed_out_by_form(
        &self,
        target: Option<&LoginTarget>,
        frames: &[Url],
        browser: &Browser,
    ) -> Response {
        let response = match next_of(target) {
            Some(uri) if frames.is_empty() => self.leave(&uri, browser),
            next if browser.reads_pages => {
                let frames = frames.iter().map(ToString::to_string).collect();
                self.onward(Onward::SignedOut { frames, next }, browser)
            }
            _ => left(self, target, frames),
        };
        self.without_session(response)
    }

    fn frames(&self, signed_in: &SignedIn) -> Vec<Url> {
        let sid = signed_in.session.id.to_string();
        let clients = signed_in.session.clients.iter();
        let uris = clients.filter_map(|id| {
            let client = signed_in.state.client(id.as_str()).filter(|client| !client.disabled)?;
            let mut url = Url::parse(&client.requests.front_channel_logout_uri).ok()?;
            let issuer = self.auth.settings().public_url.issuer();
            url.query_pairs_mut().append_pair("iss", issuer).append_pair("sid", &sid);
            Some(url)
        });
        uris.take(MAX_FRAMES).collect()
    }

    /// The response after a logout: a redirect to the client if it named a checked address, else a page here. If pages
    /// of clients must be loaded, always a page here, which then continues by itself.
    pub fn signed_out(&self, target: Option<&LoginTarget>, frames: &[Url]) -> Response {
        self.without_session(left(self, target, frames))
    }
}

/// The address to which the relying party returns the user. A ticket that is damaged, expired or of another browser
/// yields none, and never prevents a logout.
fn leave_target(site: &Site, browser: &Browser, ticket: &str) -> Option<LoginTarget> {
    let ticket = site.auth.open(ticket, Some(browser.id.as_str())).ok()?;
    (ticket.step == LoginStep::Logout).then_some(ticket.target)
}

fn next_of(target: Option<&LoginTarget>) -> Option<String> {
    match target {
        Some(LoginTarget::Leave { uri }) => Some(uri.clone()),
        _ => None,
    }
}

/// The response after a logout: a redirect to the relying party if it named a checked address, else a page here.
fn left(site: &Site, target: Option<&LoginTarget>, frames: &[Url]) -> Response {
    let next = next_of(target);
    if let (Some(uri), []) = (&next, frames) {
        return see_other(uri);
    }
    let frames: Vec<String> = frames.iter().map(ToString::to_string).collect();
    signed_out_page(site, &frames, next)
}

/// The page after the logout, which loads these pages of clients.
pub(super) fn signed_out_page(site: &Site, frames: &[String], next: Option<String>) -> Response {
    let view =
        views::SignedOutView { sign_in_url: "/login".into(), frames: frames.to_vec(), next, back: None };
    let page = Html(site.pages.render(&view)).into_response();
    if frames.is_empty() { page } else { framing(page, frames) }
}

/// Allows the page to load the clients' pages, and nothing else beyond the usual.
fn framing(mut page: Response, frames: &[String]) -> Response {
    let urls = frames.iter().filter_map(|frame| Url::parse(frame).ok());
    let mut origins: Vec<String> = urls.map(|url| url.origin().ascii_serialization()).collect();
    origins.sort();
    origins.dedup();
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; \
         form-action 'none'; frame-src {}",
        origins.join(" ")
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    page
}
