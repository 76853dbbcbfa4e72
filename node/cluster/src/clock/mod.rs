//! The cluster clock on this node: `conclave-clock` on top of this machine's clocks and the cluster plane.
//!
//! | file | owns |
//! |---|---|
//! | this | [`ClusterClock`]: the time by which everything on this node is judged, and its problems |
//! | `keep` | polling the peers once a second, and acting on their replies |
//! | `log_time` | stamps: bounded steps of log time, and setting it back |
//!
//! [`ClusterClock`] takes the place of the machine's clock for the whole node. Sign-in tickets, sessions, tokens and
//! policies are judged by one time on all nodes, even if the wall clock of one node is wrong.

mod keep;
mod log_time;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use conclave_clock::{
    ClockAnswer, ClockVerdict, ClusterReading, Discipline, Micros, SECOND, Standing, WALL_BOUND,
};
use conclave_lease::LeaseClockReading;
use conclave_proto::cluster::v1 as pb;

use conclave_base::runtime::Clock;

use super::{machine::StateView, types::NodeId};

pub(super) use keep::reply_of;
pub(crate) use keep::run;
pub(crate) use log_time::ClockUnsure;

/// The offset while there is no estimate.
const NONE: i64 = i64::MIN;

/// The most by which log time may be ahead of the cluster clock while this node still decides what depends on time. Log
/// time stands still meanwhile, so a session may last longer by that much. After clocks were corrected by minutes, that
/// is better than refusing every user.
const MAX_LOG_AHEAD: Micros = 15 * 60 * SECOND;

/// A problem with the clocks, as seen by this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrouble {
    /// The members' wall clocks disagree, or too few members have answered: there is no cluster clock yet.
    Unestablished,
    /// No quorum of members is known to agree with this node's cluster clock.
    Alone,
    /// Log time is ahead of the cluster clock by this many milliseconds: clocks were wrong before.
    LogAhead(u64),
    /// The wall clock of this machine is off by this many milliseconds.
    WallOff(i64),
}

/// A state of the clocks in which this node still decides, but which leads to a result that operators may not expect
/// unless they act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockWarning {
    /// A quorum of wall clocks shows a time that differs by this many milliseconds. It is adopted once it has lasted
    /// for a minute.
    StepPending(i64),
    /// Log time is ahead of the cluster clock by this many milliseconds, within the bound. It stands still until the
    /// clocks have caught up. Meanwhile proofs that clients make (DPoP, assertions) look too old.
    LogAhead(u64),
}

impl fmt::Display for ClockWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StepPending(by) => write!(
                f,
                "most members' clocks were set {} {}; the cluster follows within a minute, which may end sessions; if that is wrong, \
                 correct those clocks now",
                span(*by),
                if *by < 0 { "back" } else { "ahead" }
            ),
            Self::LogAhead(by) => write!(
                f,
                "log time is {} ahead of the clocks and stands still until they have caught up; clients' DPoP proofs and assertions may \
                 be refused meanwhile; `conclave cluster reset-clock` sets it back (runbook: clocks.md)",
                span(i64::try_from(*by).unwrap_or(i64::MAX))
            ),
        }
    }
}

impl fmt::Display for ClockTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unestablished => f.write_str(
                "the members' clocks disagree, or too few members have answered; compare `date` on every machine and check its time \
                 synchronisation",
            ),
            Self::Alone => f.write_str("no quorum of members agrees with the cluster clock of this node"),
            Self::LogAhead(by) => write!(
                f,
                "log time is {} ahead of the clocks; if the clocks are right, run `conclave cluster reset-clock` (runbook: clocks.md)",
                span(i64::try_from(*by).unwrap_or(i64::MAX))
            ),
            Self::WallOff(by) => write!(
                f,
                "the clock of this machine is {} {} the cluster clock; correct it (chrony, systemd-timesyncd)",
                span(*by),
                if *by < 0 { "behind" } else { "ahead of" }
            ),
        }
    }
}

/// Formats a length of time in milliseconds for operators, rounded to its unit.
fn span(ms: i64) -> String {
    let ms = ms.unsigned_abs();
    let whole = |unit_ms: u64| (ms + unit_ms / 2) / unit_ms;
    match ms {
        0..120_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        120_000..7_200_000 => format!("{} min", whole(60_000)),
        7_200_000..172_800_000 => format!("{} h", whole(3_600_000)),
        _ => format!("{} days", whole(86_400_000)),
    }
}

