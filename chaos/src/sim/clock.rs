//! The clocks of one machine: they drift, the wall clock is set, and a suspended machine does not notice all of the
//! time that has passed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use conclave_base::runtime::Clock;
use conclave_lease::LeaseClockReading;

/// The start time of histories.
const START_MS: i64 = 1_800_000_000_000;

/// The time since the simulation began; zero outside a host.
pub(super) fn true_time() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The clocks of one machine.
#[derive(Debug)]
pub(super) struct MachineClocks {
    /// The true time at this machine's last reading, in microseconds: its threads outside the simulation see no later
    /// one.
    seen: AtomicU64,
    /// Clock drift in parts per million, positive or negative.
    drift_ppm: i64,
    /// The time for which it was suspended, in microseconds.
    suspended: AtomicU64,
    /// The error of the wall clock, in milliseconds.
    wall_off: AtomicI64,
}

impl MachineClocks {
    pub(super) fn new(drift_ppm: i64) -> Arc<Self> {
        let (seen, suspended, wall_off) = (AtomicU64::new(0), AtomicU64::new(0), AtomicI64::new(0));
        Arc::new(Self { seen, drift_ppm, suspended, wall_off })
    }

    /// Suspends the machine: one of its clocks continues, the other one stops.
    pub(super) fn suspend(&self, time: Duration) {
        self.suspended.fetch_add(micros(time), Ordering::Relaxed);
    }

    /// Sets the wall clock.
    pub(super) fn set_wall(&self, off_ms: i64) {
        self.wall_off.store(off_ms, Ordering::Relaxed);
    }

    fn micros(&self) -> u64 {
        let now = micros(true_time());
        let truth = self.seen.fetch_max(now, Ordering::Relaxed).max(now);
        truth.saturating_add_signed(i64::try_from(truth).unwrap_or(0) * self.drift_ppm / 1_000_000)
    }
}

impl Clock for MachineClocks {
    fn now_ms(&self) -> u64 {
        let now = i64::try_from(self.micros() / 1_000).unwrap_or(0);
        u64::try_from(START_MS + now + self.wall_off.load(Ordering::Relaxed)).unwrap_or(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.micros())
    }

    fn lease_clock_reading(&self) -> LeaseClockReading {
        let raw = self.micros();
        let suspended = self.suspended.load(Ordering::Relaxed);
        LeaseClockReading { boot: Duration::from_micros(raw + suspended), raw: Duration::from_micros(raw) }
    }
}
