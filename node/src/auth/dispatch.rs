//! What comes next, in one place: password, consent, the way home. Steps know only the way back here.

use std::net::IpAddr;

use conclave_state::Reason;

use crate::auth::authorization::error_of;

use super::{
    Auth, AuthError,
    authorization::{Answer, AuthorizationError, AuthorizationRequest},
    bounce::AppRedirect,
    client_name::shown_name,
    complete::consent_stands,
    derive::Derivation,
    policy::{Asked, Circumstances},
    session::{ShownSession, SignedIn},
    ticket::{AppUrl, Note, Step, Target, Ticket},
};

/// What the browser is to be shown, or where it is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The login page for this ticket.
    Login { ticket: Ticket },
    /// The consent page for this ticket.
    Consent { ticket: Ticket, client: String, scopes: Vec<String>, claims: Vec<String>, username: String },
    /// Away, to a place that was checked.
    Redirect(String),
    /// To this page of an application, by way of this location.
    Open { url: AppUrl, by: String, redirect: AppRedirect },
    /// Back to the client, with this.
    Answer(Answer),
    /// The person may not open it; said in a page.
    Forbidden { what: String, username: String, decision: Option<String>, target: Box<Target> },
    /// What was asked for is not there any more.
    Gone(Gone),
}

/// What is not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    Client,
    Application,
    /// A pushed request whose time is over, or that became a code before: no sign-in and no consent makes another one
    /// of it. `start` is where the user begins anew, if that is known.
    Pushed {
        start: Option<String>,
    },
}

/// What is known of the visitor at this point.
#[derive(Clone, Debug, Default)]
pub struct Visitor {
    /// The browser's own cookie.
    pub browser: Option<String>,
    pub signed_in: Option<SignedIn>,
    /// The session that the browser's cookie names, alive or not.
    pub shown: Option<ShownSession>,
    /// Where they come from; none: nobody knows, and a policy that asks denies.
    pub address: Option<IpAddr>,
    /// The person has proved who they are in this very attempt.
    pub just_now: bool,
    /// The consent ticket with which the person said yes.
    pub consented: Option<Ticket>,
    /// When this attempt was asked for, milliseconds since 1970; `None` when that is not known.
    pub asked_at_ms: Option<u64>,
    /// Why a page is shown again.
    pub note: Option<Note>,
}

impl Visitor {
    /// The same, from this address.
    #[must_use]
    pub fn from(self, address: IpAddr) -> Self {
        Self { address: Some(address), ..self }
    }
}

impl Auth {
    /// Decides.
    ///
    /// # Errors
    /// [`AuthError`] when the cluster cannot take the write that the decision needs.
    pub async fn next(
        &self,
        target: &Target,
        visitor: &Visitor,
        derivation: &Derivation,
    ) -> Result<Next, AuthError> {
        match target {
            Target::Authorize(request) => self.next_for_client(request, visitor, derivation).await,
            Target::Open { url, binding } => self.next_for_application(url, *binding, target, visitor),
            // The link to it is of any age and of any browser, so the place is checked when a browser is sent there.
            Target::Leave { uri } => Ok(match self.still_stands(target).await? {
                Some(gone) => Next::Gone(gone),
                None => Next::Redirect(uri.clone()),
            }),
            Target::Device { user_code } => Ok(match &visitor.signed_in {
                Some(_) => Next::Redirect(device_page(user_code)),
                None => self.login(target, visitor, false),
            }),
            Target::Home => Ok(match &visitor.signed_in {
                Some(_) => Next::Redirect("/".into()),
                None => self.login(target, visitor, false),
            }),
        }
    }

