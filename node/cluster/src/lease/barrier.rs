//! The leader's side of leases: first the table, then the quorum round; and the barrier of a revocation.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use conclave_lease::{Barrier, LeaseGrant};
use openraft::{ServerState, async_runtime::WatchReceiver as _};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Leases, lock, terms};
use crate::{
    leader::LeaderError,
    rt::{self, GrantFault},
    types::NodeId,
};

/// The shortest pause between two reads of the table: the clocks of leases and of timers need not agree to the
/// millisecond.
const PAUSE: Duration = Duration::from_millis(2);

/// The time for which a leader transfer waits for pending revocations. A confirmation takes a round trip, and a node
/// that gives none must not delay a restart.
const LAST_CONFIRMATIONS: Duration = Duration::from_millis(50);

/// Counts a revocation while it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn add(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The delay between a read that is done too early and its record, when a test injects that fault.
const BUSY: Duration = Duration::from_millis(100);

/// The result of a revocation barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarrierResult {
    /// The revocation holds on every node: no check that starts from now on misses it.
    Reached,
    /// The barrier was not reached within the time limit.
    TimedOut,
}

impl Leases {
    /// Answers a renewal of `node`. The order is part of the protocol: record the grant first, and only then do a fresh
    /// quorum round.
    ///
    /// # Errors
    /// [`LeaderError`].
    pub(crate) async fn grant(
        &self,
        node: NodeId,
        process: u64,
        applied: u64,
    ) -> Result<LeaseGrant, LeaderError> {
        if !self.shared.leader.is_leader() || self.shared.closing.load(Ordering::Acquire) {
            return Err(LeaderError::NotLeader(self.shared.leader.leader_id()));
        }
        let lease_terms = self.shared.leader.view().load().lease_terms();
        let too_early = self.read_too_early().await?;
        lock(&self.shared.table).record(node, process, terms(lease_terms), self.now());
        self.confirm(node, applied);
        let index = match too_early {
            Some(index) => index,
            None => self.read_now().await?,
        };
        Ok(LeaseGrant { index, length: Duration::from_millis(lease_terms.length_ms.into()) })
    }

    /// The index that a read which starts now must have seen.
    async fn read_now(&self) -> Result<u64, LeaderError> {
        if rt::injected_faults().grants == GrantFault::NoQuorum {
            return Ok(self.shared.leader.view().load().index());
        }
        self.shared.leader.read_index().await
    }

    /// Returns `None`, unless a test injects the fault of reading before the record.
    async fn read_too_early(&self) -> Result<Option<u64>, LeaderError> {
        if rt::injected_faults().grants != GrantFault::ReadBeforeRecord {
            return Ok(None);
        }
        let read = self.shared.leader.read_index().await?;
        sleep(BUSY).await;
        Ok(Some(read))
    }

    /// Records that `node` has applied everything up to `index`, and that its checks see it.
    pub(crate) fn confirm(&self, node: NodeId, index: u64) {
        lock(&self.shared.table).confirm(node, index);
        self.shared.news.notify_waiters();
    }

    /// Records that `node` has stopped serving.
    pub(crate) fn released(&self, node: NodeId, process: u64) {
        lock(&self.shared.table).release(node, process);
        self.shared.news.notify_waiters();
    }

    /// Waits until the revocation that this node wrote in `term` at `index` holds on every node.
    pub(crate) async fn await_barrier(&self, term: u64, index: u64, limit: Duration) -> BarrierResult {
        let _waiting = Waiting::add(&self.shared.waiting);
        let deadline = Instant::now() + limit;
        loop {
            let news = self.shared.news.notified();
            tokio::pin!(news);
            // From here on no confirmation is missed.
            news.as_mut().enable();
            let Barrier::Wait { at_most, on } = self.barrier(term, index) else {
                return BarrierResult::Reached;
            };
            let now = Instant::now();
            if now >= deadline {
                tracing::debug!(raft.index = index, nodes = ?on, "a revocation still waits");
                return BarrierResult::TimedOut;
            }
            let look = deadline.min(now + at_most.max(PAUSE));
            tokio::select! {
                () = news => {}
                () = sleep_until(look) => {}
            }
        }
    }

    /// Prepares a leader transfer (docs/design/consensus.md): no more leases are granted, and pending revocations may
    /// still be confirmed, which only this node can see. [`Leases::reopen`] undoes it once the transfer has ended.
    pub(crate) async fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        let deadline = Instant::now() + LAST_CONFIRMATIONS;
        while self.shared.waiting.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Allows grants again.
    pub(crate) fn reopen(&self) {
        self.shared.closing.store(false, Ordering::Release);
    }

    /// The longest that a committed revocation may have to wait. Every lease that does not reflect it was requested
    /// before.
    pub(crate) fn longest_wait(&self) -> Duration {
        terms(self.shared.leader.view().load().longest_lease_terms()).wait()
    }

    fn barrier(&self, term: u64, index: u64) -> Barrier {
        let state = self.shared.leader.view().load();
        if self.shared.leader.is_alone_since_ever() {
            // No other node has ever been granted a lease, and this node has applied the revocation.
            return Barrier::Open;
        }
        let mut table = lock(&self.shared.table);
        table.barrier(term, index, terms(state.longest_lease_terms()), self.now())
    }

    /// Records the time since when this process leads. If the change is noticed late, revocations only wait longer.
    pub(super) async fn follow_leadership(self) {
        let mut metrics = self.shared.leader.raft().metrics();
        loop {
            let (leads, term) = {
                let seen = metrics.borrow_watched();
                (seen.state == ServerState::Leader, seen.current_term)
            };
            let members = self.shared.leader.members();
            {
                let mut table = lock(&self.shared.table);
                if leads {
                    table.lead(term, self.now());
                }
                table.keep(|node| members.iter().any(|(id, _)| *id == node));
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }
}
