//! Decides the next step of a login, in one place: password, consent or the response. All steps return here.

use std::net::IpAddr;

use conclave_state::Reason;

use crate::authorization::error_of;

use super::{
    Auth, AuthError,
    authorization::{AuthorizationError, AuthorizationRequest, ClientResponse},
    client_name::shown_name,
    complete::consent_stands,
    policy::{AppRequest, Circumstances},
    redirect_loop::AppRedirect,
    session::{ShownSession, SignedIn},
    ticket::{AppUrl, LoginStep, LoginTarget, Note, Ticket},
    write_key::WriteKey,
};

/// The page to show to the browser, or the address to redirect it to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The login page for this ticket.
    Login { ticket: Ticket },
    /// The consent page for this ticket.
    Consent { ticket: Ticket, client: String, scopes: Vec<String>, claims: Vec<String>, username: String },
    /// A redirect to a checked address.
    Redirect(String),
    /// A redirect to this page of an application, through the location `by`.
    Open { url: AppUrl, by: String, redirect: AppRedirect },
    /// A response to the client.
    Answer(ClientResponse),
    /// The user may not open it; a page explains this.
    Forbidden { what: String, username: String, decision: Option<String>, target: Box<LoginTarget> },
    /// The requested client, application or request no longer exists.
    Gone(MissingObject),
}

/// The thing that no longer exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissingObject {
    Client,
    Application,
    /// A pushed request that has expired or already became a code. No sign-in and no consent can turn it into another
    /// code. `start` is the address at which the user can begin again, if it is known.
    Pushed {
        start: Option<String>,
    },
}

/// The facts known about the visitor at this point.
#[derive(Clone, Debug, Default)]
pub struct Visitor {
    /// The browser's own cookie.
    pub browser: Option<String>,
    pub signed_in: Option<SignedIn>,
    /// The session that the browser's cookie names, live or not.
    pub shown: Option<ShownSession>,
    /// The visitor's address. `None` if it is unknown: a policy that depends on it then denies.
    pub address: Option<IpAddr>,
    /// True if the user authenticated in this very attempt.
    pub just_now: bool,
    /// The consent ticket with which the user agreed.
    pub consented: Option<Ticket>,
    /// The start of this attempt, milliseconds since 1970; `None` if it is unknown.
    pub asked_at_ms: Option<u64>,
    /// The reason why a page is shown again.
    pub note: Option<Note>,
}

impl Visitor {
    /// The visitor with this address.
    #[must_use]
    pub fn from(self, address: IpAddr) -> Self {
        Self { address: Some(address), ..self }
    }
}

impl Auth {
    /// Decides the next step.
    ///
    /// # Errors
    /// [`AuthError`] when the cluster cannot accept the write that the decision needs.
    #[tracing::instrument(name = "auth.next", skip_all)]
    pub async fn next(
        &self,
        target: &LoginTarget,
        visitor: &Visitor,
        write_key: &WriteKey,
    ) -> Result<Next, AuthError> {
        match target {
            LoginTarget::Authorize(request) => self.next_for_client(request, visitor, write_key).await,
            LoginTarget::Open { url, binding } => self.next_for_application(url, *binding, target, visitor),
            // The link to it may be old and from any browser, so the address is checked when a browser is sent there.
            LoginTarget::Leave { uri } => Ok(match self.still_stands(target).await? {
                Some(gone) => Next::Gone(gone),
                None => Next::Redirect(uri.clone()),
            }),
            LoginTarget::Device { user_code } => Ok(match &visitor.signed_in {
                Some(_) => Next::Redirect(device_page(user_code)),
                None => self.login(target, visitor, false),
            }),
            LoginTarget::Home => Ok(match &visitor.signed_in {
                Some(_) => Next::Redirect("/".into()),
                None => self.login(target, visitor, false),
            }),
        }
    }

    async fn next_for_client(
        &self,
        request: &AuthorizationRequest,
        visitor: &Visitor,
        write_key: &WriteKey,
    ) -> Result<Next, AuthError> {
        let target = || LoginTarget::Authorize(Box::new(request.clone()));
        let back = |error, why: &str| Next::Answer(self.way_back(request).with_error(error, why));
        let Some(signed_in) =
            visitor.signed_in.as_ref().filter(|s| self.is_recent_enough(request, s, visitor))
        else {
            if request.prompt.none {
                return Ok(back(AuthorizationError::LoginRequired, "no user is signed in"));
            }
            return Ok(self.login(&target(), visitor, visitor.signed_in.is_some()));
        };
        let Some(client) = signed_in.state.client(&request.client_id).filter(|client| !client.disabled)
        else {
            return Ok(Next::Gone(MissingObject::Client));
        };
        if !self.is_wanted(request, client, &signed_in.user) {
            return Ok(back(
                AuthorizationError::LoginRequired,
                "the signed-in user is not the requested one",
            ));
        }
        if !request.is_satisfied_by(&signed_in.session.amr) {
            if visitor.just_now {
                let why = "the authentication does not satisfy any requested essential acr value";
                return Ok(back(AuthorizationError::UnmetAuthenticationRequirements, why));
            }
            if request.prompt.none {
                return Ok(back(
                    AuthorizationError::LoginRequired,
                    "the user must sign in with another method",
                ));
            }
            return Ok(self.login(&target(), visitor, true));
        }
        let around = Circumstances::of_session(&signed_in.session, visitor.address);
        let judgement = self.judge_client(&signed_in.state, client, &signed_in.user, &around);
        if !judgement.allowed {
            if request.prompt.none {
                return Ok(back(
                    AuthorizationError::AccessDenied,
                    "this account may not open the application",
                ));
            }
            return Ok(forbidden(&shown_name(client), signed_in, judgement.decision, target()));
        }
        let stands = consent_stands(request, client, &signed_in.state, &signed_in.user);
        let consent_page = || {
            let mut ticket = self.ticket(consent_of(signed_in), target(), visitor.browser.as_deref());
            ticket.note.clone_from(&visitor.note);
            let (client, username) = (shown_name(client), signed_in.user.username.to_string());
            let scopes = request.scopes.clone();
            Next::Consent { ticket, client, scopes, claims: request.claims.all(), username }
        };
        if visitor.consented.is_none() && !stands {
            if request.prompt.none {
                return Ok(back(AuthorizationError::ConsentRequired, "the user must be asked for consent"));
            }
            return Ok(consent_page());
        }
        // Uses its own request id: the login in this request may already have written under the other one.
        let write_key = write_key.then("code");
        match self.issue_code(request, signed_in, &around, visitor.consented.as_ref(), &write_key).await {
            Ok(code) => Ok(Next::Answer(self.way_back(request).with_code(&code))),
            // The consent page was answered before and its result is no longer stored. Or the pushed request has
            // expired; then another consent page would not help either.
            Err(AuthError::Refused(refusal))
                if visitor.consented.is_some() && is_of_ticket(refusal.reason) =>
            {
                Ok(self.still_stands(&target()).await?.map_or_else(consent_page, Next::Gone))
            }
            Err(AuthError::Refused(refusal)) => Ok(back(error_of(&refusal), &refusal.detail)),
            Err(error) => Err(error),
        }
    }

