//! The single write that ends a login: it spends the ticket, opens the session and issues the requested code.

use std::sync::Arc;

use conclave_proto::command::v1::{
    IssueCode, SignInAgain, StartSession, command::Body, sign_in_again::SignIn,
};
use conclave_state::{
    ReplyBody, Stamp, State,
    client::{Client, ConsentMode, GrantType},
    ids::{GrantId, SecretHash, SessionId, UserId},
    level,
    session::Session,
    user::User,
};

use conclave_cluster::CommittedWrite;
use conclave_crypto::{handle::HandleKind, mac};

use super::{
    Auth, AuthError,
    authorization::{AuthorizationRequest, PASSWORD_METHOD},
    password::Proof,
    policy::Circumstances,
    session::{ShownSession, SignedIn},
    ticket::{LoginTarget, Ticket},
    write_key::WriteKey,
};

/// The user agent and address of a browser, for the list of sessions.
#[derive(Clone, Debug, Default)]
pub struct LoginOrigin {
    pub user_agent: String,
    pub address: String,
}

/// A completed login.
#[derive(Debug)]
pub struct CompletedLogin {
    /// The session's new cookie. `None` if the session got another cookie meanwhile: then this is the reply to a late
    /// retry, and the browser already has the newer cookie.
    pub cookie: Option<String>,
    pub signed_in: SignedIn,
    /// The code, if the login was for one and needs no further page. Never a code that was redeemed or has expired.
    pub code: Option<String>,
}

/// True if no consent page is needed: the client never asks for consent, or the user already consented to everything
/// requested.
pub fn consent_stands(request: &AuthorizationRequest, client: &Client, state: &State, user: &User) -> bool {
    if request.prompt.consent {
        return false;
    }
    match client.consent {
        ConsentMode::Implicit => true,
        ConsentMode::Once => state.consent(user.id, &client.id).is_some_and(|consent| {
            consent.covers(&request.scopes, &request.claims.all(), &request.resources)
        }),
        ConsentMode::Always | ConsentMode::Unspecified => false,
    }
}

impl Auth {
    /// True if this user is the one that the request names, or if the request names none.
    pub fn is_wanted(&self, request: &AuthorizationRequest, client: &Client, user: &User) -> bool {
        request
            .subject
            .as_ref()
            .is_none_or(|subject| self.subject(client, user).is_ok_and(|own| own == *subject))
    }

    /// Completes the login that `ticket` stands for.
    ///
    /// # Errors
    /// [`AuthError`]; `Refused(TicketSpent)` when this login was already completed.
    #[tracing::instrument(name = "auth.complete", skip_all)]
    pub async fn complete(
        &self,
        ticket: &Ticket,
        proof: &Proof,
        write_key: &WriteKey,
        shown: Option<ShownSession>,
        origin: LoginOrigin,
    ) -> Result<CompletedLogin, AuthError> {
        let mut command = self.session_command(ticket, proof.user.id, write_key, origin);
        command.amr = vec![PASSWORD_METHOD.into()];
        command.credential_version = proof.credential_version;
        command.cleared_count_ids = proof.counts.iter().map(|id| id.to_vec()).collect();
        command.code = self.code_with_login(&ticket.target, &command, &proof.state, &proof.user, write_key);
        let body = in_browser(&proof.state, shown, SignIn::Start(command));
        let committed = self.cluster().propose(write_key.request(), body).await?;
        self.completed(&committed, write_key)
    }

    /// The command that opens a session for this user, whatever the method of authentication.
    pub(super) fn session_command(
        &self,
        ticket: &Ticket,
        user: UserId,
        write_key: &WriteKey,
        origin: LoginOrigin,
    ) -> StartSession {
        StartSession {
            session_id: write_key.id("session").to_vec(),
            user_id: user.to_vec(),
            secret_hash: mac::sha256(write_key.secret("session").expose()).to_vec(),
            ticket_id: ticket.id.to_vec(),
            ticket_expires_at_ms: ticket.expires_at_ms,
            ttl_ms: millis(self.settings().login.session_ttl),
            user_agent: origin.user_agent,
            address: origin.address,
            ..StartSession::default()
        }
    }

