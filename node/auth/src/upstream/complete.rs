//! The final write of an upstream sign-in: a session for the user of the identity, a new user, or a link. It spends the
//! ticket of the attempt, so that a callback is accepted once in the cluster.

use conclave_proto::command::v1::{
    CreateUser, LinkIdentity, SignInByHandle, SignInUpstream, command::Body, sign_in_again::SignIn,
};
use conclave_state::{
    Reason, Stamp, State,
    ids::{SecretHash, UserId},
    upstream::{Admission, Upstream},
};

use crate::{
    Auth, AuthError,
    complete::{CompletedLogin, LoginOrigin, in_browser, millis},
    session::{ShownSession, SignedIn},
    write_key::WriteKey,
};
use conclave_base::text;
use conclave_crypto::hex;

use super::{FRESH, UpstreamError, UpstreamIdentity, UpstreamLogin, able};

/// The authentication method: an assertion of another provider. RFC 8176 has no value for it; this one is in common
/// use.
const METHOD: &str = "fed";

/// A completed sign-in at a provider, to be completed here.
struct UpstreamCompletion<'a> {
    login: &'a UpstreamLogin,
    identity: &'a UpstreamIdentity,
    shown: Option<ShownSession>,
    origin: LoginOrigin,
}

impl Auth {
    /// Signs in the user of this identity, or creates a user if the provider may bring in new ones.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn complete_upstream_login(
        &self,
        login: &UpstreamLogin,
        identity: &UpstreamIdentity,
        write_key: &WriteKey,
        shown: Option<ShownSession>,
        origin: LoginOrigin,
    ) -> Result<CompletedLogin, UpstreamError> {
        let completion = UpstreamCompletion { login, identity, shown, origin };
        let mut state = self.cluster().view();
        let knows = |state: &State| state.identity(&login.upstream, &identity.subject).is_some();
        if !knows(&state) {
            // It may have been linked at another node a moment ago (docs/design/README.md, P5).
            state = self.cluster().confirmed_view().await.ok_or(AuthError::Unavailable)?;
        }
        if let Some(known) = state.identity(&login.upstream, &identity.subject) {
            let command = self.sign_in_command(&completion, &state, known.user, write_key);
            return Ok(self.finish_upstream(command, completion.shown, write_key).await?);
        }
        let upstream = able(&state, &login.upstream)?;
        if !may_come_in(&state, upstream, identity, self.now(&state)) {
            return Err(match (upstream.is_atmosphere(), upstream.rule.admission) {
                (true, Admission::Listed) => UpstreamError::NotListed,
                (true, _) => UpstreamError::NoSignUp,
                (false, _) => UpstreamError::NotLinked,
            });
        }
        self.provision_user(&completion, &state, upstream, write_key).await
    }

    /// Creates a user for a new identity. A username that is not free for new users gets a random suffix, so that an
    /// attacker cannot hold the resulting name beforehand. If another user takes the name meanwhile, a second one is
    /// tried, once.
    async fn provision_user(
        &self,
        completion: &UpstreamCompletion<'_>,
        state: &State,
        upstream: &Upstream,
        write_key: &WriteKey,
    ) -> Result<CompletedLogin, UpstreamError> {
        let wanted = completion.identity.wanted_username(&upstream.name);
        let suffix = |d: &WriteKey| hex::encode(d.id("username").first_chunk::<3>().unwrap_or(&[0; 3]));
        let is_free = state.is_free_for_newcomer(&wanted);
        let first = if is_free { wanted.clone() } else { format!("{wanted}-{}", suffix(write_key)) };
        let command = self.new_user_command(completion, state, first, write_key);
        match self.finish_upstream(command, completion.shown, write_key).await {
            Err(AuthError::Refused(refusal)) if refusal.reason == Reason::UsernameTaken => {
                let again = write_key.then("another-username");
                let name = format!("{wanted}-{}", suffix(&again));
                let command = self.new_user_command(completion, state, name, &again);
                Ok(self.finish_upstream(command, completion.shown, &again).await?)
            }
            finished => Ok(finished?),
        }
    }

    fn new_user_command(
        &self,
        completion: &UpstreamCompletion<'_>,
        state: &State,
        username: String,
        write_key: &WriteKey,
    ) -> SignInUpstream {
        let (user, identity) = (UserId::new(write_key.id("user")), completion.identity);
        let command = self.sign_in_command(completion, state, user, write_key);
        let new_user = CreateUser {
            user_id: user.to_vec(),
            username,
            display_name: text::nfc(&identity.name),
            email: text::address(&identity.email),
            email_verified: identity.email_verified,
            ..CreateUser::default()
        };
        SignInUpstream { new_user: Some(new_user), ..command }
    }

    fn sign_in_command(
        &self,
        completion: &UpstreamCompletion<'_>,
        state: &State,
        user: UserId,
        write_key: &WriteKey,
    ) -> SignInUpstream {
        let (ticket, identity) = (&completion.login.ticket, completion.identity);
        let mut session = self.session_command(ticket, user, write_key, completion.origin.clone());
        session.amr = vec![METHOD.into()];
        session.code = state
            .user(user)
            .and_then(|user| self.code_with_login(&ticket.target, &session, state, user, write_key));
        SignInUpstream {
            session: Some(session),
            upstream: completion.login.upstream.clone(),
            subject: identity.subject.clone(),
            label: identity.label().to_owned(),
            new_user: None,
            authenticated_at_ms: identity.auth_time_secs.unwrap_or(0).saturating_mul(1_000),
            verified_handle: identity.verified_handle.clone(),
            first_token_hash: identity.first_token_hash.clone(),
        }
    }

    async fn finish_upstream(
        &self,
        command: SignInUpstream,
        shown: Option<ShownSession>,
        write_key: &WriteKey,
    ) -> Result<CompletedLogin, AuthError> {
        // A handle that admitted a user is verified again later.
        let sign_in = if command.new_user.is_some() && !command.verified_handle.is_empty() {
            SignIn::ByHandle(SignInByHandle { sign_in: Some(command) })
        } else {
            SignIn::Upstream(command)
        };
        let committed = self
            .cluster()
            .propose(write_key.request(), in_browser(&self.cluster().view(), shown, sign_in))
            .await?;
        self.completed(&committed, write_key)
    }

    /// Links this identity to the user of this session.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn link_upstream(
        &self,
        login: &UpstreamLogin,
        identity: &UpstreamIdentity,
        signed_in: &SignedIn,
        write_key: &WriteKey,
    ) -> Result<(), UpstreamError> {
        let command = LinkIdentity {
            upstream: login.upstream.clone(),
            subject: identity.subject.clone(),
            label: identity.label().to_owned(),
            session_id: signed_in.session.id.to_vec(),
            max_age_ms: millis(FRESH),
            ticket_id: login.ticket.id.to_vec(),
            ticket_expires_at_ms: login.ticket.expires_at_ms,
            verified_handle: identity.verified_handle.clone(),
        };
        let proposed = self.cluster().propose(write_key.request(), Body::LinkIdentity(command)).await;
        proposed.map(drop).map_err(|error| AuthError::from(error).into())
    }

    /// True if the user of this session authenticated recently enough to change their ways to sign in.
    pub fn is_fresh(&self, signed_in: &SignedIn) -> bool {
        let age_ms = self.now(&signed_in.state).0.saturating_sub(signed_in.session.auth_time.0);
        age_ms < millis(FRESH)
    }
}