    async fn next_for_client(
        &self,
        request: &AuthorizationRequest,
        visitor: &Visitor,
        derivation: &Derivation,
    ) -> Result<Next, AuthError> {
        let target = || Target::Authorize(Box::new(request.clone()));
        let back = |error, why: &str| Next::Answer(self.way_back(request).with_error(error, why));
        let Some(signed_in) =
            visitor.signed_in.as_ref().filter(|s| self.is_recent_enough(request, s, visitor))
        else {
            if request.prompt.none {
                return Ok(back(AuthorizationError::LoginRequired, "nobody is signed in"));
            }
            return Ok(self.login(&target(), visitor, visitor.signed_in.is_some()));
        };
        let Some(client) = signed_in.state.client(&request.client_id).filter(|client| !client.disabled)
        else {
            return Ok(Next::Gone(Gone::Client));
        };
        if !self.is_wanted(request, client, &signed_in.user) {
            return Ok(back(
                AuthorizationError::LoginRequired,
                "another person signed in than was asked for",
            ));
        }
        if !request.is_satisfied_by(&signed_in.session.amr) {
            if visitor.just_now {
                let why = "the way in which the person signed in reaches none of the essential acr";
                return Ok(back(AuthorizationError::UnmetAuthenticationRequirements, why));
            }
            if request.prompt.none {
                return Ok(back(AuthorizationError::LoginRequired, "the person must sign in another way"));
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
                return Ok(back(AuthorizationError::ConsentRequired, "the person must be asked"));
            }
            return Ok(consent_page());
        }
        // Another write than the one that may have ended the login in this very request.
        let derivation = derivation.then("code");
        match self.issue_code(request, signed_in, &around, visitor.consented.as_ref(), &derivation).await {
            Ok(code) => Ok(Next::Answer(self.way_back(request).with_code(&code))),
            // The page was answered before, and what was answered then is not remembered any more. Or the pushed
            // request is over: then the next page would be of no use either.
            Err(AuthError::Refused(refusal))
                if visitor.consented.is_some() && is_of_ticket(refusal.reason) =>
            {
                Ok(self.still_stands(&target()).await?.map_or_else(consent_page, Next::Gone))
            }
            Err(AuthError::Refused(refusal)) => Ok(back(error_of(&refusal), &refusal.detail)),
            Err(error) => Err(error),
        }
    }

    /// `prompt=login`, `max_age` and `id_token_hint` (OIDC Core §3.1.2.1): a session that was there before may not do,
    /// nor one of somebody else.
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
        target: &Target,
        visitor: &Visitor,
    ) -> Result<Next, AuthError> {
        let Some(signed_in) = &visitor.signed_in else { return Ok(self.login(target, visitor, false)) };
        let Some(application) = signed_in.state.application_by_host(&url.host()) else {
            return Ok(Next::Gone(Gone::Application));
        };
        if !self.is_true_origin(url, application) {
            return Ok(Next::Gone(Gone::Application));
        }
        let (host, method) = (url.host(), Some("GET"));
        let around = Circumstances {
            request: Some(Asked { method, host: &host, target: &url.path }),
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
        self.hand_over(url, binding, signed_in).map(|by| Next::Open { url: url.clone(), by, redirect })
    }

    fn login(&self, target: &Target, visitor: &Visitor, fresh: bool) -> Next {
        Next::Login { ticket: self.ticket(Step::Login { fresh }, target.clone(), visitor.browser.as_deref()) }
    }

    pub(crate) fn way_back<'a>(
        &'a self,
        request: &'a AuthorizationRequest,
    ) -> super::authorization::WayBack<'a> {
        let omits = self.omits_error_issuer(&request.client_id);
        request.way_back(self.settings().public_url.issuer(), omits)
    }

    /// True if an administrator said that errors go to this client without `iss`.
    pub(crate) fn omits_error_issuer(&self, client_id: &str) -> bool {
        let state = self.cluster().view();
        state.client(client_id).is_some_and(|client| client.requests.exceptions.omit_error_issuer)
    }
}

/// Where a person types the code of a device, with it filled in.
pub fn device_page(user_code: &str) -> String {
    if user_code.is_empty() {
        return "/device".into();
    }
    let query =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("user_code", user_code).finish();
    format!("/device?{query}")
}

fn forbidden(what: &str, signed_in: &SignedIn, decision: Option<String>, target: Target) -> Next {
    let (username, target) = (signed_in.user.username.to_string(), Box::new(target));
    Next::Forbidden { what: what.to_owned(), username, decision, target }
}

fn is_of_ticket(reason: Reason) -> bool {
    matches!(reason, Reason::TicketSpent | Reason::TicketExpired)
}

/// What is shown to one person is answered by that person: the session is part of the ticket.
fn consent_of(signed_in: &SignedIn) -> Step {
    Step::Consent { session: *signed_in.session.id.bytes() }
}
