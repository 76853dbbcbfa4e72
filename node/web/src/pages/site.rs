//! The common parts of all pages: reading the browser's cookies, building responses, and error pages that tell what to
//! do.

use std::time::Duration;

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use url::Url;

use crate::{
    Pages,
    csrf::{self, BrowserId},
    views,
};
use conclave_auth::{
    Auth, AuthError,
    dispatch::{MissingObject, Next, Visitor},
    redirect_loop::{self, AppRedirect, RedirectLoopVerdict},
    ticket::{AppUrl, LoginStep, LoginTarget, Ticket, TicketError},
    trusted_browser::{self, TrustedBrowser},
    write_key::WriteKey,
};
use conclave_http::{
    Denial, Fault, FormAction, RequestId,
    cookie::{CookieError, CookiePolicy, Cookies},
    fault::wants_page,
};

use super::login;

/// Maximum length of a ticket in a `Location`. With the rest of the head it fits into the 4 KiB that proxies accept by
/// default.
const MAX_REDIRECTED_TICKET_BYTES: usize = 2_560;

/// The cookie of a session.
const SESSION: &str = "session";
/// The cookie of a browser that has signed in before.
const TRUSTED_BROWSER: &str = "device";

/// A browser, as described by its cookies.
pub struct Browser {
    /// The browser's own id, also before a sign-in.
    pub id: BrowserId,
    /// True if the id was made just now and its cookie must be set.
    is_new: bool,
    /// The session cookie's value.
    session: Option<String>,
    /// The accounts that it has signed in to before.
    pub trusted_browser: TrustedBrowser,
    /// The recent redirects to applications, counted and sealed.
    redirect_count: Option<String>,
    /// True for a browser that shows pages; false for programs.
    pub(super) reads_pages: bool,
}

/// The pages and their dependencies.
pub struct Site {
    pub auth: Auth,
    pub pages: Pages,
    session_cookie: CookiePolicy,
    browser_cookie: CookiePolicy,
}

