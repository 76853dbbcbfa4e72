//! Time and randomness: the only file of the node that requests either from the machine (docs/design/architecture.md).
//!
//! Everything else receives a [`Clock`] or an [`Entropy`] as an argument, so that a test can advance the one and seed
//! the other. Leases are measured by [`Clock::lease_clock_reading`] alone. It reads two clocks: one continues during
//! suspend, and the other is never slewed (docs/design/serve-leases.md).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conclave_lease::LeaseClockReading;
use rustix::time::{ClockId, clock_gettime};

/// The clock and the source of randomness for a request handler. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

impl Runtime {
    /// The machine's own clock and the operating system's randomness.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy) }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

/// A source of time.
pub trait Clock: Send + Sync {
    /// Wall time in milliseconds since 1970-01-01 UTC. May jump either way; never use it to measure.
    fn now_ms(&self) -> u64;

    /// Time since some fixed point of this process. Never goes back; for local waits and throttles only.
    fn monotonic(&self) -> Duration;

    /// Time since some fixed point of this machine, including suspended time. Never goes back and never jumps: the
    /// cluster clock runs on it between two corrections.
    fn steady(&self) -> Duration {
        self.monotonic()
    }

    /// The machine's two clocks for leases, read together.
    fn lease_clock_reading(&self) -> LeaseClockReading;
}

/// A source of randomness: every byte must be fit for a key.
pub trait Entropy: Send + Sync {
    /// Overwrites all of `out`.
    fn fill(&self, out: &mut [u8]);
}

impl dyn Entropy + '_ {
    /// `N` fresh bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock the others are sent to")]
    fn now_ms(&self) -> u64 {
        // A clock before 1970 reads as 0: the leader then refuses to stamp, as for any clock far from its peers'.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn steady(&self) -> Duration {
        read(ClockId::Boottime)
    }

    fn lease_clock_reading(&self) -> LeaseClockReading {
        LeaseClockReading { boot: read(ClockId::Boottime), raw: read(ClockId::MonotonicRaw) }
    }
}

fn read(clock: ClockId) -> Duration {
    let at = clock_gettime(clock);
    // Neither clock is ever before the boot of the machine.
    Duration::new(u64::try_from(at.tv_sec).unwrap_or(0), u32::try_from(at.tv_nsec).unwrap_or(0))
}

/// The operating system's randomness.
#[derive(Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "this is the entropy the others are sent to")]
    #[expect(
        clippy::expect_used,
        reason = "a node without randomness must stop rather than issue guessable keys"
    )]
    fn fill(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("the operating system gives no randomness");
    }
}

/// Test doubles: time that moves only on request, and randomness that repeats.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use sha2::{Digest as _, Sha256};

    use super::{Clock, Entropy, LeaseClockReading, Runtime, SystemClock};

    /// A clock that stands still until [`FixedClock::advance`]. Wall and monotonic time move together.
    #[derive(Debug)]
    pub struct FixedClock {
        start_ms: u64,
        passed_ms: AtomicU64,
        wall_ahead_ms: AtomicU64,
        machine: SystemClock,
    }

    impl FixedClock {
        pub fn at(start_ms: u64) -> Arc<Self> {
            let (passed_ms, wall_ahead_ms) = (AtomicU64::new(0), AtomicU64::new(0));
            Arc::new(Self { start_ms, passed_ms, wall_ahead_ms, machine: SystemClock::new() })
        }

        /// Sets the wall clock alone: it is ahead of the passed time by this much.
        pub fn set_wall_ahead(&self, by: Duration) {
            self.wall_ahead_ms.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }

        pub fn advance(&self, by: Duration) {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            self.passed_ms.fetch_add(by, Ordering::SeqCst);
        }
    }

    impl Clock for FixedClock {
        fn now_ms(&self) -> u64 {
            let ahead = self.wall_ahead_ms.load(Ordering::SeqCst);
            self.start_ms + self.passed_ms.load(Ordering::SeqCst) + ahead
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.passed_ms.load(Ordering::SeqCst))
        }

        /// Leases run in real time: they are renewed in the background, while the test advances hours at once.
        fn lease_clock_reading(&self) -> LeaseClockReading {
            self.machine.lease_clock_reading()
        }
    }

    /// SHA-256 in counter mode: the same seed gives the same bytes for the same sequence of calls.
    #[derive(Debug)]
    pub struct SeededEntropy {
        seed: u64,
        next_block: AtomicU64,
    }

    impl SeededEntropy {
        pub fn new(seed: u64) -> Arc<Self> {
            Arc::new(Self { seed, next_block: AtomicU64::new(0) })
        }
    }

    impl Entropy for SeededEntropy {
        fn fill(&self, out: &mut [u8]) {
            for chunk in out.chunks_mut(32) {
                let block = self.next_block.fetch_add(1, Ordering::SeqCst);
                let input = [self.seed.to_be_bytes(), block.to_be_bytes()].concat();
                let bytes = Sha256::digest(&input);
                for (to, from) in chunk.iter_mut().zip(bytes) {
                    *to = from;
                }
            }
        }
    }

    /// A runtime for tests, together with the clock that controls it.
    pub fn runtime(start_ms: u64, seed: u64) -> (Runtime, Arc<FixedClock>) {
        let clock = FixedClock::at(start_ms);
        (Runtime { clock: clock.clone(), entropy: SeededEntropy::new(seed) }, clock)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::testing::{SeededEntropy, runtime};
    use super::{Clock, Entropy, Runtime, SystemClock};

    #[test]
    fn a_fixed_clock_moves_only_when_told() {
        let (rt, clock) = runtime(1_000, 1);
        assert_eq!((rt.clock.now_ms(), rt.clock.monotonic()), (1_000, Duration::ZERO));
        clock.advance(Duration::from_millis(250));
        assert_eq!((rt.clock.now_ms(), rt.clock.monotonic()), (1_250, Duration::from_millis(250)));
    }

    #[test]
    fn seeded_entropy_repeats_for_a_seed_and_never_within_it() {
        let draw = |seed| {
            let source = SeededEntropy::new(seed);
            let source: &dyn Entropy = source.as_ref();
            (source.bytes::<40>(), source.bytes::<40>())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(draw(7).0, draw(7).1);
    }

    #[test]
    fn the_system_runtime_gives_plausible_time_and_differing_bytes() {
        let rt = Runtime::system();
        assert!(rt.clock.now_ms() > 1_700_000_000_000, "wall time is after 2023");
        assert_ne!(rt.entropy.bytes::<16>(), rt.entropy.bytes::<16>());
        let clock = SystemClock::new();
        assert!(clock.monotonic() <= clock.monotonic());
    }
}