    /// The result of the write that completed a login.
    pub(super) fn completed(
        &self,
        committed: &CommittedWrite,
        write_key: &WriteKey,
    ) -> Result<CompletedLogin, AuthError> {
        let secret = write_key.secret("session");
        let ReplyBody::SessionStarted(started) = &committed.body else {
            return Err(unexpected(&committed.body));
        };
        let session_id = SessionId::parse(&started.session_id).map_err(AuthError::Refused)?;
        let (state, now) = (&committed.state, self.now(&committed.state));
        // The reply to a retry may arrive after the session has ended; then the user is not signed in.
        let ended = || {
            AuthError::Refused(conclave_state::Refusal::new(
                conclave_state::Reason::SessionUnknown,
                "the session has ended",
            ))
        };
        let (session, user) = state.live_session(session_id, now).ok_or_else(ended)?;
        let signed_in = SignedIn { session: session.clone(), user: user.clone(), state: state.clone() };
        let is_current = session.secret_hash.matches(&SecretHash::new(mac::sha256(secret.expose())));
        let code = is_redeemable(state, &started.grant_id, session, now);
        let code = code.then(|| self.code_text(write_key, started.index));
        let cookie = is_current.then(|| self.session_cookie(session_id, secret, started.index));
        Ok(CompletedLogin { cookie, signed_in, code })
    }

    /// Issues a code to the client of `request` for a signed-in user. Spends the consent ticket, if there is one.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn issue_code(
        &self,
        request: &AuthorizationRequest,
        signed_in: &SignedIn,
        around: &Circumstances<'_>,
        consent: Option<&Ticket>,
        write_key: &WriteKey,
    ) -> Result<String, AuthError> {
        let mut command = self.code_command(request, write_key);
        let client = signed_in.state.client(&request.client_id);
        command.policy_version =
            client.map_or(0, |client| self.admitted_by(&signed_in.state, client, &signed_in.user, around));
        command.session_id = signed_in.session.id.to_vec();
        if let Some(ticket) = consent {
            command.ticket_id = ticket.id.to_vec();
            command.ticket_expires_at_ms = ticket.expires_at_ms;
            command.remember_consent = client.is_some_and(|client| client.consent == ConsentMode::Once);
        }
        let committed = self.cluster().propose(write_key.request(), Body::IssueCode(command.clone())).await?;
        let ReplyBody::CodeIssued(issued) = &committed.body else { return Err(unexpected(&committed.body)) };
        let now = self.now(&committed.state);
        if is_redeemable(&committed.state, &issued.grant_id, &signed_in.session, now) {
            return Ok(self.code_text(write_key, issued.index));
        }
        // This step was done before and its code was redeemed, so the repetition gets a new code.
        let again = WriteKey::fresh(&self.deriving_keys().request, &*self.runtime().entropy);
        let command = IssueCode { ticket_id: Vec::new(), ..named_by(command, &again) };
        let committed = self.cluster().propose(again.request(), Body::IssueCode(command)).await?;
        match &committed.body {
            ReplyBody::CodeIssued(issued) => Ok(self.code_text(&again, issued.index)),
            other => Err(unexpected(other)),
        }
    }

    pub(super) fn code_with_login(
        &self,
        target: &LoginTarget,
        session: &StartSession,
        state: &State,
        user: &Arc<User>,
        write_key: &WriteKey,
    ) -> Option<IssueCode> {
        let LoginTarget::Authorize(request) = target else { return None };
        let client = state.client(&request.client_id)?;
        // The session that this write will open.
        let around = Circumstances {
            address: session.address.parse().ok(),
            sign_in: Some((self.now(state).0, &session.amr)),
            request: None,
        };
        let at_once = !client.disabled
            && client.allows(GrantType::AuthorizationCode)
            && self.is_wanted(request, client, user)
            && request.is_satisfied_by(&session.amr)
            && consent_stands(request, client, state, user)
            && self.client_admits(state, client, user, &around);
        at_once.then(|| IssueCode {
            policy_version: self.admitted_by(state, client, user, &around),
            ..self.code_command(request, write_key)
        })
    }

    fn code_command(&self, request: &AuthorizationRequest, write_key: &WriteKey) -> IssueCode {
        let command = IssueCode {
            client_id: request.client_id.clone(),
            redirect_uri: request.redirect_uri.clone(),
            scopes: request.scopes.clone(),
            nonce: request.nonce.clone(),
            code_challenge: request.code_challenge.map(|hash| hash.to_vec()).unwrap_or_default(),
            resources: request.resources.clone(),
            id_token_claims: request.claims.id_token.clone(),
            userinfo_claims: request.claims.userinfo.clone(),
            pushed_request_id: request.pushed.map(|pushed| pushed.id.to_vec()).unwrap_or_default(),
            pushed_until_ms: request.pushed.map_or(0, |pushed| pushed.until_ms),
            code_ttl_ms: millis(self.settings().tokens.code_ttl),
            dpop_jkt: request.dpop_jkt.map(|jkt| jkt.to_vec()).unwrap_or_default(),
            ..IssueCode::default()
        };
        named_by(command, write_key)
    }

    fn code_text(&self, write_key: &WriteKey, index: u64) -> String {
        self.issue(HandleKind::Code, write_key.id("grant"), write_key.secret("code"), 0, index)
    }
}

