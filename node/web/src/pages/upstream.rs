//! `/upstream/…`: sign-in at another provider, its callback, linking and unlinking. Every failure has a page with its
//! own request id.
//!
//! The sign-in starts from links, not forms. Each link carries a ticket that is sealed, valid for minutes and bound to
//! this browser, so another site cannot start a sign-in.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Path, Query, State, rejection::FormRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use conclave_proto::command::v1::{UnlinkIdentity, command::Body};
use conclave_state::{Reason, Refusal, ids::SessionId};
use serde::Deserialize;

use conclave_auth::{
    AuthError,
    complete::millis,
    dispatch::Visitor,
    throttle::Admission,
    ticket::{LoginStep, LoginTarget, TicketError},
    upstream::{Callback, FRESH, UpstreamError, UpstreamIdentity, UpstreamLogin},
};
use conclave_http::{ClientInfo, Fault, RequestId};

use super::{
    login::{Attempt, origin_of},
    site::{Browser, Site, fault_of, fault_of_ticket, see_other},
};

pub(super) const UNLINK: &str = "/upstream/unlink";

#[derive(Deserialize)]
pub(super) struct UpstreamQuery {
    #[serde(default)]
    ticket: String,
}

#[derive(Deserialize)]
pub(super) struct UnlinkForm {
    csrf: String,
    upstream: String,
}

/// Everything needed to answer an upstream provider's callback.
pub struct CallbackContext<'a> {
    pub site: &'a Site,
    pub id: &'a RequestId,
    pub headers: &'a HeaderMap,
    pub client: &'a ClientInfo,
    /// The provider's name.
    pub name: &'a str,
    pub browser: Browser,
}

pub(super) async fn start(
    State(site): State<Arc<Site>>,
    id: RequestId,
    headers: HeaderMap,
    Path(name): Path<String>,
    Query(query): Query<UpstreamQuery>,
) -> Response {
    let started = async {
        let browser = site.browser(&headers)?;
        let opened = site.auth.reopen(&query.ticket, Some(browser.id.as_str())).map_err(fault_of_ticket)?;
        let (ticket, None) = opened else {
            // The sign-in page handles a ticket that is not in order.
            return Ok(format!("/login?ticket={}", query.ticket));
        };
        if !matches!(ticket.step, LoginStep::Login { .. }) || ticket.browser.is_none() {
            return Err(fault_of_ticket(TicketError::NotOurs));
        }
        site.auth.upstream_authorization_url(&name, ticket).await.map_err(|error| fault(&error, &name))
    };
    match started.await {
        // The state that the provider returns is a sealed ticket, as long as the client's request.
        Ok(location) => site.go_on_to(&location),
        Err(fault) => site.fault(&fault, &id),
    }
}

pub(super) async fn link(
    State(site): State<Arc<Site>>,
    id: RequestId,
    headers: HeaderMap,
    Path(name): Path<String>,
    Query(query): Query<UpstreamQuery>,
) -> Response {
    match linking(&site, &id, &headers, &name, &query.ticket).await {
        Ok(response) => response,
        Err(fault) => site.fault(&fault, &id),
    }
}

async fn linking(
    site: &Site,
    id: &RequestId,
    headers: &HeaderMap,
    name: &str,
    text: &str,
) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    let opened = site.auth.reopen(text, Some(browser.id.as_str())).map_err(fault_of_ticket)?;
    // The home page has a new ticket.
    let (ticket, None) = opened else { return Ok(see_other("/")) };
    let visitor = site.visitor(&browser).await?;
    let Some(signed_in) = &visitor.signed_in else { return Ok(see_other("/login")) };
    if ticket.step != (LoginStep::Link { session: *signed_in.session.id.bytes() }) {
        return Err(fault_of_ticket(TicketError::OtherBrowser));
    }
    if !site.auth.is_fresh(signed_in) {
        return prove_again(site, id, &browser);
    }
    let location =
        site.auth.upstream_authorization_url(name, ticket).await.map_err(|error| fault(&error, name))?;
    Ok(site.go_on_to(&location))
}