/// `303 See Other`: after a form the browser continues with GET.
pub fn see_other(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Site {
    pub fn new(auth: Auth, pages: Pages) -> Self {
        let settings = auth.settings();
        let secure = settings.public_url.is_secure();
        let session_cookie = match &settings.cookie_domain {
            Some(domain) => CookiePolicy::for_domain(secure, domain),
            None => CookiePolicy::host_only(secure),
        };
        Self { session_cookie, browser_cookie: CookiePolicy::host_only(secure), pages, auth }
    }

    /// The session's cookie among these.
    ///
    /// # Errors
    /// Fails if it is present twice.
    pub fn session_in<'a>(&self, cookies: &Cookies<'a>) -> Result<Option<&'a str>, CookieError> {
        cookies.ours(&self.session_cookie, SESSION)
    }

    /// Reads the browser's cookies.
    ///
    /// # Errors
    /// Fails if they cannot be distinguished from planted ones.
    pub fn browser(&self, headers: &HeaderMap) -> Result<Browser, Fault> {
        let unreadable = |error: &dyn std::fmt::Display| {
            tracing::debug!("a request's cookies cannot be read: {error}");
            let detail = "Your browser sent cookies that cannot be used. Remove the cookies of this site and try again.";
            Fault::new(StatusCode::BAD_REQUEST, "bad_cookie", "Cookies cannot be read", detail)
        };
        let cookies = Cookies::of(headers);
        let session = self.session_in(&cookies).map_err(|e| unreadable(&e))?;
        let id = cookies.ours(&self.browser_cookie, csrf::COOKIE).map_err(|e| unreadable(&e))?;
        let trusted_browser =
            cookies.ours(&self.browser_cookie, TRUSTED_BROWSER).map_err(|e| unreadable(&e))?;
        let redirect_count =
            cookies.ours(&self.browser_cookie, redirect_loop::COOKIE).map_err(|e| unreadable(&e))?;
        let known = id.and_then(BrowserId::parse);
        Ok(Browser {
            is_new: known.is_none(),
            id: known.unwrap_or_else(|| BrowserId::new(&*self.auth.runtime().entropy)),
            session: session.map(str::to_owned),
            trusted_browser: trusted_browser.map(TrustedBrowser::parse).unwrap_or_default(),
            redirect_count: redirect_count.map(str::to_owned),
            reads_pages: wants_page(headers),
        })
    }

    /// The visitor at the browser.
    ///
    /// # Errors
    /// Fails if this node cannot decide yet.
    pub async fn visitor(&self, browser: &Browser) -> Result<Visitor, Fault> {
        let signed_in = self.auth.signed_in(browser.session.as_deref()).await.map_err(|e| fault_of(&e))?;
        Ok(Visitor {
            browser: Some(browser.id.as_str().to_owned()),
            signed_in,
            shown: self.auth.shown_session(browser.session.as_deref()),
            ..Visitor::default()
        })
    }

    /// The key of the write that a request may lead to.
    pub fn write_key(&self, headers: &HeaderMap, parts: &[&[u8]]) -> WriteKey {
        let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
        WriteKey::of_request(&self.auth.deriving_keys().request, key, parts, &*self.auth.runtime().entropy)
    }

    /// The form of a page: its action, its ticket and its CSRF token.
    pub fn form(&self, browser: &Browser, action: &'static str, ticket: &str) -> views::Form {
        let ticket = (!ticket.is_empty())
            .then(|| views::HiddenField { name: "ticket".into(), value: ticket.to_owned() });
        views::Form {
            action: action.into(),
            csrf: csrf::token(&self.auth.cluster_keys().csrf, &browser.id, action),
            hidden: ticket.into_iter().collect(),
        }
    }

    /// Checks that the form came from a page that this site showed to this browser.
    ///
    /// # Errors
    /// The error page.
    pub fn check_csrf(&self, browser: &Browser, action: &str, token: &str) -> Result<(), Fault> {
        let keys = self.auth.cluster_keys();
        let is_valid = || keys.any(|keys| csrf::is_valid(&keys.csrf, &browser.id, action, token));
        if !browser.is_new && is_valid() {
            return Ok(());
        }
        let detail = "This form was not sent from a page of this site in this browser, or your browser does not keep cookies. \
                      Allow cookies for this site, go back, reload the page and try again.";
        Err(Fault::new(StatusCode::FORBIDDEN, "csrf", "The form could not be accepted", detail))
    }

    /// Renders the next step.
    pub fn show(&self, next: Next, browser: &Browser, id: &RequestId) -> Response {
        let response = match next {
            Next::Login { ticket } => match self.auth.seal(&ticket) {
                // The application's request may be long; then the page carries it in its form.
                Ok(text) if text.len() > MAX_REDIRECTED_TICKET_BYTES => {
                    login::page(self, browser, &ticket).unwrap_or_else(|fault| self.fault(&fault, id))
                }
                Ok(text) => see_other(&format!("/login?ticket={text}")),
                Err(error) => self.fault(&fault_of(&error), id),
            },
            Next::Consent { ticket, client, scopes, claims, username } => {
                let view = views::ConsentView {
                    note: ticket.note.as_ref().map(|note| note.why.text()),
                    application: client,
                    username,
                    scopes: lines(&scopes).into_iter().chain(claim_lines(&claims)).collect(),
                    ..Default::default()
                };
                self.consent_page(&ticket, view, browser, id)
            }
            Next::Redirect(location) => see_other(&location),
            Next::Open { url, by, redirect } => self.to_application(&url, &by, redirect, browser, id, false),
            Next::Answer(answer) => self.answer(&answer),
            Next::Forbidden { what, username, decision, target } => {
                self.forbidden(&what, &username, decision.as_deref(), Some(&target), id)
            }
            Next::Gone(what) => self.fault(&fault_of_gone(what), id),
        };
        self.with_browser(browser, response)
    }

    /// Redirects to the application. A browser in a redirect loop gets an explanation instead.
    pub(super) fn to_application(
        &self,
        url: &AppUrl,
        by: &str,
        redirect: AppRedirect,
        browser: &Browser,
        id: &RequestId,
        after_form: bool,
    ) -> Response {
        let away = || if after_form { self.leave(by, browser) } else { see_other(by) };
        match self.auth.count_redirect(browser.redirect_count.as_deref(), url, redirect) {
            RedirectLoopVerdict::Send(None) => away(),
            RedirectLoopVerdict::Send(Some(count)) => {
                with_cookie(away(), self.browser_cookie.set(redirect_loop::COOKIE, &count, None).ok())
            }
            RedirectLoopVerdict::Explain => {
                tracing::warn!(request.id = %id, host = url.host(), "a browser is in a redirect loop between the sign-in and {}", url.host());
                let page = self.fault(&fault_of_redirect_loop(&url.origin()), id);
                with_cookie(page, self.browser_cookie.clear(redirect_loop::COOKIE).ok())
            }
        }
    }

    fn consent_page(
        &self,
        ticket: &Ticket,
        mut view: views::ConsentView,
        browser: &Browser,
        id: &RequestId,
    ) -> Response {
        let text = match self.auth.seal(ticket) {
            Ok(text) => text,
            Err(error) => return self.fault(&fault_of(&error), id),
        };
        view.form = self.form(browser, "/consent", &text);
        if let LoginTarget::Authorize(request) = &ticket.target {
            view.destination = request.origin().unwrap_or_default();
        }
        let mut response = Html(self.pages.render(&view)).into_response();
        allow_way_home(&mut response, &ticket.target);
        response
    }

    /// The page for an account that may not open the application. `decision` is the id under which the operator can
    /// look up the reason; `target` is the target for a sign-in with another account.
    pub fn forbidden(
        &self,
        what: &str,
        username: &str,
        decision: Option<&str>,
        target: Option<&LoginTarget>,
        id: &RequestId,
    ) -> Response {
        let logout = || self.auth.settings().public_url.join("/logout");
        let view = views::ForbiddenView {
            username: username.to_owned(),
            application: what.to_owned(),
            sign_out_url: Some(target.map_or_else(logout, |target| self.switch_url(target))),
            request_id: id.to_string(),
            decision_id: decision.map(str::to_owned),
            ..Default::default()
        };
        let page = (StatusCode::FORBIDDEN, Html(self.pages.render(&view))).into_response();
        denied_by_policy(username, what, decision).on(page)
    }

    /// The address of a sign-in for this target with another account, even if a user is signed in.
    pub fn switch_url(&self, target: &LoginTarget) -> String {
        let ticket = self.auth.ticket(LoginStep::Login { fresh: true }, target.clone(), None);
        let path = match self.auth.seal(&ticket) {
            Ok(text) => format!("/login?ticket={text}"),
            Err(_) => "/logout".to_owned(),
        };
        self.auth.settings().public_url.join(&path)
    }

    /// An error as a page.
    pub fn fault(&self, fault: &Fault, id: &RequestId) -> Response {
        let mut response = (fault.status, Html(self.pages.fault(fault, id))).into_response();
        if fault.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Denial::new(fault.code, &fault.detail).on(response)
    }

    /// Sets the browser's own cookie, if it is new.
    pub fn with_browser(&self, browser: &Browser, response: Response) -> Response {
        if !browser.is_new {
            return response;
        }
        with_cookie(response, self.browser_cookie.set(csrf::COOKIE, browser.id.as_str(), None).ok())
    }

    /// The full name of a cookie of this host for a slice's own use.
    pub fn own_cookie_name(&self, name: &str) -> String {
        self.browser_cookie.name(name)
    }

    /// Sets a cookie of this host.
    pub fn with_own_cookie(
        &self,
        name: &str,
        value: &str,
        life: Option<Duration>,
        response: Response,
    ) -> Response {
        with_cookie(response, self.browser_cookie.set(name, value, life).ok())
    }

    /// Removes a cookie of this host.
    pub fn without_own_cookie(&self, name: &str, response: Response) -> Response {
        with_cookie(response, self.browser_cookie.clear(name).ok())
    }

    /// Sets the session's cookie, if there is a new one.
    pub fn with_session(&self, cookie: Option<&str>, response: Response) -> Response {
        let Some(cookie) = cookie else { return response };
        let life: Duration = self.auth.settings().login.session_ttl;
        with_cookie(response, self.session_cookie.set(SESSION, cookie, Some(life)).ok())
    }

    /// Sets the cookie that holds the accounts of this browser. It outlives the session.
    pub fn with_trusted_browser(&self, trusted_browser: &TrustedBrowser, response: Response) -> Response {
        with_cookie(
            response,
            self.browser_cookie
                .set(TRUSTED_BROWSER, &trusted_browser.text(), Some(trusted_browser::LIFETIME))
                .ok(),
        )
    }

    /// Removes the session's cookie.
    pub fn without_session(&self, response: Response) -> Response {
        with_cookie(response, self.session_cookie.clear(SESSION).ok())
    }
}

