//! **Rotation of signing keys.** A signing key is published first, so that relying parties and every node know it. It
//! signs from one log entry on. It stays published until everything that it signed has expired. The leader is
//! responsible for the rotation.

use std::time::Duration;

use conclave_proto::command::v1::{ActivateSigningKey, RetireSigningKey, command::Body};
use conclave_state::{Stamp, State, client::SigningAlgorithm, key::KeyStage};

use super::{Auth, AuthError, write_key::WriteKey};

/// The interval at which the leader checks. No step is due to the minute.
const PERIOD: Duration = Duration::from_mins(1);
/// A retired key stays published this much longer than its signatures are valid: the clocks of relying parties differ,
/// and hints at sign-out may be old.
const MARGIN: Duration = Duration::from_hours(24);

/// The length of each stage.
#[derive(Clone, Copy, Debug)]
pub struct RotationSchedule {
    /// The time for which a key signs.
    pub signs_for: Duration,
    /// The time for which it is published before. Longer than any copy of the key set may be cached.
    pub known_for: Duration,
    /// The time for which it stays published afterwards.
    pub kept_for: Duration,
}

/// A change of a signing key that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Publish(SigningAlgorithm),
    Activate(String),
    Retire(String),
}

/// All steps that are due on this state at this time.
fn due(state: &State, now: Stamp, schedule: &RotationSchedule) -> Vec<Step> {
    let over =
        |since: Stamp, length: Duration| Duration::from_millis(now.0.saturating_sub(since.0)) >= length;
    let stages = state.keys().filter_map(|key| match key.stage {
        KeyStage::Next => {
            over(key.created_at, schedule.known_for).then(|| Step::Activate(key.kid.to_string()))
        }
        KeyStage::Active(since) => {
            let aged = over(since, schedule.signs_for.saturating_sub(schedule.known_for));
            (aged && state.next_key(key.algorithm).is_none()).then_some(Step::Publish(key.algorithm))
        }
        KeyStage::Retired { at, .. } => {
            over(at, schedule.kept_for).then(|| Step::Retire(key.kid.to_string()))
        }
    });
    stages.collect()
}

impl Auth {
    /// Runs until the task is dropped.
    pub async fn keep_rotating_keys(self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.cluster().is_leader() {
                self.rotate_what_is_due().await;
            }
        }
    }

    pub async fn rotate_what_is_due(&self) {
        let state = self.cluster().view();
        for step in due(&state, self.now(&state), &self.key_schedule()) {
            let taken = match &step {
                Step::Publish(algorithm) => self.publish_next_key(*algorithm).await,
                Step::Activate(kid) => self.activate_key(kid).await,
                Step::Retire(kid) => self.retire_key(kid).await,
            };
            match taken {
                Ok(()) => tracing::info!(?step, "signing keys change"),
                // Another leader may have done it; if not, it is due again in a minute.
                Err(error) => tracing::debug!(?step, %error, "a change of the signing keys was put off"),
            }
        }
    }

    fn key_schedule(&self) -> RotationSchedule {
        let tokens = &self.settings().tokens;
        RotationSchedule {
            signs_for: tokens.signing_key_ttl,
            known_for: tokens.signing_key_notice,
            kept_for: tokens.access_ttl + MARGIN,
        }
    }

    async fn activate_key(&self, kid: &str) -> Result<(), AuthError> {
        self.change_keys(Body::ActivateSigningKey(ActivateSigningKey { kid: kid.to_owned() })).await
    }

    async fn retire_key(&self, kid: &str) -> Result<(), AuthError> {
        self.change_keys(Body::RetireSigningKey(RetireSigningKey { kid: kid.to_owned() })).await
    }

    async fn change_keys(&self, body: Body) -> Result<(), AuthError> {
        let write_key = WriteKey::fresh(&self.deriving_keys().request, &*self.runtime().entropy);
        self.cluster().propose(write_key.request(), body).await?;
        Ok(())
    }
}

/// The algorithm with this name, as registered with IANA.
pub fn algorithm_named(name: &str) -> Option<SigningAlgorithm> {
    let known =
        [SigningAlgorithm::Rs256, SigningAlgorithm::Ps256, SigningAlgorithm::Es256, SigningAlgorithm::Eddsa];
    known.into_iter().find(|algorithm| super::keys::alg(*algorithm).is_some_and(|alg| alg.name() == name))
}
