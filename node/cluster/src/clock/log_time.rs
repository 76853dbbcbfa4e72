//! Stamps for log entries: only while a quorum agrees on the time, and in bounded steps (docs/design/rules.md).

use conclave_clock::{SECOND, Standing};
use conclave_proto::command::v1::{SetClock, command::Body};
use conclave_state::{State, level, stamp::MAX_STEP_MS};

use super::{ClusterClock, lock};
/// Log time is set forward when one entry would move it by more than this: half of the largest step of an entry.
const SET_FORWARD_FROM_MS: u64 = MAX_STEP_MS / 2;

/// A leader may not stamp: no quorum of members agrees with its cluster clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no quorum of members agrees with the cluster clock of this node")]
pub struct ClockUnsure;

impl ClusterClock {
    /// The stamp of an entry that is written now.
    ///
    /// # Errors
    /// `ClockUnsure` unless a quorum of cluster clocks is within a second of this node's.
    pub fn stamp(&self) -> Result<u64, ClockUnsure> {
        let agreed = lock(&self.verdict).is_some_and(|verdict| verdict.standing == Standing::Agreed);
        let now = u64::try_from(self.cluster_us() / 1_000).map_err(|_| ClockUnsure)?;
        if agreed { Ok(now) } else { Err(ClockUnsure) }
    }

    /// The command that sets log time to the cluster clock before an entry would move it too far; usually `None`.
    pub fn forward(state: &State, now_ms: u64) -> Option<SetClock> {
        let meta = state.meta();
        let is_due = meta.level >= level::BOUNDED_LOG_TIME
            && meta.clock.0 != 0
            && now_ms.saturating_sub(meta.clock.0) > SET_FORWARD_FROM_MS;
        is_due.then_some(SetClock { from_ms: meta.clock.0, to_ms: now_ms })
    }

    /// The command that sets log time back to the cluster clock.
    ///
    /// # Errors
    /// The reason why log time must not be set back, or need not be.
    pub fn back(&self) -> Result<Body, String> {
        let to_ms = self.stamp().map_err(|unsure| unsure.to_string())?;
        let from_ms = self.log_time_ms();
        let ahead = i64::try_from(from_ms.saturating_sub(to_ms)).unwrap_or(i64::MAX).saturating_mul(1_000);
        if ahead <= SECOND {
            return Err("log time is not ahead of the clocks; nothing needs to be set back".into());
        }
        Ok(Body::SetClock(SetClock { from_ms, to_ms }))
    }

    /// True for a command whose result depends on the time. It is not proposed while the clocks are in doubt. The
    /// commands with which an operator corrects the clocks do not depend on the time.
    pub const fn depends_on_time(body: &Body) -> bool {
        matches!(
            body,
            Body::StartSession(_)
                | Body::OpenAppSession(_)
                | Body::IssueCode(_)
                | Body::RedeemCode(_)
                | Body::RotateRefresh(_)
                | Body::StartDevice(_)
                | Body::AnswerDevice(_)
                | Body::RedeemDevice(_)
                | Body::PushRequest(_)
                | Body::SignInUpstream(_)
                | Body::SignInByHandle(_)
                | Body::LinkIdentity(_)
                | Body::SpendProofs(_)
                | Body::ReserveAttempt(_)
        )
    }
}
