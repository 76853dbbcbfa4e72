//! The runtime that openraft runs on: tokio's, with randomness for its election timeouts that a simulator may seed.

use std::{convert::Infallible, future::Future, time::Duration};

use conclave_lease::LeaseMutation;
use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::TokioRuntime;
use rand::{TryRng, rngs::ThreadRng};

/// [`TokioRuntime`] with its own random number generator.
#[derive(Debug)]
pub struct Rt(TokioRuntime);

impl AsyncRuntime for Rt {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Rng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn thread_rng() -> Rng {
        Rng(rand::rng())
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

/// Runs work that may wait for a disk, or take long, on a thread of its own. In a simulation it runs at once on this
/// thread, because threads would not be deterministic.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    #[cfg(any(test, feature = "testing"))]
    if seeded::is_seeded() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// The niceness of a background thread: it gets about a tenth of a busy processor, and all of an idle one.
const GIVE_WAY: i32 = 10;

/// Like [`blocking`], for work that takes seconds of a processor, such as a snapshot: on a thread with a lower priority
/// than those that answer users.
pub(crate) async fn background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    #[cfg(any(test, feature = "testing"))]
    if seeded::is_seeded() {
        return Ok(work());
    }
    let (out, done) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("background".into()).spawn(move || {
        // If the priority cannot be lowered, the work is done anyway.
        let _ = rustix::process::nice(GIVE_WAY);
        // The caller may be gone.
        let _ = out.send(work());
    })?;
    done.await.map_err(|_| std::io::Error::other("the work in the background panicked"))
}

/// Randomness for timeouts, not for keys: the thread's own, or from the seed.
pub struct Rng(ThreadRng);

impl TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        #[cfg(any(test, feature = "testing"))]
        if let Some(drawn) = seeded::draw() {
            return Ok((drawn >> 32) as u32);
        }
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        #[cfg(any(test, feature = "testing"))]
        if let Some(drawn) = seeded::draw() {
            return Ok(drawn);
        }
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for chunk in out.chunks_mut(8) {
            let drawn = self.try_next_u64()?.to_le_bytes();
            chunk.iter_mut().zip(drawn).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

#[cfg(any(test, feature = "testing"))]
pub use seeded::{inject, seed};

/// Faults that nodes make on purpose, so that a simulation can prove that it detects them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultInjection {
    /// Faults in the cores of their leases.
    pub leases: LeaseMutation,
    /// Faults in a leader's handling of a grant.
    pub grants: GrantFault,
    /// If true, a node with a wiped disk is taken for the member whose number it claims.
    pub reuses_numbers: bool,
}

/// Faults in a leader's determination of the index of a grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GrantFault {
    /// No fault.
    #[default]
    None,
    /// Reads before the node is recorded, with as much delay as a busy machine may cause between the two.
    ReadBeforeRecord,
    /// Uses the leader's own applied index, without asking a quorum.
    NoQuorum,
    /// Reads under openraft's own leader lease.
    LeaseRead,
}

/// The injected faults: none, except in a simulation that sets them.
pub(crate) fn injected_faults() -> FaultInjection {
    #[cfg(any(test, feature = "testing"))]
    return seeded::injected_faults();
    #[cfg(not(any(test, feature = "testing")))]
    FaultInjection { leases: LeaseMutation::None, grants: GrantFault::None, reuses_numbers: false }
}

#[cfg(any(test, feature = "testing"))]
mod seeded {
    use std::cell::{Cell, RefCell};

    use rand::{RngExt, SeedableRng as _, rngs::SmallRng};

    use super::FaultInjection;

    thread_local! {
        static FAULTS: Cell<Option<FaultInjection>> = const { Cell::new(None) };
        static DICE: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
    }

    /// Derives Raft's timeouts on this thread from `seed` from now on.
    pub fn seed(seed: u64) {
        DICE.with_borrow_mut(|dice| *dice = Some(SmallRng::seed_from_u64(seed)));
    }

    /// Injects these faults into the nodes on this thread from now on.
    pub fn inject(faults: FaultInjection) {
        FAULTS.set(Some(faults));
    }

    pub(super) fn injected_faults() -> FaultInjection {
        FAULTS.get().unwrap_or_default()
    }

    /// True if this thread simulates.
    pub(super) fn is_seeded() -> bool {
        DICE.with_borrow(Option::is_some)
    }

    pub(super) fn draw() -> Option<u64> {
        DICE.with_borrow_mut(|dice| dice.as_mut().map(RngExt::random))
    }
}
