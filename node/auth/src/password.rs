//! The password step. It is throttled before anything is compared, and takes the same work and time, with the same
//! response, whether or not the user exists.

use std::{net::IpAddr, sync::Arc, time::Duration};

use conclave_proto::command::v1::{ReserveAttempt, command::Body};
use conclave_state::{Reason, Stamp, State, ids::UserId, session::Session, user::User};

use conclave_base::text;
use conclave_crypto::{
    mac,
    password::{PasswordCheck, PasswordError, PlaintextPassword},
};
use conclave_http::cidr::customer_of;

/// Maximum number of an account's sessions whose addresses are compared. Real users have fewer; a loop of sign-ins
/// cannot make the comparison slow.
const MAX_SESSIONS_LOOKED_AT: usize = 64;

use super::{
    Auth, AuthError,
    session::SignedIn,
    throttle::{Admission, AttemptCount},
    trusted_browser::TrustedBrowser,
    write_key::WriteKey,
};

/// Proof that a user presented the right password, with its version.
#[derive(Clone, Debug)]
pub struct Proof {
    pub user: Arc<User>,
    pub credential_version: u64,
    /// The version of the state against which the password was checked.
    pub state: Arc<State>,
    /// The cluster's counts of attempts to which this one belongs; the sign-in clears them.
    pub counts: Vec<UserId>,
}

/// The reason why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum PasswordRejection {
    /// Wrong username or password; deliberately not distinguished.
    #[error("the username or password is wrong")]
    Wrong,
    /// The password was right, but the account is disabled.
    #[error("the account is disabled")]
    Disabled,
    /// Too many attempts.
    #[error("too many attempts")]
    TooMany { retry_in: Duration },
    #[error(transparent)]
    Failed(#[from] AuthError),
}

/// The stored data with which the typed password is compared.
struct Candidate {
    state: Arc<State>,
    user: Option<Arc<User>>,
    /// True if the user was found by the username, and not by an address.
    by_username: bool,
    phc: Option<String>,
    version: u64,
}

impl Candidate {
    fn of(state: Arc<State>, username: &str) -> Self {
        let typed = text::address(username);
        let user = state.user_by_sign_in_name(&typed).cloned();
        let password = user.as_ref().and_then(|user| state.password(user.id).cloned());
        Self {
            phc: password.as_ref().map(|p| p.phc.clone()),
            version: password.as_ref().map_or(0, |p| p.version),
            by_username: state.user_by_name(&typed).is_some(),
            user,
            state,
        }
    }
}

impl Auth {
    /// Checks a username (or an e-mail address that leads to one user) and a password. They were typed at the network
    /// address `address`, in a browser that may have signed in to this account before.
    ///
    /// # Errors
    /// [`PasswordRejection`].
    #[tracing::instrument(name = "auth.password", skip_all)]
    pub async fn prove_password(
        &self,
        username: &str,
        password: String,
        address: IpAddr,
        trusted_browser: &TrustedBrowser,
    ) -> Result<Proof, PasswordRejection> {
        if let Admission::Refused { retry_in } = self.inner.throttles.address(address) {
            return Err(PasswordRejection::TooMany { retry_in });
        }
        let candidate = Candidate::of(self.cluster().view(), username);
        let counted = self.admit_attempt(&candidate, username, address, trusted_browser).await?;
        let (verdict, candidate) = self.verify(candidate, username, password).await?;
        let Some(user) = candidate.user.filter(|_| matches!(verdict, PasswordCheck::Match { .. })) else {
            return Err(PasswordRejection::Wrong);
        };
        self.inner.throttles.address_succeeded(address);
        counted.iter().for_each(|count| self.inner.throttles.succeeded(*count));
        if user.disabled {
            return Err(PasswordRejection::Disabled);
        }
        let state = self.cluster().view();
        let now = self.now(&state);
        let ids = counted.iter().map(|count| count.id());
        let counts = ids.filter(|id| *id != user.id && state.throttle(*id, now).is_some()).collect();
        Ok(Proof { user, credential_version: candidate.version, state: candidate.state, counts })
    }

    /// Counts the attempt before the password is compared, so that parallel guesses are counted too. Returns the counts
    /// that it went to.
    async fn admit_attempt(
        &self,
        candidate: &Candidate,
        username: &str,
        address: IpAddr,
        trusted_browser: &TrustedBrowser,
    ) -> Result<Vec<AttemptCount>, PasswordRejection> {
        let counts = self.counts(candidate, username, address, trusted_browser);
        // One after the other: an attempt that the first count refuses is not added to the second. So one address
        // cannot use up the common limit.
        for count in &counts {
            self.admit(&candidate.state, *count).await?;
        }
        Ok(counts)
    }