/// The time of the cluster. Shared by everything on this node.
pub struct ClusterClock {
    machine: Arc<dyn Clock>,
    discipline: Mutex<Discipline>,
    /// The cluster clock minus the steady clock, in microseconds. A check reads it with one load.
    offset_us: AtomicI64,
    verdict: Mutex<Option<ClockVerdict>>,
    /// True while nothing that depends on time may be decided here.
    is_unsure: AtomicBool,
    /// Log time, once there is a state.
    view: OnceLock<StateView>,
}

impl ClusterClock {
    /// The clock of `node`, based on the clocks of its machine.
    pub fn new(node: NodeId, machine: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            machine,
            discipline: Mutex::new(Discipline::new(node)),
            offset_us: AtomicI64::new(NONE),
            verdict: Mutex::new(None),
            is_unsure: AtomicBool::new(true),
            view: OnceLock::new(),
        })
    }

    /// From this call on, the time is never before log time.
    pub fn attach(&self, view: StateView) {
        // Set once, at start.
        let _ = self.view.set(view);
    }

    /// The clocks of this node, for a peer that requests them.
    pub fn answer(&self) -> ClockAnswer {
        let steady = self.steady_us();
        let clocks = self.clocks();
        let cluster = clocks.cluster_at(steady).map(|at| ClusterReading { at, steps: clocks.steps() });
        ClockAnswer { wall: self.wall_us(), cluster }
    }

    /// The times by which an operator's short-lived assertion is judged: the cluster clock without regard to log time,
    /// and the wall clock of this machine, by which the operator's tool may have made the assertion.
    pub fn operator_times_ms(&self) -> [u64; 2] {
        [self.cluster_us(), self.wall_us()].map(|time| u64::try_from(time / 1_000).unwrap_or(0))
    }

    /// True if the time of this node may be used for decisions.
    pub fn is_sure(&self) -> bool {
        !self.is_unsure.load(Ordering::Relaxed)
    }

    /// The gravest problem of the clocks; `None` if there is none.
    pub fn trouble(&self) -> Option<ClockTrouble> {
        let verdict = *lock(&self.verdict);
        match verdict {
            None | Some(ClockVerdict { standing: Standing::Unestablished, .. }) => {
                Some(ClockTrouble::Unestablished)
            }
            // This also applies after log time was set back, until the next evaluation: nothing is decided here until
            // then.
            _ if !self.is_sure() || self.log_ahead_us() > MAX_LOG_AHEAD => {
                Some(ClockTrouble::LogAhead(self.log_ahead_ms()))
            }
            Some(ClockVerdict { standing: Standing::Alone, .. }) => Some(ClockTrouble::Alone),
            Some(verdict) if verdict.is_wall_off => Some(ClockTrouble::WallOff(verdict.wall_offset / 1_000)),
            Some(_) => None,
        }
    }

    /// A warning for operators about clocks by which this node still decides.
    pub fn warning(&self) -> Option<ClockWarning> {
        let step = lock(&self.verdict).and_then(|verdict| verdict.pending_step);
        let log_ahead = || Some(self.log_ahead_us()).filter(|ahead| *ahead > WALL_BOUND);
        step.map(|step| ClockWarning::StepPending(step / 1_000))
            .or_else(|| log_ahead().map(|_| ClockWarning::LogAhead(self.log_ahead_ms())))
    }

    /// The milliseconds by which log time is ahead of the cluster clock.
    pub fn log_ahead_ms(&self) -> u64 {
        u64::try_from(self.log_ahead_us() / 1_000).unwrap_or(0)
    }

    /// The wall clock of this machine minus the cluster clock, in microseconds; 0 while there is none.
    pub fn wall_offset_us(&self) -> i64 {
        lock(&self.verdict).map_or(0, |verdict| verdict.wall_offset)
    }

    /// The clock status that this node reports.
    pub fn status(&self) -> pb::ClockStatus {
        let standing = match lock(&self.verdict).map(|verdict| verdict.standing) {
            None | Some(Standing::Unestablished) => "unestablished",
            Some(Standing::Agreed) => "agreed",
            Some(Standing::Alone) => "alone",
        };
        pb::ClockStatus {
            wall_offset_us: self.wall_offset_us(),
            standing: standing.into(),
            log_ahead_ms: self.log_ahead_ms(),
            trouble: self.trouble().map(|trouble| trouble.to_string()).unwrap_or_default(),
            warning: self.warning().map(|warning| warning.to_string()).unwrap_or_default(),
            steps: self.clocks().steps(),
        }
    }

    /// True if the wall clock of this peer is within the bound, as far as is known.
    fn is_wall_of_peer_right(&self, peer: NodeId) -> bool {
        self.clocks().wall_offset_of(peer).is_some_and(|offset| offset.abs() <= WALL_BOUND)
    }

    /// Evaluates all clocks and publishes the verdict.
    fn look(&self, voters: &[NodeId]) -> ClockVerdict {
        let mut clocks = self.clocks();
        let verdict = clocks.look(self.steady_us(), self.wall_us(), voters);
        let steady = self.steady_us();
        let offset = clocks.cluster_at(steady).map_or(NONE, |at| at.saturating_sub(steady));
        self.offset_us.store(offset, Ordering::Relaxed);
        drop(clocks);
        *lock(&self.verdict) = Some(verdict);
        let is_unsure = verdict.standing == Standing::Unestablished || self.log_ahead_us() > MAX_LOG_AHEAD;
        self.is_unsure.store(is_unsure, Ordering::Relaxed);
        verdict
    }

    fn clocks(&self) -> MutexGuard<'_, Discipline> {
        lock(&self.discipline)
    }

    /// The cluster clock without regard to log time; the wall clock while there is none.
    fn cluster_us(&self) -> Micros {
        match self.offset_us.load(Ordering::Relaxed) {
            NONE => self.wall_us(),
            offset => self.steady_us().saturating_add(offset),
        }
    }

    fn log_time_ms(&self) -> u64 {
        self.view.get().map_or(0, |view| view.load().meta().clock.0)
    }

    fn log_ahead_us(&self) -> Micros {
        let log = i64::try_from(self.log_time_ms()).unwrap_or(i64::MAX).saturating_mul(1_000);
        log.saturating_sub(self.cluster_us()).max(0)
    }

    fn wall_us(&self) -> Micros {
        i64::try_from(self.machine.now_ms()).unwrap_or(i64::MAX).saturating_mul(1_000)
    }

    fn steady_us(&self) -> Micros {
        i64::try_from(self.machine.steady().as_micros()).unwrap_or(i64::MAX)
    }
}

