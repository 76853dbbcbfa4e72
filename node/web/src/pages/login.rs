//! `/login`: username and password. Shown for a ticket; without one, the target is the home page.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Query, State, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use conclave_state::Reason;
use serde::Deserialize;

use crate::views;
use conclave_auth::{
    AuthError,
    authorization::error_of,
    client_name::shown_name,
    complete::{CompletedLogin, LoginOrigin},
    dispatch::{MissingObject, Next, Visitor},
    password::{PasswordRejection, Proof},
    ticket::{LoginStep, LoginTarget, Note, NoteReason, Ticket, TicketError},
    upstream::wanted_age,
    write_key::WriteKey,
};
use conclave_http::{ClientInfo, Denial, Fault, RequestId};

use super::{
    onward::MAX_IN_LOCATION,
    site::{Browser, Site, allow_way_home, fault_of, fault_of_ticket, see_other},
};

#[derive(Deserialize)]
pub(super) struct LoginQuery {
    #[serde(default)]
    ticket: String,
}

/// The form, field by field.
#[derive(Deserialize)]
pub(super) struct LoginForm {
    ticket: String,
    csrf: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// Maximum length of an accepted username.
const MAX_USERNAME_BYTES: usize = 256;

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    id: RequestId,
    client: ClientInfo,
    headers: HeaderMap,
    Query(query): Query<LoginQuery>,
) -> Response {
    match shown(&site, &id, &client, &headers, &query.ticket).await {
        Ok(response) => response,
        Err(fault) => site.fault(&fault, &id),
    }
}

async fn shown(
    site: &Site,
    id: &RequestId,
    client: &ClientInfo,
    headers: &HeaderMap,
    text: &str,
) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    let visitor = site.visitor(&browser).await?.from(client.ip);
    let ticket = match text {
        "" => {
            site.auth.ticket(LoginStep::Login { fresh: false }, LoginTarget::Home, Some(browser.id.as_str()))
        }
        text => {
            let opened = site.auth.reopen(text, Some(browser.id.as_str())).map_err(fault_of_ticket)?;
            match site.revived(opened).await? {
                Ok(ticket) => ticket,
                Err(gone) => return Ok(site.show(Next::Gone(gone), &browser, id)),
            }
        }
    };
    let again = match ticket.step {
        LoginStep::Login { fresh } => fresh,
        LoginStep::Outside => false,
        LoginStep::Consent { .. }
        | LoginStep::AppSso { .. }
        | LoginStep::Logout
        | LoginStep::Device { .. }
        | LoginStep::Link { .. } => {
            return Err(fault_of_ticket(TicketError::NotOurs));
        }
    };
    if visitor.signed_in.is_some() && !again {
        // The user signed in meanwhile, in another tab or here: continue from there.
        let write_key = site.write_key(headers, &[b"login", text.as_bytes()]);
        let visitor = Visitor { asked_at_ms: Some(ticket.issued_at_ms), ..visitor };
        let next = site.auth.next(&ticket.target, &visitor, &write_key).await.map_err(|e| fault_of(&e))?;
        return Ok(site.show(next, &browser, id));
    }
    let mut bound =
        site.auth.ticket(LoginStep::Login { fresh: again }, ticket.target, Some(browser.id.as_str()));
    bound.note = ticket.note;
    Ok(site.with_browser(&browser, page(site, &browser, &bound)?))
}

impl Site {
    /// The ticket for a fresh form, from an opened ticket of any age and browser whose target is still valid. If the
    /// old ticket was not in order, the new one holds the reason as a note.
    async fn revived(
        &self,
        (mut ticket, trouble): (Ticket, Option<TicketError>),
    ) -> Result<Result<Ticket, MissingObject>, Fault> {
        let Some(trouble) = trouble else { return Ok(Ok(ticket)) };
        if let Some(gone) = self.auth.still_stands(&ticket.target).await.map_err(|e| fault_of(&e))? {
            return Ok(Err(gone));
        }
        let is_plain = matches!(ticket.target, LoginTarget::Home) && ticket.note.is_none();
        if !is_plain && ticket.step != LoginStep::Outside {
            let username = ticket.note.take().map(|note| note.username).unwrap_or_default();
            ticket.note = Some(Note { why: trouble.why(), username });
        }
        Ok(Ok(ticket))
    }
}