/// The denial of a user that a policy does not admit.
pub(super) fn denied_by_policy(username: &str, what: &str, decision: Option<&str>) -> Denial {
    let decided = decision.unwrap_or("-");
    let detail = format!("the user may not open {what}; conclave policy explain {decided} shows the reason");
    Denial::new("forbidden", detail).of(username)
}

/// The consent lines for claims requested by name.
fn claim_lines(claims: &[String]) -> impl Iterator<Item = views::ScopeLine> + '_ {
    claims.iter().map(|claim| views::ScopeLine {
        name: claim.clone(),
        text: format!("see your {}", claim.replace('_', " ")),
    })
}

/// The consent lines for scopes, completing "It will be able to …".
pub(super) fn lines(scopes: &[String]) -> Vec<views::ScopeLine> {
    let text = |scope: &str| match scope {
        "openid" => "know who you are".to_owned(),
        "profile" => "see your name and username".to_owned(),
        "email" => "see your e-mail address".to_owned(),
        "address" => "see your postal address".to_owned(),
        "phone" => "see your telephone number".to_owned(),
        "groups" => "see the groups you are in".to_owned(),
        "offline_access" => "stay connected after you sign out".to_owned(),
        other => format!("use “{other}”"),
    };
    scopes.iter().map(|scope| views::ScopeLine { name: scope.clone(), text: text(scope) }).collect()
}