impl Clock for ClusterClock {
    /// The time of the cluster: the cluster clock, and never before log time.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.cluster_us() / 1_000).unwrap_or(0).max(self.log_time_ms())
    }

    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }

    fn steady(&self) -> Duration {
        self.machine.steady()
    }

    fn lease_clock_reading(&self) -> LeaseClockReading {
        self.machine.lease_clock_reading()
    }
}

/// Locks the mutex even if it is poisoned: the transitions leave no half-done state behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use conclave_base::runtime::testing::FixedClock;

    #[test]
    fn before_its_first_look_a_node_is_unsure_and_afterwards_it_runs_on_the_steady_clock() {
        let machine = FixedClock::at(1_800_000_000_000);
        let clock = ClusterClock::new(1, machine.clone());
        assert_eq!((clock.is_sure(), clock.trouble()), (false, Some(ClockTrouble::Unestablished)));
        assert!(clock.stamp().is_err());
        clock.look(&[1]);
        assert_eq!((clock.is_sure(), clock.trouble()), (true, None));
        machine.advance(Duration::from_secs(90));
        assert_eq!(clock.now_ms(), 1_800_000_090_000);
        assert_eq!(clock.stamp(), Ok(1_800_000_090_000));
    }

    #[test]
    fn a_wall_clock_that_leaps_moves_nothing_and_is_named() {
        let machine = FixedClock::at(1_800_000_000_000);
        let clock = ClusterClock::new(1, machine.clone());
        clock.look(&[1, 2]);
        assert_eq!(clock.trouble(), Some(ClockTrouble::Unestablished), "a quorum is two");
        let peer = ClockAnswer { wall: clock.wall_us(), cluster: None };
        clock.clocks().observe(2, peer, clock.steady_us(), clock.steady_us());
        clock.look(&[1, 2]);
        machine.set_wall_ahead(Duration::from_hours(240));
        clock.look(&[1, 2]);
        assert_eq!(clock.now_ms(), 1_800_000_000_000);
        let said = clock.status();
        assert_eq!(said.wall_offset_us, 864_000_000_000);
        assert_eq!(said.standing, "alone", "the peer has not said its cluster clock yet");
    }

    #[test]
    fn troubles_say_what_to_do() {
        let said = ClockTrouble::WallOff(-3_600_000).to_string();
        assert_eq!(
            said,
            "the clock of this machine is 60 min behind the cluster clock; correct it (chrony, systemd-timesyncd)"
        );
        assert!(ClockTrouble::LogAhead(864_000_000).to_string().starts_with("log time is 10 days ahead"));
        assert_eq!([span(6_540), span(3_599_990), span(863_999_000)], ["6.5 s", "60 min", "10 days"]);
    }
}
