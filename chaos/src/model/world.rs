//! A state of the modelled world, and its invariant.

use std::time::Duration;

use conclave_lease::{Holder, LeaseClockReading, LeaseTiming, Table};

use super::bugs::ModelBug;

pub(super) const NODES: usize = 3;

/// The bounds of a search.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Ticks of real time.
    pub ticks: u8,
    /// Length of a lease, in ticks of a true clock.
    pub length: u8,
    /// Elections after the first.
    pub elections: u8,
    /// Renewals requested by all nodes together.
    pub asks: u8,
    /// Restarts of single nodes.
    pub restarts: u8,
    /// Number of times that the revocation is written: the first, and its retries.
    pub writes: u8,
    /// Nodes that stop gracefully and release their lease.
    pub farewells: u8,
    /// True if waiting alone may acknowledge.
    pub patience: bool,
    /// True if clocks run at different speeds.
    pub drift: bool,
    /// Number of times that a machine's two clocks diverge: it is suspended for a tick, or the clock that may be slewed
    /// gains one.
    pub partings: u8,
}

/// The bounds that are searched: each exhausted in less than half a minute, the cheap ones first. Together they combine
/// every event of the protocol with every other that matters to it.
pub const BOUNDS: &[(&str, Bounds)] = &[
    ("an election", BASE),
    ("clocks apart", Bounds { elections: 0, partings: 2, ..BASE }),
    ("a restart", Bounds { elections: 0, restarts: 1, ..BASE }),
    ("drifting clocks", Bounds { elections: 0, length: 2, drift: true, ..BASE }),
    (
        "a farewell, a restart and two renewals",
        Bounds { ticks: 0, elections: 0, restarts: 1, asks: 2, farewells: 1, ..BASE },
    ),
    ("patience across an election", Bounds { patience: true, ..BASE }),
    ("patience and drifting clocks", Bounds { elections: 0, length: 2, drift: true, patience: true, ..BASE }),
    ("an election and a retried write", Bounds { ticks: 2, writes: 2, ..BASE }),
    ("an election and a restart", Bounds { ticks: 2, restarts: 1, ..BASE }),
    ("an election and drifting clocks", Bounds { ticks: 2, drift: true, ..BASE }),
    ("an election and clocks apart", Bounds { ticks: 2, partings: 1, ..BASE }),
    ("an election and two renewals", Bounds { ticks: 1, asks: 2, ..BASE }),
];

/// Bounds that take minutes and gigabytes: for a release build with time.
pub const WIDE_BOUNDS: &[(&str, Bounds)] = &[
    ("an election, longer leases", Bounds { ticks: 4, length: 2, ..BASE }),
    ("an election and drifting clocks, longer", Bounds { drift: true, ..BASE }),
    ("an election and clocks apart, longer", Bounds { partings: 2, ..BASE }),
    ("an election and two renewals, longer", Bounds { ticks: 2, asks: 2, ..BASE }),
    ("two renewals and a restart", Bounds { elections: 0, restarts: 1, asks: 2, ..BASE }),
    ("an election and a restart, longer", Bounds { restarts: 1, ..BASE }),
];

const BASE: Bounds = Bounds {
    ticks: 3,
    length: 1,
    elections: 1,
    asks: 1,
    restarts: 0,
    writes: 1,
    farewells: 0,
    patience: false,
    drift: false,
    partings: 0,
};

/// An entry of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelEntry {
    pub term: u8,
    /// True for the revocation, false for a leader's first entry.
    pub revokes: bool,
    /// The process that wrote it and waits for it.
    pub process: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelNode {
    pub term: u8,
    pub log: Vec<ModelEntry>,
    /// The highest index known to be committed, and applied.
    pub applied: u8,
    /// The highest index that any process of this node ever reported as applied: a late confirmation may still report
    /// it.
    pub ever_applied: u8,
    /// The time at which this process first knew of a committed revocation.
    pub knows_since: Option<LeaseClockReading>,
    pub leads: bool,
    pub process: u8,
    pub table: Table,
    pub holder: Holder,
}