/// True if the identity may become a new user. Checked before anything is written; the rules check again and decide.
fn may_come_in(state: &State, upstream: &Upstream, identity: &UpstreamIdentity, now: Stamp) -> bool {
    if !upstream.is_atmosphere() {
        return upstream.rule.admits(&identity.email, identity.email_verified);
    }
    let first = upstream.rule.listed.first.zip(SecretHash::parse(&identity.first_token_hash).ok());
    let (did, handle) = (&identity.subject, &identity.verified_handle);
    upstream.admits_from_atmosphere(did, handle)
        || first.is_some_and(|((hash, _), shown)| hash.matches(&shown))
        || state.invitation_of(&upstream.name, did, handle, now).is_some()
}

/// True if the verified handle affects more than the display name: the admission of the user, or their groups.
pub fn is_decided_by_handle(state: &State, name: &str, identity: &UpstreamIdentity, now: Stamp) -> bool {
    let (did, handle) = (identity.subject.as_str(), identity.verified_handle.as_str());
    let Some(upstream) = state.upstream(name).filter(|_| !handle.is_empty()) else { return false };
    if let Some(known) = state.identity(name, did) {
        // The handle keeps the user admitted, or admits them again.
        return known.let_in.as_ref().is_some_and(|by| by.doubt.is_some() || *by.handle != *handle);
    }
    let invited = |handle| state.invitation_of(name, did, handle, now).map(|invitation| invitation.id);
    let listed = &upstream.rule.listed;
    upstream.admits_from_atmosphere(did, handle) != upstream.admits_from_atmosphere(did, "")
        || listed.groups_of(did, handle) != listed.groups_of(did, "")
        || invited(handle) != invited("")
}

/// True if a handle admitted this user earlier, and the present handle would be recorded as verified again.
pub fn is_kept_by_handle(state: &State, name: &str, identity: &UpstreamIdentity) -> bool {
    let known = state.identity(name, &identity.subject);
    !identity.verified_handle.is_empty() && known.is_some_and(|known| known.let_in.is_some())
}