/// Shows the login page even to a signed-in user; then returns to the home page.
fn prove_again(site: &Site, id: &RequestId, browser: &Browser) -> Result<Response, Fault> {
    let ticket =
        site.auth.ticket(LoginStep::Login { fresh: true }, LoginTarget::Home, Some(browser.id.as_str()));
    Ok(site.show(conclave_auth::dispatch::Next::Login { ticket }, browser, id))
}

pub(super) async fn callback(
    State(site): State<Arc<Site>>,
    id: RequestId,
    client: ClientInfo,
    headers: HeaderMap,
    Path(name): Path<String>,
    Query(callback): Query<Callback>,
) -> Response {
    let browser = match site.browser(&headers) {
        Ok(browser) => browser,
        Err(fault) => return site.fault(&fault, &id),
    };
    let context =
        CallbackContext { site: &site, id: &id, headers: &headers, client: &client, name: &name, browser };
    match context.handle_callback(&callback).await {
        Ok(response) => response,
        Err(fault) => site.fault(&fault, &id),
    }
}

impl CallbackContext<'_> {
    async fn handle_callback(self, callback: &Callback) -> Result<Response, Fault> {
        let auth = &self.site.auth;
        let login = auth.open_upstream_login(&callback.state, Some(self.browser.id.as_str()));
        let login = login.map_err(fault_of_ticket)?;
        // The next step costs a request to the provider, so the number of attempts per address is limited.
        if let Admission::Refused { .. } = auth.upstream_attempts().address(self.client.ip) {
            return Err(too_many());
        }
        let identity = match auth.exchange_upstream_code(self.name, &login, callback).await {
            Ok(identity) => identity,
            Err(error) => return Err(fault(&error, self.name)),
        };
        self.complete(login, &identity, callback.state.as_bytes()).await
    }

    /// Completes a verified sign-in at the provider: signs the user in, or links the identity. `once` is a value unique
    /// to this callback.
    ///
    /// # Errors
    /// The error page.
    pub async fn complete(
        self,
        login: UpstreamLogin,
        identity: &UpstreamIdentity,
        once: &[u8],
    ) -> Result<Response, Fault> {
        let visitor = self.site.visitor(&self.browser).await?.from(self.client.ip);
        match login.ticket.step {
            LoginStep::Link { session } => {
                let done = self.link(&login, identity, visitor, session, once).await;
                self.site.auth.upstream_attempts().address_succeeded(self.client.ip);
                done
            }
            _ => self.sign_in(login, identity, visitor, once).await,
        }
    }

    async fn sign_in(
        self,
        login: UpstreamLogin,
        identity: &UpstreamIdentity,
        visitor: Visitor,
        once: &[u8],
    ) -> Result<Response, Fault> {
        let auth = &self.site.auth;
        let write_key = self.site.write_key(self.headers, &[b"upstream", once]);
        let origin = origin_of(self.headers, self.client);
        let completed =
            auth.complete_upstream_login(&login, identity, &write_key, visitor.shown, origin).await;
        let (site, id, browser) = (self.site, self.id, self.browser);
        let attempt = Attempt {
            site,
            id,
            browser,
            ticket: login.ticket,
            username: identity.label().into(),
            typed: String::new(),
            write_key,
        };
        match completed {
            Ok(completed) => {
                auth.upstream_attempts().address_succeeded(self.client.ip);
                attempt.go_on(completed).await
            }
            Err(UpstreamError::Failed(AuthError::Refused(refusal))) if is_of_login(refusal.reason) => {
                attempt.again(visitor, &refusal).await
            }
            Err(error) => Err(fault(&error, self.name)),
        }
    }

    async fn link(
        &self,
        login: &UpstreamLogin,
        identity: &UpstreamIdentity,
        visitor: Visitor,
        session: [u8; 16],
        once: &[u8],
    ) -> Result<Response, Fault> {
        let signed_in = visitor.signed_in.filter(|signed_in| *signed_in.session.id.bytes() == session);
        let Some(signed_in) = signed_in else { return Err(fault_of_ticket(TicketError::OtherBrowser)) };
        let write_key = self.site.write_key(self.headers, &[b"link", once]);
        let linked = self.site.auth.link_upstream(login, identity, &signed_in, &write_key).await;
        linked.map_err(|error| fault(&error, self.name))?;
        Ok(see_other("/"))
    }
}