    /// The counts that an attempt belongs to. An account that does not exist is counted like one with no known browser
    /// and no known address.
    ///
    /// The username and the e-mail address of a user have separate counts at one browser or one network address, as two
    /// users would. With a common count, an attacker who used up the username's limit could see which e-mail address is
    /// refused too, and so belongs to that user.
    fn counts(
        &self,
        candidate: &Candidate,
        username: &str,
        address: IpAddr,
        trusted_browser: &TrustedBrowser,
    ) -> Vec<AttemptCount> {
        let now = self.now(&candidate.state);
        let account = candidate.user.as_ref().map_or_else(|| self.nobody(username), |user| user.id);
        // A new password, or an unlock, starts new counts for browsers and addresses. The rules clear the count of
        // strangers.
        let unlocked = candidate.user.as_ref().map_or(0, |user| user.unlock_version);
        let since = [candidate.version.to_be_bytes(), unlocked.to_be_bytes()].concat();
        let key = &self.deriving_keys().request;
        let name: &[u8] = if candidate.by_username { b"username" } else { b"address" };
        let one = |kind: &[u8], what: &[u8]| {
            let hash = mac::hmac_sha256(key, &[b"attempts", kind, account.bytes(), &since, name, what]);
            let mut id = [0; 16];
            id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
            AttemptCount::One(UserId::new(id))
        };
        let known =
            self.cluster_keys().all().find_map(|keys| trusted_browser.count_of(&keys.device, account, now));
        if let Some(browser) = known {
            return vec![one(b"browser", browser.bytes())];
        }
        let customer = customer_of(address);
        let at_address = one(b"address", customer.to_string().as_bytes());
        let is_at =
            |session: &Arc<Session>| session.address.parse().is_ok_and(|ip| customer_of(ip) == customer);
        let is_known = candidate
            .user
            .as_ref()
            .is_some_and(|user| candidate.state.sessions_of(user.id).take(MAX_SESSIONS_LOOKED_AT).any(is_at));
        if is_known { vec![at_address] } else { vec![at_address, AttemptCount::UnknownBrowsers(account)] }
    }

    async fn admit(&self, state: &State, count: AttemptCount) -> Result<(), PasswordRejection> {
        let counted = state.throttle(count.id(), self.now(state));
        match self.inner.throttles.count(count, self.cluster().member_count(), counted.is_some()) {
            Admission::Free => Ok(()),
            Admission::Refused { retry_in } => Err(PasswordRejection::TooMany { retry_in }),
            Admission::Reserve { limit, window_ms } => match counted {
                // No further attempt can be reserved before the window ends, so no command is proposed.
                Some(counted) if counted.attempts >= limit => Err(self.too_many(counted.window_ends_at)),
                _ => self.reserve(count.id(), limit, window_ms).await,
            },
        }
    }

    fn too_many(&self, ends: Stamp) -> PasswordRejection {
        let retry_in = Duration::from_millis(ends.0.saturating_sub(self.runtime().clock.now_ms()));
        PasswordRejection::TooMany { retry_in }
    }

    /// The marks of the browser after this sign-in. A retry of a lost response gives the same marks.
    pub fn trusted_browser_after(
        &self,
        trusted_browser: &TrustedBrowser,
        signed_in: &SignedIn,
        write_key: &WriteKey,
    ) -> TrustedBrowser {
        let (keys, account) = (self.cluster_keys(), signed_in.user.id);
        let others = keys.accepted().iter();
        let trusted_browser = others.fold(trusted_browser.clone(), |trusted_browser, keys| {
            trusted_browser.without(&keys.device, account)
        });
        trusted_browser.signed_in(
            &keys.device,
            signed_in.user.id,
            write_key.id("device"),
            signed_in.session.auth_time,
        )
    }

    async fn reserve(&self, account: UserId, limit: u32, window_ms: u64) -> Result<(), PasswordRejection> {
        let write_key = WriteKey::fresh(&self.deriving_keys().request, &*self.runtime().entropy);
        let command = ReserveAttempt { user_id: account.to_vec(), limit, window_ms };
        match self
            .cluster()
            .propose(write_key.request(), Body::ReserveAttempt(command))
            .await
            .map_err(AuthError::from)
        {
            Ok(_) => Ok(()),
            Err(AuthError::Refused(refusal)) if refusal.reason == Reason::AttemptsExhausted => {
                Err(self.too_many(refusal.retry_at.unwrap_or_default()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The id under which attempts at a nonexistent user are counted. It looks like any other id, so throttling does
    /// not reveal if a user exists.
    fn nobody(&self, username: &str) -> UserId {
        let name = text::address(username).to_ascii_lowercase();
        let hash = mac::hmac_sha256(&self.deriving_keys().request, &[b"nobody", name.as_bytes()]);
        let mut id = [0; 16];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        UserId::new(id)
    }

    /// Compares the password. Before a mismatch is final, this node makes sure that its state is current: the account
    /// or its password may be new (docs/design/README.md, P5).
    async fn verify(
        &self,
        candidate: Candidate,
        username: &str,
        password: String,
    ) -> Result<(PasswordCheck, Candidate), PasswordRejection> {
        let typed = || PlaintextPassword::new(password.clone()).map_err(|_| PasswordRejection::Wrong);
        let verdict = self.compare(typed()?, &candidate).await?;
        if verdict != PasswordCheck::Mismatch {
            return Ok((verdict, candidate));
        }
        let Some(state) = self.cluster().confirmed_view().await else { return Ok((verdict, candidate)) };
        let current = Candidate::of(state, username);
        if current.version == candidate.version {
            return Ok((verdict, candidate));
        }
        let verdict = self.compare(typed()?, &current).await?;
        Ok((verdict, current))
    }

    async fn compare(
        &self,
        typed: PlaintextPassword,
        candidate: &Candidate,
    ) -> Result<PasswordCheck, PasswordRejection> {
        self.passwords().verify(typed, candidate.phc.as_deref()).await.map_err(|error| match error {
            PasswordError::Busy => AuthError::Busy.into(),
            PasswordError::TooLong => PasswordRejection::Wrong,
            other => AuthError::Internal(other.to_string()).into(),
        })
    }
}
