//! The password step: throttled before anything is looked at, and the same work, time and answer whether or not the user exists.

use std::{net::IpAddr, sync::Arc, time::Duration};

use conclave_proto::command::v1::{ReserveAttempt, command::Body};
use conclave_state::{Reason, State, ids::UserId, user::User};

use crate::crypto::{
    mac,
    password::{Password, PasswordError, Verdict},
};

use super::{Auth, AuthError, derive::Derivation, device::Device, session::SignedIn, throttle::Admission};

/// Someone proved a password, of this version.
#[derive(Clone, Debug)]
pub struct Proof {
    pub user: Arc<User>,
    pub credential_version: u64,
    /// The version of the state in which it was checked.
    pub state: Arc<State>,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum Unproved {
    /// Wrong username or password; which, is not said.
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

/// What is compared with what was typed.
struct Candidate {
    state: Arc<State>,
    user: Option<Arc<User>>,
    phc: Option<String>,
    version: u64,
}

impl Candidate {
    fn of(state: Arc<State>, username: &str) -> Self {
        let user = state.user_by_name(username).cloned();
        let password = user.as_ref().and_then(|user| state.password(user.id).cloned());
        Self {
            phc: password.as_ref().map(|p| p.phc.clone()),
            version: password.as_ref().map_or(0, |p| p.version),
            user,
            state,
        }
    }
}

impl Auth {
    /// Checks a username and password typed at `address`, in a browser that may have signed in to this account before.
    ///
    /// # Errors
    /// [`Unproved`].
    pub async fn prove_password(
        &self,
        username: &str,
        password: String,
        address: IpAddr,
        device: &Device,
    ) -> Result<Proof, Unproved> {
        if let Admission::Refused { retry_in } = self.inner.throttles.address(address) {
            return Err(Unproved::TooMany { retry_in });
        }
        let candidate = Candidate::of(self.cluster().view(), username);
        let counted = self.admit_attempt(&candidate, username, device).await?;
        let (verdict, candidate) = self.verify(candidate, username, password).await?;
        let Some(user) = candidate.user.filter(|_| matches!(verdict, Verdict::Match { .. })) else {
            return Err(Unproved::Wrong);
        };
        self.inner.throttles.address_succeeded(address);
        self.inner.throttles.account_succeeded(counted);
        if user.disabled {
            return Err(Unproved::Disabled);
        }
        Ok(Proof { user, credential_version: candidate.version, state: candidate.state })
    }

    /// Counts the attempt before the password is looked at, so that parallel guesses are counted too. Gives the count it went to:
    /// that of the account, which all strangers share, or that of a browser known for it.
    async fn admit_attempt(
        &self,
        candidate: &Candidate,
        username: &str,
        device: &Device,
    ) -> Result<UserId, Unproved> {
        let now = self.now(&candidate.state);
        let account = candidate.user.as_ref().map_or_else(|| self.nobody(username), |user| user.id);
        let known = self.cluster_keys().all().find_map(|keys| device.count_of(&keys.device, account, now));
        let count = known.unwrap_or(account);
        let hot = candidate.state.throttle(count, now).is_some();
        match self.inner.throttles.account(count, self.cluster().member_count(), hot) {
            Admission::Free => {}
            Admission::Refused { retry_in } => return Err(Unproved::TooMany { retry_in }),
            Admission::Reserve { limit, window_ms } => self.reserve(count, limit, window_ms).await?,
        }
        Ok(count)
    }

    /// The browser after this sign-in: known for its account. The same for the retry of a lost answer.
    pub fn device_after(&self, device: &Device, signed_in: &SignedIn, derivation: &Derivation) -> Device {
        let (keys, account) = (self.cluster_keys(), signed_in.user.id);
        let others = keys.accepted().iter();
        let device = others.fold(device.clone(), |device, keys| device.without(&keys.device, account));
        device.signed_in(
            &keys.device,
            signed_in.user.id,
            derivation.id("device"),
            signed_in.session.auth_time,
        )
    }

    async fn reserve(&self, account: UserId, limit: u32, window_ms: u64) -> Result<(), Unproved> {
        let derivation = Derivation::fresh(&self.deriving_keys().request, &*self.runtime().entropy);
        let order = ReserveAttempt { user_id: account.to_vec(), limit, window_ms };
        match self
            .cluster()
            .propose(derivation.request(), Body::ReserveAttempt(order))
            .await
            .map_err(AuthError::from)
        {
            Ok(_) => Ok(()),
            Err(AuthError::Refused(refusal)) if refusal.reason == Reason::AttemptsExhausted => {
                let ends = refusal.retry_at.unwrap_or_default().0;
                let retry_in = Duration::from_millis(ends.saturating_sub(self.runtime().clock.now_ms()));
                Err(Unproved::TooMany { retry_in })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A user who does not exist has an id of the same kind, so that throttling tells nobody.
    fn nobody(&self, username: &str) -> UserId {
        let name = username.trim().to_ascii_lowercase();
        let hash = mac::hmac_sha256(&self.deriving_keys().request, &[b"nobody", name.as_bytes()]);
        let mut id = [0; 16];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        UserId::new(id)
    }

    /// Compares. Before a no is final, the cluster is asked whether this node is up to date: the account or its password may
    /// be a moment old (design.md P5).
    async fn verify(
        &self,
        candidate: Candidate,
        username: &str,
        password: String,
    ) -> Result<(Verdict, Candidate), Unproved> {
        let typed = || Password::new(password.clone()).map_err(|_| Unproved::Wrong);
        let verdict = self.compare(typed()?, &candidate).await?;
        if verdict != Verdict::Mismatch {
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

    async fn compare(&self, typed: Password, candidate: &Candidate) -> Result<Verdict, Unproved> {
        self.passwords().verify(typed, candidate.phc.as_deref()).await.map_err(|error| match error {
            PasswordError::Busy => AuthError::Busy.into(),
            PasswordError::TooLong => Unproved::Wrong,
            other => AuthError::Internal(other.to_string()).into(),
        })
    }
}