/// True for refusals that do not depend on the user.
fn is_of_login(reason: Reason) -> bool {
    matches!(reason, Reason::TicketSpent | Reason::TicketExpired | Reason::AccessDenied)
}

pub(super) async fn unlink(
    State(site): State<Arc<Site>>,
    id: RequestId,
    headers: HeaderMap,
    form: Result<Form<UnlinkForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        let detail = "The form arrived incomplete. Go back, reload the page and try again.";
        let fault = Fault::new(StatusCode::BAD_REQUEST, "bad_form", "The form is incomplete", detail);
        return site.formed(&headers, Err(fault), &id);
    };
    let result = unlinked(&site, &id, &headers, &form).await;
    site.formed(&headers, result, &id)
}

async fn unlinked(
    site: &Site,
    id: &RequestId,
    headers: &HeaderMap,
    form: &UnlinkForm,
) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    site.check_csrf(&browser, UNLINK, &form.csrf)?;
    let Some(signed_in) = site.visitor(&browser).await?.signed_in else { return Ok(see_other("/login")) };
    if !site.auth.is_fresh(&signed_in) {
        return prove_again(site, id, &browser);
    }
    let session = SessionId::to_vec(signed_in.session.id);
    let write_key = site.write_key(headers, &[b"unlink", &session, form.upstream.as_bytes()]);
    let command = UnlinkIdentity {
        upstream: form.upstream.clone(),
        user_id: signed_in.user.id.to_vec(),
        session_id: session,
        max_age_ms: millis(FRESH),
    };
    let written = site.auth.cluster().propose(write_key.request(), Body::UnlinkIdentity(command)).await;
    written.map_err(|error| fault(&AuthError::from(error).into(), &form.upstream))?;
    Ok(see_other("/"))
}

fn too_many() -> Fault {
    let detail = "There were too many sign-ins from your address. Try again later.";
    Fault::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", "Too many attempts", detail)
}

/// The error page for a failure. The operator's log has the reason; the page tells what the user can do.
fn fault(error: &UpstreamError, name: &str) -> Fault {
    tracing::info!({ upstream.name = %name.escape_debug() }, "a sign-in at a provider failed: {error}");
    let page =
        |status, code, title: &'static str, detail: &'static str| Fault::new(status, code, title, detail);
    match error {
        UpstreamError::Ticket(error) => fault_of_ticket(*error),
        UpstreamError::Failed(AuthError::Refused(refusal)) => fault_of_refusal(refusal),
        UpstreamError::Failed(error) => fault_of(error),
        UpstreamError::Unknown => page(
            StatusCode::NOT_FOUND,
            "upstream_unknown",
            "This way to sign in is not available",
            "The provider was removed or turned off here. Go back and sign in another way, or ask your administrator.",
        ),
        UpstreamError::Unreachable(_) => page(
            StatusCode::BAD_GATEWAY,
            "upstream_unreachable",
            "The provider does not answer",
            "The provider that you wanted to sign in at cannot be reached from here. Try again in a moment, or sign in another way.",
        ),
        UpstreamError::Answer(_) => page(
            StatusCode::BAD_GATEWAY,
            "upstream_answer",
            "The provider's answer cannot be used",
            "The provider sent a response that cannot be used. Try again; if it happens again, tell your administrator the request id below.",
        ),
        UpstreamError::Token(_) => page(
            StatusCode::BAD_GATEWAY,
            "upstream_token",
            "The provider's answer cannot be trusted",
            "The provider's statement about you could not be verified, so you were not signed in. Start again; if it happens again, tell your \
             administrator the request id below.",
        ),
        UpstreamError::Denied => page(
            StatusCode::FORBIDDEN,
            "upstream_denied",
            "Sign-in was cancelled",
            "You or the provider ended the sign-in there. Go back and try again, or sign in another way.",
        ),
        UpstreamError::MixUp => page(
            StatusCode::BAD_REQUEST,
            "upstream_mix_up",
            "The answer came from another provider",
            "You were sent here by another provider than the one you went to, so you were not signed in. Start again from the application.",
        ),
        UpstreamError::NotFresh => page(
            StatusCode::FORBIDDEN,
            "upstream_not_fresh",
            "You must sign in again",
            "The application requires a new sign-in, and the provider does not confirm one. Go back and sign in another way.",
        ),
        UpstreamError::NotLinked => stranger(),
        UpstreamError::NotListed => page(
            StatusCode::FORBIDDEN,
            "not_allowed",
            "This account may not sign in here",
            "Your DID and your handle are not on the list of users who may sign in. Ask your administrator to list one of them, or sign in another \
             way and link this account on your home page.",
        ),
        UpstreamError::NoSignUp => page(
            StatusCode::FORBIDDEN,
            "signup_not_allowed",
            "No account here belongs to yours",
            "New users are not admitted this way. Sign in another way and link this account on your home page, or ask your administrator for an \
             account.",
        ),
    }
}

