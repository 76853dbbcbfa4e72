//! Serve leases on this node: the protocol of `conclave-lease` with this machine's clocks and wire (design.md §6).
//!
//! | file | owns |
//! |---|---|
//! | this | what is shared: this node's own lease, and the table it keeps while it leads |
//! | `renew` | asking for the lease, telling the leader what was applied, the farewell |
//! | `settle` | the leader's side: grants, and until when a revocation waits |
//!
//! Every lease lives in memory alone. It never decides who may be let in; it decides whether this node may say so by
//! itself.

mod renew;
mod settle;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use conclave_lease::{Holder, Lease, Moment, Table, Terms};
use conclave_state::{State, system::LeaseTerms};
use tokio::sync::Notify;

use conclave_base::runtime::Runtime;

use super::{leader::Leader, peers::Peers, read, rt, types::NodeId};

pub use settle::Settled;

/// Whether checks are decided under a lease, or each is confirmed by a quorum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checks {
    /// Under a serve lease: no network hop.
    #[default]
    Lease,
    /// Each asks the leader, who asks a quorum: no clock is trusted, and each check costs a round trip or two.
    Quorum,
}

/// This node's part in the leases. Cheap to clone.
#[derive(Clone)]
pub struct Leases {
    shared: Arc<Shared>,
}

struct Shared {
    leader: Leader,
    peers: Arc<Peers>,
    runtime: Runtime,
    checks: Checks,
    /// Tells this process of the node from an earlier one.
    process: u64,
    holder: Mutex<Holder>,
    /// What the holder has in force, for checks: one load, no lock.
    in_force: ArcSwapOption<Lease>,
    table: Mutex<Table>,
    /// A node has confirmed, or said farewell.
    news: Notify,
    /// While this node gives its lead away it grants nothing.
    closing: AtomicBool,
    /// Revocations that wait here.
    waiting: AtomicUsize,
}

/// A poisoned lock: the core's transitions leave no half-done state behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn terms(terms: LeaseTerms) -> Terms {
    Terms { length: Duration::from_millis(terms.length_ms.into()), margin_permille: terms.margin_permille }
}

impl Leases {
    pub fn new(leader: Leader, peers: Arc<Peers>, runtime: Runtime, checks: Checks) -> Self {
        let process = u64::from_be_bytes(runtime.entropy.bytes());
        let shared = Shared {
            leader,
            peers,
            runtime,
            checks,
            process,
            holder: Mutex::new(Holder::with(rt::wrong().leases)),
            in_force: ArcSwapOption::empty(),
            table: Mutex::new(Table::with(rt::wrong().leases)),
            news: Notify::new(),
            closing: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts what runs beside Raft. Must be called inside the consensus runtime.
    pub fn start(&self) {
        tokio::spawn(self.clone().follow_leadership());
        tokio::spawn(self.clone().keep_confirming());
        match self.shared.checks {
            Checks::Lease => drop(tokio::spawn(self.clone().keep_renewing())),
            Checks::Quorum => {
                let (leader, peers) = (self.shared.leader.clone(), Arc::clone(&self.shared.peers));
                drop(tokio::spawn(read::keep_knowing(leader, peers, self.clone())));
            }
        }
    }

    /// Whether what is decided on this version may be accepted without asking anybody.
    pub fn covers(&self, state: &State) -> bool {
        self.shared.checks == Checks::Lease
            && self
                .shared
                .in_force
                .load()
                .as_ref()
                .is_some_and(|lease| lease.covers(self.now(), state.index()))
    }

    /// Whether this node was covered at some moment within the last `limit`: for applications that would rather be
    /// served from what was known then than not at all.
    pub fn covered_within(&self, limit: Duration, state: &State) -> bool {
        self.shared.in_force.load().as_ref().is_some_and(|lease| {
            state.index() >= lease.min_index && self.now().most_since(lease.since) < limit.max(lease.length)
        })
    }

    /// Without leases: at `asked` a quorum knew nothing beyond `index`, and this node has seen it. It entitles to
    /// nothing but to say what was known.
    pub fn note_confirmed(&self, asked: Moment, index: u64) {
        self.shared.in_force.store(Some(Arc::new(Lease::lapsed(asked, index))));
    }

    /// The pause between two renewals.
    pub fn renewal_period(&self) -> Duration {
        let length = self.shared.leader.view().load().lease_terms().length_ms;
        Duration::from_millis(length.into()) / renew::RENEWALS
    }

    /// How long this node's own lease still covers checks.
    pub fn left(&self) -> Duration {
        let lease = self.shared.in_force.load();
        lease.as_ref().map_or(Duration::ZERO, |l| l.length.saturating_sub(self.now().most_since(l.since)))
    }

    /// Whether this node can decide checks: it holds a lease, or needs none.
    pub fn can_serve(&self) -> bool {
        self.shared.checks == Checks::Quorum || self.left() > Duration::ZERO
    }

    /// Who may hold a lease granted by this process, and for how much longer.
    pub fn holders(&self) -> Vec<(NodeId, Duration)> {
        lock(&self.shared.table).holders(self.now()).filter(|(_, left)| *left > Duration::ZERO).collect()
    }

    /// This machine's two clocks.
    pub fn now(&self) -> Moment {
        self.shared.runtime.clock.lease_moment()
    }

    fn node(&self) -> NodeId {
        self.shared.peers.identity.node
    }
}