pub(super) fn page(site: &Site, browser: &Browser, ticket: &Ticket) -> Result<Response, Fault> {
    let username = ticket.note.as_ref().map(|note| note.username.clone()).unwrap_or_default();
    let hint = match &ticket.target {
        LoginTarget::Authorize(request) if username.is_empty() => request.login_hint.clone(),
        _ => username,
    };
    let text = site.auth.seal(ticket).map_err(|e| fault_of(&e))?;
    let view = views::LoginView {
        form: site.form(browser, "/login", &text),
        application: destination(site, &ticket.target),
        username: hint,
        error: ticket.note.as_ref().map(|note| note.why.text()),
        providers: providers(site, ticket, &text),
        back: None,
    };
    let mut response = Html(site.pages.render(&view)).into_response();
    allow_way_home(&mut response, &ticket.target);
    Ok(response)
}

/// The other ways to sign in. Plain OAuth 2.0 cannot state the time of authentication, so it is not offered when a
/// recent authentication is required.
fn providers(site: &Site, ticket: &Ticket, text: &str) -> Vec<views::ProviderLink> {
    let must_be_recent = wanted_age(ticket).is_some();
    let state = site.auth.cluster().view();
    let offered = state.upstreams().filter(|u| !u.disabled && (u.is_openid() || !must_be_recent));
    let shown = offered.map(|upstream| views::ProviderLink {
        name: upstream.name.to_string(),
        label: upstream.display_name.clone(),
        url: format!("/upstream/{}/start?ticket={text}", upstream.name),
    });
    shown.collect()
}

/// The name of the application that the user is about to open.
fn destination(site: &Site, target: &LoginTarget) -> Option<String> {
    let state = site.auth.cluster().view();
    match target {
        LoginTarget::Authorize(request) => state.client(&request.client_id).map(|client| shown_name(client)),
        LoginTarget::Open { url, .. } => state.application_by_host(&url.host()).map(|a| a.name.clone()),
        LoginTarget::Leave { uri } => {
            let host = url::Url::parse(uri).ok()?.host_str()?.to_owned();
            state.application_by_host(&host).map(|a| a.name.clone())
        }
        LoginTarget::Home | LoginTarget::Device { .. } => None,
    }
}

pub(super) async fn submit(
    State(site): State<Arc<Site>>,
    id: RequestId,
    client: ClientInfo,
    headers: HeaderMap,
    form: Result<Form<LoginForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        let detail = "The sign-in form arrived incomplete. Go back, reload the page and try again.";
        let fault = Fault::new(StatusCode::BAD_REQUEST, "bad_form", "The form is incomplete", detail);
        return site.formed(&headers, Err(fault.with_way_on("/login", "Sign in")), &id);
    };
    let result = submitted(&site, &id, &client, &headers, form).await;
    site.formed(&headers, result, &id)
}

async fn submitted(
    site: &Site,
    id: &RequestId,
    client: &ClientInfo,
    headers: &HeaderMap,
    form: LoginForm,
) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    let checked = site.check_csrf(&browser, "/login", &form.csrf);
    let (mut ticket, mut trouble) =
        site.auth.reopen(&form.ticket, Some(browser.id.as_str())).map_err(fault_of_ticket)?;
    if !browser.reads_pages {
        checked.as_ref().map_err(Clone::clone)?;
    }
    let LoginStep::Login { fresh } = ticket.step else { return Err(fault_of_ticket(TicketError::NotOurs)) };
    if trouble == Some(TicketError::Expired) && ticket.target == LoginTarget::Home && checked.is_ok() {
        // Only this site waits for the sign-in, so nothing can have expired.
        ticket = site.auth.ticket(LoginStep::Login { fresh }, LoginTarget::Home, Some(browser.id.as_str()));
        trouble = None;
    }
    let visitor = site.visitor(&browser).await?.from(client.ip);
    let username =
        form.username.get(..form.username.len().min(MAX_USERNAME_BYTES)).unwrap_or_default().to_owned();
    let write_key = site.write_key(headers, &[b"login", form.ticket.as_bytes(), username.as_bytes()]);
    let mut attempt = Attempt { site, id, browser, ticket, typed: username.clone(), username, write_key };
    // A form that this site did not show is not processed; a fresh one is shown.
    let why = checked.err().map(|_| NoteReason::NotFromHere).or_else(|| trouble.map(TicketError::why));
    if let Some(why) = why {
        return match site.auth.still_stands(&attempt.ticket.target).await.map_err(|e| fault_of(&e))? {
            Some(gone) => Ok(site.answer_form(Next::Gone(gone), &attempt.browser, id)),
            None => attempt.form_again(why, StatusCode::BAD_REQUEST),
        };
    }
    let trusted_browser = &attempt.browser.trusted_browser;
    let proof =
        match site.auth.prove_password(&attempt.username, form.password, client.ip, trusted_browser).await {
            Ok(proof) => proof,
            Err(unproved) => return attempt.refused(unproved),
        };
    attempt.write_key = attempt.named_by(&proof);
    let origin = origin_of(headers, client);
    match site.auth.complete(&attempt.ticket, &proof, &attempt.write_key, visitor.shown, origin).await {
        Ok(completed) => attempt.go_on(completed).await,
        Err(AuthError::Refused(refusal)) => {
            // A form whose ticket was spent for another account must not continue with that account's session.
            let own = visitor.signed_in.filter(|signed_in| signed_in.user.id == proof.user.id);
            attempt.again(Visitor { signed_in: own, ..visitor }, &refusal).await
        }
        Err(error) => Err(fault_of(&error)),
    }
}

