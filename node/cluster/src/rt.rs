//! The runtime that openraft runs on: tokio's, and chance for its election timeouts, which a simulator may seed.

use std::{convert::Infallible, future::Future, time::Duration};

use conclave_lease::Mutation;
use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::TokioRuntime;
use rand::{TryRng, rngs::ThreadRng};

/// [`TokioRuntime`] but for its dice.
#[derive(Debug)]
pub struct Rt(TokioRuntime);

impl AsyncRuntime for Rt {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Dice;
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

    fn thread_rng() -> Dice {
        Dice(rand::rng())
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

/// Runs what may wait for a disk, or take long, on a thread of its own; in a simulation here and now, for a thread
/// would be chance.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    #[cfg(any(test, feature = "testing"))]
    if seeded::is_seeded() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// How far a background thread steps back: about a tenth of a processor while others want it, all of one that is idle.
const GIVE_WAY: i32 = 10;

/// The same for what takes seconds of a processor, such as a snapshot: on a thread that gives way to those who answer
/// people.
pub async fn background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    #[cfg(any(test, feature = "testing"))]
    if seeded::is_seeded() {
        return Ok(work());
    }
    let (out, done) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("background".into()).spawn(move || {
        // Where it cannot be had the work is done all the same.
        let _ = rustix::process::nice(GIVE_WAY);
        // Whoever waited may be gone.
        let _ = out.send(work());
    })?;
    done.await.map_err(|_| std::io::Error::other("the work in the background panicked"))
}

/// Chance for timeouts, not for keys: the thread's own, or the seed's.
pub struct Dice(ThreadRng);

impl TryRng for Dice {
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
pub use seeded::{do_wrong, seed};

/// What nodes do wrong on purpose, so that a simulation can show that it would see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// In the cores of their leases.
    pub leases: Mutation,
    /// In what a leader does for a grant.
    pub grants: WrongGrants,
    /// A wiped disk is taken for the member whose number it gives.
    pub reuses_numbers: bool,
}

/// Ways for a leader to get the index of a grant wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WrongGrants {
    /// None.
    #[default]
    None,
    /// Read before the node is recorded, by as much as a busy machine lets pass between the two.
    ReadBeforeRecord,
    /// The leader's own applied index, without asking a quorum.
    NoQuorum,
    /// Read under openraft's own leader lease.
    LeaseRead,
}

/// Nothing, but in a simulation that asks for it.
pub fn wrong() -> Wrong {
    #[cfg(any(test, feature = "testing"))]
    return seeded::wrong();
    #[cfg(not(any(test, feature = "testing")))]
    Wrong { leases: Mutation::None, grants: WrongGrants::None, reuses_numbers: false }
}

#[cfg(any(test, feature = "testing"))]
mod seeded {
    use std::cell::{Cell, RefCell};

    use rand::{RngExt, SeedableRng as _, rngs::SmallRng};

    use super::Wrong;

    thread_local! {
        static WRONG: Cell<Option<Wrong>> = const { Cell::new(None) };
        static DICE: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
    }

    /// From now on Raft's timeouts on this thread follow from `seed`.
    pub fn seed(seed: u64) {
        DICE.with_borrow_mut(|dice| *dice = Some(SmallRng::seed_from_u64(seed)));
    }

    /// From now on the nodes on this thread do this wrong.
    pub fn do_wrong(wrong: Wrong) {
        WRONG.set(Some(wrong));
    }

    pub(super) fn wrong() -> Wrong {
        WRONG.get().unwrap_or_default()
    }

    /// Whether this thread simulates.
    pub(super) fn is_seeded() -> bool {
        DICE.with_borrow(Option::is_some)
    }

    pub(super) fn draw() -> Option<u64> {
        DICE.with_borrow_mut(|dice| dice.as_mut().map(RngExt::random))
    }
}
