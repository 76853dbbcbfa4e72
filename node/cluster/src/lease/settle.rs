//! The leader's side: first the table, then the quorum round; and how long a revocation waits.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use conclave_lease::{Barrier, Grant};
use openraft::{ServerState, async_runtime::WatchReceiver as _};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Leases, lock, terms};
use crate::{
    leader::LeaderError,
    rt::{self, WrongGrants},
    types::NodeId,
};

/// The shortest pause between two looks at the table: the clocks of leases and of timers need not agree to the
/// millisecond.
const PAUSE: Duration = Duration::from_millis(2);

/// How long the lead is kept for revocations that wait: a confirmation takes a round trip, and a node that does not
/// give one must not hold up a restart.
const LAST_CONFIRMATIONS: Duration = Duration::from_millis(50);

/// Counts a revocation that waits, while it does.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn one_more(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What passes between a read that is done too early and its record, where a test asks for that mistake.
const BUSY: Duration = Duration::from_millis(100);

/// Whether a revocation holds on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// No check that starts from now on misses it.
    Yes,
    /// Not within the time given.
    NotYet,
}

impl Leases {
    /// Answers a renewal of `node`. The order is the protocol: recorded, and only then a fresh quorum round.
    ///
    /// # Errors
    /// [`LeaderError`].
    pub async fn grant(&self, node: NodeId, process: u64, applied: u64) -> Result<Grant, LeaderError> {
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
        Ok(Grant { index, length: Duration::from_millis(lease_terms.length_ms.into()) })
    }

    /// What a read that starts now must have seen.
    async fn read_now(&self) -> Result<u64, LeaderError> {
        if rt::wrong().grants == WrongGrants::NoQuorum {
            return Ok(self.shared.leader.view().load().index());
        }
        self.shared.leader.read_index().await
    }

    /// Nothing, but where a test asks for the mistake of reading before the record.
    async fn read_too_early(&self) -> Result<Option<u64>, LeaderError> {
        if rt::wrong().grants != WrongGrants::ReadBeforeRecord {
            return Ok(None);
        }
        let read = self.shared.leader.read_index().await?;
        sleep(BUSY).await;
        Ok(Some(read))
    }

    /// `node` has applied everything up to `index`, and its checks see it.
    pub fn confirm(&self, node: NodeId, index: u64) {
        lock(&self.shared.table).confirm(node, index);
        self.shared.news.notify_waiters();
    }

    /// `node` has stopped serving.
    pub fn released(&self, node: NodeId, process: u64) {
        lock(&self.shared.table).release(node, process);
        self.shared.news.notify_waiters();
    }

    /// Waits until the revocation that this node wrote in `term` at `index` holds on every node.
    pub async fn settle(&self, term: u64, index: u64, limit: Duration) -> Settled {
        let _waiting = Waiting::one_more(&self.shared.waiting);
        let deadline = Instant::now() + limit;
        loop {
            let news = self.shared.news.notified();
            tokio::pin!(news);
            // From here on no confirmation is missed.
            news.as_mut().enable();
            let Barrier::Wait { at_most, on } = self.barrier(term, index) else { return Settled::Yes };
            let now = Instant::now();
            if now >= deadline {
                tracing::debug!(raft.index = index, nodes = ?on, "a revocation still waits");
                return Settled::NotYet;
            }
            let look = deadline.min(now + at_most.max(PAUSE));
            tokio::select! {
                () = news => {}
                () = sleep_until(look) => {}
            }
        }
    }

    /// Before the lead is given away (design.md §5): nothing more is granted, and the revocations that wait here may
    /// still be confirmed, which only this node can see. Undone by [`Leases::reopen`] once the transfer is over.
    pub async fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        let deadline = Instant::now() + LAST_CONFIRMATIONS;
        while self.shared.waiting.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Grants again.
    pub fn reopen(&self) {
        self.shared.closing.store(false, Ordering::Release);
    }

    /// The longest that a committed revocation may have to wait: every lease that does not know of it was asked for
    /// before.
    pub fn patience(&self) -> Duration {
        terms(self.shared.leader.view().load().longest_lease_terms()).wait()
    }

    fn barrier(&self, term: u64, index: u64) -> Barrier {
        let state = self.shared.leader.view().load();
        if self.shared.leader.is_alone_since_ever() {
            // Nobody else has ever been granted anything, and this node has applied it.
            return Barrier::Open;
        }
        let mut table = lock(&self.shared.table);
        table.barrier(term, index, terms(state.longest_lease_terms()), self.now())
    }

    /// Notes since when this process leads. Seen late, revocations only wait longer.
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