/// The user agent and address of a browser.
pub(super) fn origin_of(headers: &HeaderMap, client: &ClientInfo) -> LoginOrigin {
    let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    LoginOrigin { user_agent: user_agent.unwrap_or_default().to_owned(), address: client.ip.to_string() }
}

/// A submitted form, with everything needed to answer it.
pub(super) struct Attempt<'a> {
    pub site: &'a Site,
    pub id: &'a RequestId,
    pub browser: Browser,
    pub ticket: Ticket,
    /// The name of the user, as far as this attempt knows it.
    pub username: String,
    /// The text that was typed, for a fresh form.
    pub typed: String,
    pub write_key: WriteKey,
}

impl Attempt<'_> {
    /// The request id of the write after a proven password. A second click on the same form, by the same user in the
    /// same browser, is the same write on any node, and gets the first reply.
    fn named_by(&self, proof: &Proof) -> WriteKey {
        let key = &self.site.auth.deriving_keys().request;
        let (browser, version) =
            (self.browser.id.as_str().as_bytes(), proof.credential_version.to_be_bytes());
        let user = proof.user.id;
        WriteKey::of_step(key, &[b"login", &self.ticket.id, browser, user.bytes(), &version])
    }

    /// The response after the sign-in: to the client with the code, or to the next page.
    pub(super) async fn go_on(self, completed: CompletedLogin) -> Result<Response, Fault> {
        let trusted_browser = self.site.auth.trusted_browser_after(
            &self.browser.trusted_browser,
            &completed.signed_in,
            &self.write_key,
        );
        let response = match (&completed.code, &self.ticket.target) {
            (Some(code), LoginTarget::Authorize(request)) => {
                let answer = self.site.auth.way_back(request).with_code(code);
                self.site.answer_form(Next::Answer(answer), &self.browser, self.id)
            }
            _ => {
                let browser = Some(self.browser.id.as_str().to_owned());
                let visitor = Visitor {
                    browser,
                    // This request has the address from which the session was opened.
                    address: completed.signed_in.session.address.parse().ok(),
                    signed_in: Some(completed.signed_in),
                    shown: None,
                    just_now: true,
                    ..Visitor::default()
                };
                self.next(&visitor).await?
            }
        };
        Ok(self.site.with_trusted_browser(
            &trusted_browser,
            self.site.with_session(completed.cookie.as_deref(), response),
        ))
    }

    async fn next(&self, visitor: &Visitor) -> Result<Response, Fault> {
        let visitor = Visitor { asked_at_ms: Some(self.ticket.issued_at_ms), ..visitor.clone() };
        let next = self.site.auth.next(&self.ticket.target, &visitor, &self.write_key).await;
        Ok(self.site.answer_form(next.map_err(|e| fault_of(&e))?, &self.browser, self.id))
    }

    /// The rules refused to complete the login, usually because it was completed before (a second click, another tab).
    pub(super) async fn again(
        self,
        visitor: Visitor,
        refusal: &conclave_state::Refusal,
    ) -> Result<Response, Fault> {
        match refusal.reason {
            Reason::TicketSpent if visitor.signed_in.is_some() => self.next(&visitor).await,
            Reason::TicketSpent => self.form_if_of_use(NoteReason::Spent).await,
            Reason::TicketExpired => self.form_if_of_use(NoteReason::Expired).await,
            Reason::AccessDenied => {
                let what = destination(self.site, &self.ticket.target).unwrap_or_default();
                let target = Box::new(self.ticket.target.clone());
                let next = Next::Forbidden { what, username: self.username.clone(), decision: None, target };
                Ok(self.site.answer_form(next, &self.browser, self.id))
            }
            Reason::CredentialChanged | Reason::UserDisabled | Reason::UserUnknown => {
                self.refused(PasswordRejection::Wrong)
            }
            _ => self.told_to_client(refusal).await,
        }
    }

    /// A fresh form for a ticket that the rules refused, unless its target is not valid any more: with an expired
    /// pushed request every further form would be refused as well.
    async fn form_if_of_use(&self, why: NoteReason) -> Result<Response, Fault> {
        match self.site.auth.still_stands(&self.ticket.target).await.map_err(|e| fault_of(&e))? {
            Some(gone) => Ok(self.site.answer_form(Next::Gone(gone), &self.browser, self.id)),
            None => self.form_again(why, StatusCode::CONFLICT),
        }
    }

    /// Sends a refusal that concerns the client's request, not the user, to the client, if its redirect URI is still
    /// valid.
    async fn told_to_client(&self, refusal: &conclave_state::Refusal) -> Result<Response, Fault> {
        let LoginTarget::Authorize(request) = &self.ticket.target else {
            return Err(fault_of(&AuthError::Refused(refusal.clone())));
        };
        let gone = self.site.auth.still_stands(&self.ticket.target).await.map_err(|e| fault_of(&e))?;
        let next = match gone {
            Some(gone) => Next::Gone(gone),
            None => {
                let way_back = self.site.auth.way_back(request);
                Next::Answer(way_back.with_error(error_of(refusal), &refusal.detail))
            }
        };
        Ok(self.site.answer_form(next, &self.browser, self.id))
    }

    /// Shows the form again with the reason. The reason does not reveal if the user exists.
    fn refused(&self, unproved: PasswordRejection) -> Result<Response, Fault> {
        let (status, why) = match unproved {
            PasswordRejection::Wrong => (StatusCode::UNAUTHORIZED, NoteReason::Wrong),
            PasswordRejection::Disabled => (StatusCode::FORBIDDEN, NoteReason::Disabled),
            PasswordRejection::TooMany { retry_in } => {
                (StatusCode::TOO_MANY_REQUESTS, NoteReason::TooMany { seconds: retry_in.as_secs().max(1) })
            }
            PasswordRejection::Failed(error) => return Err(fault_of(&error)),
        };
        self.form_again(why, status)
    }

    /// The denial log line of a refused sign-in. It does not reveal if the user exists: logs are copied to more places
    /// than databases.
    fn denied(&self, why: NoteReason) -> Denial {
        let (reason, detail) = match why {
            NoteReason::Wrong => ("bad_credentials", "the username or the password is wrong"),
            NoteReason::Disabled => {
                ("account_disabled", "the account is disabled; conclave user enable enables it")
            }
            NoteReason::TooMany { .. } => (
                "too_many_attempts",
                "too many attempts at this account from here; the limit ends by itself, or with a new password",
            ),
            NoteReason::NotFromHere => {
                ("csrf", "the form was not shown to this browser; it may not keep cookies")
            }
            _ => (
                "ticket",
                "the sign-in was too old, spent or begun in another browser; a fresh form was shown",
            ),
        };
        Denial::new(reason, detail).of(&self.typed)
    }

    /// A fresh form for the same target, with the typed username and one line with the reason. A browser gets it at its
    /// own address, a program with this status. A browser also gets it with this status if the ticket is too long for
    /// an address.
    fn form_again(&self, why: NoteReason, status: StatusCode) -> Result<Response, Fault> {
        let (browser, target) = (Some(self.browser.id.as_str()), self.ticket.target.clone());
        let mut ticket = self.site.auth.ticket(self.ticket.step, target, browser);
        ticket.note = Some(Note { why, username: self.typed.clone() });
        // A ticket that another account spent needs a new sign-in, although that account's session may be live.
        if why == NoteReason::Spent {
            ticket.step = LoginStep::Login { fresh: true };
        }
        if self.browser.reads_pages {
            let text = self.site.auth.seal(&ticket).map_err(|e| fault_of(&e))?;
            if text.len() <= MAX_IN_LOCATION {
                let response = see_other(&format!("/login?ticket={text}"));
                return Ok(self.denied(why).on(self.site.with_browser(&self.browser, response)));
            }
        }
        let page = self.site.with_browser(&self.browser, page(self.site, &self.browser, &ticket)?);
        let mut response = self.denied(why).on(page);
        *response.status_mut() = status;
        if let NoteReason::TooMany { seconds } = why {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        Ok(response)
    }
}