fn stranger() -> Fault {
    Fault::new(
        StatusCode::FORBIDDEN,
        "upstream_stranger",
        "No account here belongs to this identity",
        "If you have an account here, sign in to it another way first, and link this provider on your home page. Otherwise ask your \
         administrator for an account.",
    )
}

fn fault_of_refusal(refusal: &Refusal) -> Fault {
    let page =
        |status, code, title: &'static str, detail: &'static str| Fault::new(status, code, title, detail);
    match refusal.reason {
        Reason::UserDisabled => page(
            StatusCode::FORBIDDEN,
            "account_disabled",
            "This account is disabled",
            "Ask your administrator.",
        ),
        Reason::NotAdmitted | Reason::IdentityUnknown => stranger(),
        Reason::HandleUnconfirmed => page(
            StatusCode::FORBIDDEN,
            "handle_unconfirmed",
            "Your handle is not confirmed any more",
            "Your access here depends on a handle that does not lead to your account at present. Set it up again and sign in, or ask your \
             administrator to list your DID.",
        ),
        Reason::UpstreamUnknown | Reason::UpstreamDisabled => page(
            StatusCode::NOT_FOUND,
            "upstream_unknown",
            "This way to sign in is not available",
            "The provider was removed or turned off here. Go back and sign in another way, or ask your administrator.",
        ),
        Reason::IdentityTaken => page(
            StatusCode::CONFLICT,
            "upstream_identity_taken",
            "This identity belongs to another account",
            "It is linked to another account here. Sign in to that account and unlink it there first.",
        ),
        Reason::AlreadyExists => page(
            StatusCode::CONFLICT,
            "upstream_already_linked",
            "Your account has an identity there",
            "Unlink the identity that your account has at this provider before you link another.",
        ),
        Reason::SessionTooOld | Reason::SessionUnknown => page(
            StatusCode::FORBIDDEN,
            "upstream_session_too_old",
            "You must sign in again",
            "You signed in too long ago to change how you sign in. Sign in again, then try once more.",
        ),
        Reason::LastSignIn => page(
            StatusCode::CONFLICT,
            "upstream_last",
            "This is your only way to sign in",
            "Link another provider or have a password set before you unlink this one.",
        ),
        Reason::TicketSpent | Reason::TicketExpired => page(
            StatusCode::CONFLICT,
            "ticket_spent",
            "This sign-in was completed before",
            "The provider sent you here a second time. Start again from the application.",
        ),
        _ => fault_of(&AuthError::Refused(refusal.clone())),
    }
}