    /// True if the session satisfies `prompt=login`, `max_age` and `id_token_hint` (OIDC Core §3.1.2.1): an older
    /// session, or one of another user, may not.
    fn is_recent_enough(
        &self,
        request: &AuthorizationRequest,
        signed_in: &SignedIn,
        visitor: &Visitor,
    ) -> bool {
        if visitor.just_now || visitor.consented.is_some() {
            return true;
        }
        let client = signed_in.state.client(&request.client_id);
        if !client.is_some_and(|client| self.is_wanted(request, client, &signed_in.user)) {
            return false;
        }
        let age_ms = self.now(&signed_in.state).0.saturating_sub(signed_in.session.auth_time.0);
        let young = request.max_age_secs.is_none_or(|limit| age_ms <= limit.saturating_mul(1_000));
        young && !request.prompt.login
    }

    fn next_for_application(
        &self,
        url: &AppUrl,
        binding: Option<[u8; 32]>,
        target: &LoginTarget,
        visitor: &Visitor,
    ) -> Result<Next, AuthError> {
        let Some(signed_in) = &visitor.signed_in else { return Ok(self.login(target, visitor, false)) };
        let Some(application) = signed_in.state.application_by_host(&url.host()) else {
            return Ok(Next::Gone(MissingObject::Application));
        };
        if !self.is_true_origin(url, application) {
            return Ok(Next::Gone(MissingObject::Application));
        }
        let (host, method) = (url.host(), Some("GET"));
        let around = Circumstances {
            request: Some(AppRequest { method, host: &host, target: &url.path }),
            ..Circumstances::of_session(&signed_in.session, visitor.address)
        };
        let judgement = self.judge(&signed_in.state, application, &signed_in.user, &around);
        if !judgement.allowed {
            return Ok(forbidden(&application.name, signed_in, judgement.decision, target.clone()));
        }
        let redirect =
            AppRedirect { session: *signed_in.session.id.bytes(), asked_at_ms: visitor.asked_at_ms };
        if self.shares_session_cookie(&url.host()) {
            return Ok(Next::Open { url: url.clone(), by: url.to_string(), redirect });
        }
        self.app_sso_url(url, binding, signed_in).map(|by| Next::Open { url: url.clone(), by, redirect })
    }

    fn login(&self, target: &LoginTarget, visitor: &Visitor, fresh: bool) -> Next {
        Next::Login {
            ticket: self.ticket(LoginStep::Login { fresh }, target.clone(), visitor.browser.as_deref()),
        }
    }

    pub fn way_back<'a>(&'a self, request: &'a AuthorizationRequest) -> super::authorization::WayBack<'a> {
        let omits = self.omits_error_issuer(&request.client_id);
        request.way_back(self.settings().public_url.issuer(), omits)
    }

    /// True if an administrator configured that errors go to this client without `iss`.
    pub fn omits_error_issuer(&self, client_id: &str) -> bool {
        let state = self.cluster().view();
        state.client(client_id).is_some_and(|client| client.requests.exceptions.omit_error_issuer)
    }
}

/// The page where a user types the code of a device, with the code filled in.
pub fn device_page(user_code: &str) -> String {
    if user_code.is_empty() {
        return "/device".into();
    }
    let query =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("user_code", user_code).finish();
    format!("/device?{query}")
}

fn forbidden(what: &str, signed_in: &SignedIn, decision: Option<String>, target: LoginTarget) -> Next {
    let (username, target) = (signed_in.user.username.to_string(), Box::new(target));
    Next::Forbidden { what: what.to_owned(), username, decision, target }
}

fn is_of_ticket(reason: Reason) -> bool {
    matches!(reason, Reason::TicketSpent | Reason::TicketExpired)
}

/// The consent step. The session is part of the ticket, so only the user who saw the page can answer it.
fn consent_of(signed_in: &SignedIn) -> LoginStep {
    LoginStep::Consent { session: *signed_in.session.id.bytes() }
}
