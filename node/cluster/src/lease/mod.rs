//! Serve leases on this node: the protocol of `conclave-lease` on this machine's clocks and network
//! (docs/design/serve-leases.md).
//!
//! | file | owns |
//! |---|---|
//! | this | the shared part: this node's own lease, and the table it keeps while it leads |
//! | `renew` | requesting the lease, confirming applied revocations to the leader, releasing the lease |
//! | `barrier` | the leader's side: grants, and the time until which a revocation waits |
//!
//! Every lease lives in memory only. A lease never decides which users are let in; it decides if this node may answer
//! checks without contacting the leader.

mod barrier;
mod renew;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use conclave_lease::{Holder, Lease, LeaseClockReading, LeaseTiming, Table};
use conclave_state::{State, system::LeaseTerms};
use tokio::sync::Notify;

use conclave_base::runtime::Runtime;

use super::{leader::Leader, peers::Peers, read, rt, types::NodeId};

pub(crate) use barrier::BarrierResult;

/// The way checks are decided: under a lease, or each confirmed by a quorum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckMode {
    /// Under a serve lease: no network hop.
    #[default]
    Lease,
    /// Each check asks the leader, and the leader asks a quorum. No clock is trusted, and each check costs a round trip
    /// or two.
    Quorum,
}

/// This node's part in the lease protocol. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Leases {
    shared: Arc<Shared>,
}

struct Shared {
    leader: Leader,
    peers: Arc<Peers>,
    runtime: Runtime,
    checks: CheckMode,
    /// Distinguishes this process of the node from earlier ones.
    process: u64,
    holder: Mutex<Holder>,
    /// The lease that the holder has in force, for checks: one load, no lock.
    in_force: ArcSwapOption<Lease>,
    table: Mutex<Table>,
    /// Notified when a node confirms an index or releases its lease.
    news: Notify,
    /// True while this node transfers the lead: it grants nothing.
    closing: AtomicBool,
    /// The number of revocations that wait here.
    waiting: AtomicUsize,
}

/// Locks the mutex even if it is poisoned: the core's transitions leave no half-done state behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn terms(terms: LeaseTerms) -> LeaseTiming {
    LeaseTiming {
        length: Duration::from_millis(terms.length_ms.into()),
        margin_permille: terms.margin_permille,
    }
}

impl Leases {
    pub(crate) fn new(leader: Leader, peers: Arc<Peers>, runtime: Runtime, checks: CheckMode) -> Self {
        let process = u64::from_be_bytes(runtime.entropy.bytes());
        let shared = Shared {
            leader,
            peers,
            runtime,
            checks,
            process,
            holder: Mutex::new(Holder::with(rt::injected_faults().leases)),
            in_force: ArcSwapOption::empty(),
            table: Mutex::new(Table::with(rt::injected_faults().leases)),
            news: Notify::new(),
            closing: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the tasks that run beside Raft. Must be called inside the consensus runtime.
    pub(crate) fn start(&self) {
        tokio::spawn(self.clone().follow_leadership());
        tokio::spawn(self.clone().keep_confirming());
        match self.shared.checks {
            CheckMode::Lease => drop(tokio::spawn(self.clone().keep_renewing())),
            CheckMode::Quorum => {
                let (leader, peers) = (self.shared.leader.clone(), Arc::clone(&self.shared.peers));
                drop(tokio::spawn(read::keep_knowing(leader, peers, self.clone())));
            }
        }
    }

    /// True if a decision on this version may be accepted without contacting another node.
    pub(crate) fn covers(&self, state: &State) -> bool {
        self.shared.checks == CheckMode::Lease
            && self
                .shared
                .in_force
                .load()
                .as_ref()
                .is_some_and(|lease| lease.covers(self.now(), state.index()))
    }

    /// True if this node was covered at some moment within the last `limit`. For applications that prefer an answer
    /// from the state known then to no answer.
    pub(crate) fn covered_within(&self, limit: Duration, state: &State) -> bool {
        self.shared.in_force.load().as_ref().is_some_and(|lease| {
            state.index() >= lease.min_index && self.now().most_since(lease.since) < limit.max(lease.length)
        })
    }

    /// For nodes without leases: records that at `asked` a quorum knew nothing beyond `index`, and that this node has
    /// seen it. It only allows this node to answer from the state known then.
    pub(crate) fn note_confirmed(&self, asked: LeaseClockReading, index: u64) {
        self.shared.in_force.store(Some(Arc::new(Lease::lapsed(asked, index))));
    }

    /// The pause between two renewals.
    pub(crate) fn renewal_period(&self) -> Duration {
        let length = self.shared.leader.view().load().lease_terms().length_ms;
        Duration::from_millis(length.into()) / renew::RENEWALS
    }

    /// The time for which this node's own lease still covers checks.
    pub(crate) fn left(&self) -> Duration {
        let lease = self.shared.in_force.load();
        lease.as_ref().map_or(Duration::ZERO, |l| l.length.saturating_sub(self.now().most_since(l.since)))
    }

    /// True if this node can decide checks: it holds a lease, or needs none.
    pub(crate) fn can_serve(&self) -> bool {
        self.shared.checks == CheckMode::Quorum || self.left() > Duration::ZERO
    }

    /// The nodes that may hold a lease granted by this process, and for how much longer.
    pub(crate) fn holders(&self) -> Vec<(NodeId, Duration)> {
        lock(&self.shared.table).holders(self.now()).filter(|(_, left)| *left > Duration::ZERO).collect()
    }

    /// This machine's two clocks.
    pub(crate) fn now(&self) -> LeaseClockReading {
        self.shared.runtime.clock.lease_clock_reading()
    }

    fn node(&self) -> NodeId {
        self.shared.peers.identity.node
    }
}