fn with_cookie(mut response: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// Allows the page's form to redirect to a native app, which browsers must be told in the content security policy. To
/// another site a browser continues from a page of its own, which `form-action` does not affect.
pub(super) fn allow_way_home(response: &mut Response, target: &LoginTarget) {
    let uri = match target {
        LoginTarget::Authorize(request) => request.redirect_uri.clone(),
        LoginTarget::Open { url, .. } => url.origin(),
        LoginTarget::Leave { uri } => uri.clone(),
        LoginTarget::Home | LoginTarget::Device { .. } => return,
    };
    if let Ok(url) = Url::parse(&uri)
        && !matches!(url.scheme(), "http" | "https")
    {
        response.extensions_mut().insert(FormAction::to(&url));
    }
}

/// The error page for a failure of `auth`.
pub fn fault_of(error: &AuthError) -> Fault {
    let unavailable =
        |title, detail: &str| Fault::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail);
    match error {
        AuthError::Unavailable => unavailable(
            "One moment, please",
            "The cluster is choosing a new leader or cannot be reached. Nothing was changed. Try again in a moment.",
        ),
        AuthError::Busy => unavailable(
            "Too many sign-ins at once",
            "This server has more sign-ins waiting than it can take. Nothing was changed. Try again in a moment.",
        ),
        AuthError::Unknown => Fault::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "outcome_unknown",
            "It is not known whether that worked",
            "The server that handled your request did not answer. Reload the page to see whether it worked before trying again.",
        ),
        AuthError::Refused(refusal) => {
            tracing::debug!("a request was refused by the rules: {refusal}");
            let detail =
                "That could not be done as things stand now. Start again from the application you came from.";
            Fault::new(StatusCode::CONFLICT, "refused", "That could not be done", detail)
        }
        AuthError::TooLong => Fault::new(
            StatusCode::BAD_REQUEST,
            "request_too_long",
            "The request is too long",
            "The application asked for more than a browser can carry along a sign-in. Its state, nonce, claims and resources \
             together must be shorter, or the request be pushed beforehand (RFC 9126) with a shorter state.",
        ),
        AuthError::Internal(reason) => {
            tracing::error!("a request failed: {reason}");
            Fault::internal()
        }
    }
}

/// The error page for an invalid ticket.
pub fn fault_of_ticket(error: TicketError) -> Fault {
    let page = |code, title, detail: &str| {
        Fault::new(StatusCode::BAD_REQUEST, code, title, detail).with_way_on("/login", "Sign in")
    };
    match error {
        TicketError::NotOurs => page(
            "bad_ticket",
            "This sign-in link cannot be used",
            "The link is damaged or was not made here. Open the application again, or sign in here.",
        ),
        TicketError::Expired => page(
            "ticket_expired",
            "That took too long",
            "This sign-in was started too long ago. Open the application again, or sign in here.",
        ),
        TicketError::OtherBrowser => page(
            "other_browser",
            "Started in another browser",
            "This sign-in was started in another browser, or your browser does not keep cookies. Open the application again, \
             or sign in here.",
        ),
    }
}

/// The explanation of a redirect loop: the known causes, the most frequent first.
fn fault_of_redirect_loop(origin: &str) -> Fault {
    let detail = format!(
        "You are signed in here, but {origin} does not see it and sends you back. Reload the page there to try once more. If it happens \
         again, tell whoever runs it; one of these is the cause as a rule. The proxy does not pass cookies on, in one direction or the \
         other. It says http where your browser uses https, or the other way round, so that the cookie has another name. /.conclave/ on \
         that host does not lead here. The domain in http.cookie_domain or http.app_domains is not that of the host. Or a clock is wrong, \
         yours or the server's. `conclave doctor forward-auth {origin}` tells which."
    );
    Fault::new(StatusCode::BAD_REQUEST, "sign_in_loop", "You are being sent back and forth", detail)
}

/// Like the error for a pushed request that a browser presents too late.
fn fault_of_pushed(start: Option<String>) -> Fault {
    let detail = "The application's request has expired or was used before. Go back to the application and start again.";
    let fault = Fault::new(StatusCode::BAD_REQUEST, "unknown_request_uri", "The request has expired", detail);
    match start {
        Some(url) => fault.with_way_on(url, "Back to the application"),
        None => fault,
    }
}

pub(super) fn fault_of_gone(what: MissingObject) -> Fault {
    let what = match what {
        MissingObject::Client => "application is not registered here any more",
        MissingObject::Application => "address does not belong to an application that is protected here",
        MissingObject::Pushed { start } => return fault_of_pushed(start),
    };
    let detail = format!("This {what}. Ask its operator, or your administrator.");
    Fault::new(StatusCode::NOT_FOUND, "unknown_application", "Unknown application", detail)
}