/// The sign-in as a command. This write also strengthens or ends the session whose cookie the browser presented. While
/// a member of the cluster does not know the command for strengthening, the session is ended.
pub(super) fn in_browser(state: &State, shown: Option<ShownSession>, mut sign_in: SignIn) -> Body {
    let can_strengthen = state.meta().level >= level::STRENGTHENING;
    if let Some(shown) = shown.filter(|_| !can_strengthen) {
        replace(state, shown, &mut sign_in);
    }
    match (shown.filter(|_| can_strengthen), sign_in) {
        (Some(shown), sign_in) => Body::SignInAgain(SignInAgain {
            shown_session_id: shown.session.to_vec(),
            shown_secret_hash: shown.secret_hash.bytes().to_vec(),
            sign_in: Some(sign_in),
        }),
        (None, SignIn::Start(command)) => Body::StartSession(command),
        (None, SignIn::Upstream(command)) => Body::SignInUpstream(command),
        (None, SignIn::ByHandle(command)) => Body::SignInByHandle(command),
    }
}

/// Makes the sign-in end the session that the browser presented, if the cookie's secret matches that session.
fn replace(state: &State, shown: ShownSession, sign_in: &mut SignIn) {
    let live = state.live_session(shown.session, state.meta().clock);
    let Some((session, _)) = live.filter(|(session, _)| session.secret_hash.matches(&shown.secret_hash))
    else {
        return;
    };
    let start = match sign_in {
        SignIn::Start(start) => Some(start),
        SignIn::Upstream(command) => command.session.as_mut(),
        SignIn::ByHandle(command) => command.sign_in.as_mut().and_then(|command| command.session.as_mut()),
    };
    if let Some(start) = start {
        start.replaces_session_id = session.id.to_vec();
    }
}

/// The command for a code whose id and secret come from this write key.
fn named_by(command: IssueCode, write_key: &WriteKey) -> IssueCode {
    IssueCode {
        grant_id: GrantId::new(write_key.id("grant")).to_vec(),
        secret_hash: mac::sha256(write_key.secret("code").expose()).to_vec(),
        ..command
    }
}

/// True while the code of this grant can be redeemed. After a repeated click whose first code was redeemed, the caller
/// issues a new code: a code presented twice revokes everything that was issued from it.
fn is_redeemable(state: &State, grant_id: &[u8], session: &Session, now: Stamp) -> bool {
    let grant = GrantId::parse(grant_id).ok().and_then(|id| state.grant(id));
    grant.is_some_and(|grant| {
        grant.session == session.id && grant.redeemed_at.is_none() && !grant.code_expires_at.is_over_at(now)
    })
}

pub fn millis(length: std::time::Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

pub fn unexpected(body: &ReplyBody) -> AuthError {
    AuthError::Internal(format!("unexpected reply to a command: {body:?}"))
}