/// A renewal in transit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Renewal {
    Asked {
        from: u8,
        process: u8,
        nonce: u8,
    },
    /// The leader `at` has recorded it; `index` only if it was, wrongly, read before that.
    Recorded {
        from: u8,
        nonce: u8,
        at: u8,
        index: Option<u8>,
    },
    /// The round has begun, for this index.
    Reading {
        from: u8,
        nonce: u8,
        at: u8,
        term: u8,
        index: u8,
    },
    Granted {
        from: u8,
        nonce: u8,
        index: u8,
    },
    /// Read before the record, wrongly.
    ReadEarly {
        from: u8,
        process: u8,
        nonce: u8,
        at: u8,
        index: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelWorld {
    pub tick: u8,
    pub rates: [u8; NODES],
    /// Ticks that each node's `raw` clock has missed: it was suspended.
    pub asleep: [u8; NODES],
    /// Ticks that each node's `boot` clock has gained: it was slewed.
    pub slewed: [u8; NODES],
    pub nodes: [ModelNode; NODES],
    pub renewals: Vec<Renewal>,
    /// Releases in transit: node and process.
    pub farewells: Vec<(u8, u8)>,
    pub asked: u8,
    pub elected: u8,
    pub restarted: u8,
    pub written: u8,
    pub stopped: u8,
    pub acknowledged: bool,
}

/// Ticks for which the first leader has led when the search begins: longer than any lease.
const BEFORE: u64 = 100;
/// Units of a true clock in a tick.
const UNITS: u64 = 10;
/// The fastest clock gains a tenth, the slowest loses one: 11/9 lies within the margin.
const MARGIN_PERMILLE: u32 = 250;

impl Bounds {
    pub fn terms(&self) -> LeaseTiming {
        LeaseTiming { length: units(u64::from(self.length) * UNITS), margin_permille: MARGIN_PERMILLE }
    }

    fn rates(&self) -> &'static [[u8; NODES]] {
        if self.drift { &[[11, 9, 10], [9, 11, 9], [10, 9, 11], [11, 11, 9]] } else { &[[10, 10, 10]] }
    }

    /// The start of the search: node 0 leads, everything is replicated, no node holds a lease.
    pub fn beginnings(&self, bug: ModelBug) -> Vec<ModelWorld> {
        let first = ModelEntry { term: 1, revokes: false, process: 0 };
        let node = |leads: bool| {
            let mut table = Table::with(bug.core());
            if leads {
                table.lead(1, LeaseClockReading::default());
            }
            ModelNode {
                term: 1,
                log: vec![first],
                applied: 1,
                ever_applied: 1,
                knows_since: None,
                leads,
                process: 0,
                table,
                holder: Holder::with(bug.core()),
            }
        };
        let world = |rates: &[u8; NODES]| ModelWorld {
            tick: 0,
            rates: *rates,
            asleep: [0; NODES],
            slewed: [0; NODES],
            nodes: [node(true), node(false), node(false)],
            renewals: Vec::new(),
            farewells: Vec::new(),
            asked: 0,
            elected: 0,
            restarted: 0,
            written: 0,
            stopped: 0,
            acknowledged: false,
        };
        self.rates().iter().map(world).collect()
    }
}

fn units(units: u64) -> Duration {
    Duration::from_millis(units)
}

impl ModelWorld {
    /// The clock readings of node `n`: the time that has passed is between what the one and the other clock measure.
    #[expect(clippy::indexing_slicing, reason = "nodes are numbered by the loops of the model")]
    pub fn now(&self, n: usize) -> LeaseClockReading {
        let rate = u64::from(self.rates[n]);
        let ticks = BEFORE + u64::from(self.tick);
        let boot = units((ticks + u64::from(self.slewed[n])) * rate);
        let raw = units((ticks - u64::from(self.asleep[n])) * rate);
        LeaseClockReading { boot, raw }
    }

    /// The number of times that clocks have diverged.
    pub fn partings(&self) -> u8 {
        self.asleep.iter().chain(&self.slewed).sum()
    }

    /// The promise: after the acknowledgement no node accepts on a state without the revocation.
    pub fn holds(&self) -> bool {
        !self.acknowledged
            || self.nodes.iter().enumerate().all(|(n, node)| {
                let covered = node.holder.lease().is_some_and(|l| l.covers(self.now(n), node.applied.into()));
                !covered || node.has_seen_revocation()
            })
    }
}

impl ModelNode {
    pub fn last(&self) -> (u8, usize) {
        (self.log.last().map_or(0, |entry| entry.term), self.log.len())
    }

    pub fn has_seen_revocation(&self) -> bool {
        self.log.iter().take(self.applied.into()).any(|entry| entry.revokes)
    }
}
