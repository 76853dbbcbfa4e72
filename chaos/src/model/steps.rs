//! Everything that can happen next in a world.
#![expect(
    clippy::indexing_slicing,
    reason = "three nodes, numbered by the loops here; a model that panics has failed"
)]

use conclave_lease::{Barrier, LeaseGrant};

use super::{
    bugs::ModelBug,
    world::{Bounds, ModelEntry, ModelNode, ModelWorld, NODES, Renewal},
};

/// Calls `found` with each next world and the name of the step to it.
pub(super) fn next(
    world: &ModelWorld,
    bounds: &Bounds,
    bug: ModelBug,
    found: &mut impl FnMut(&'static str, ModelWorld),
) {
    let step = Steps { world, bounds, bug };
    if world.acknowledged {
        // Nothing more will be acknowledged: only checks and leases still matter.
        step.time(found);
        step.leases(found);
        return;
    }
    step.time(found);
    step.raft(found);
    step.leases(found);
    step.revocation(found);
}

struct Steps<'a> {
    world: &'a ModelWorld,
    bounds: &'a Bounds,
    bug: ModelBug,
}

fn small(index: usize) -> u8 {
    u8::try_from(index).unwrap_or(u8::MAX)
}

impl Steps<'_> {
    fn changed(&self, change: impl FnOnce(&mut ModelWorld)) -> ModelWorld {
        let mut world = self.world.clone();
        change(&mut world);
        world.renewals.sort_unstable();
        world
    }

    fn time(&self, found: &mut impl FnMut(&'static str, ModelWorld)) {
        if self.world.tick < self.bounds.ticks {
            found("tick", self.changed(|w| w.tick += 1));
        }
        if self.world.partings() >= self.bounds.partings {
            return;
        }
        for n in 0..NODES {
            if self.world.tick < self.bounds.ticks {
                found("tick, a node suspended", self.changed(|w| suspend(w, n)));
            }
            found("slew", self.changed(|w| w.slewed[n] += 1));
        }
    }

    fn raft(&self, found: &mut impl FnMut(&'static str, ModelWorld)) {
        let w = self.world;
        for n in 0..NODES {
            if w.restarted < self.bounds.restarts {
                found("restart", self.changed(|w| restart(w, n, self.bug)));
            }
            for other in (0..NODES).filter(|other| *other != n) {
                self.pair(n, other, found);
            }
        }
    }

    fn pair(&self, n: usize, other: usize, found: &mut impl FnMut(&'static str, ModelWorld)) {
        let (node, peer) = (&self.world.nodes[n], &self.world.nodes[other]);
        if self.world.elected < self.bounds.elections && !node.leads && node.last() >= peer.last() {
            found("elect", self.changed(|w| elect(w, n, other)));
        }
        let behind = peer.term < node.term || peer.log != node.log || peer.applied < node.applied;
        if node.leads && peer.term <= node.term && behind {
            found("replicate", self.changed(|w| replicate(w, n, other, self.bounds)));
        }
        let length = node.log.len();
        let own = node.log.last().is_some_and(|entry| entry.term == node.term);
        let held = peer.log.get(..length) == Some(node.log.as_slice());
        if node.leads && own && held && usize::from(node.applied) < length {
            found("commit", self.changed(|w| learn(w, n, small(length), self.bounds)));
        }
    }

    fn leases(&self, found: &mut impl FnMut(&'static str, ModelWorld)) {
        let w = self.world;
        for n in 0..NODES {
            if w.asked < self.bounds.asks {
                found("ask", self.changed(|w| ask(w, n)));
            }
            if w.stopped < self.bounds.farewells {
                found("stop", self.changed(|w| stop(w, n)));
            }
        }
        for (place, (node, process)) in w.farewells.iter().enumerate() {
            for leader in (0..NODES).filter(|leader| w.nodes[*leader].table.led().is_some()) {
                let process = if self.bug.farewell_of_any_process() {
                    w.nodes[usize::from(*node)].process
                } else {
                    *process
                };
                let told = self.changed(|w| {
                    w.farewells.remove(place);
                    w.nodes[leader].table.release(u64::from(*node), process.into());
                });
                found("farewell", told);
            }
        }
        for (place, renewal) in w.renewals.iter().enumerate() {
            self.renewal(place, *renewal, found);
        }
    }

    fn renewal(&self, place: usize, renewal: Renewal, found: &mut impl FnMut(&'static str, ModelWorld)) {
        let w = self.world;
        let replaced = |with: Renewal, change: &dyn Fn(&mut ModelWorld)| {
            self.changed(|w| {
                w.renewals[place] = with;
                change(w);
            })
        };
        match renewal {
            Renewal::Asked { from, process, nonce } => {
                for at in (0..NODES).filter(|at| w.nodes[*at].leads) {
                    if self.bug.reads_before_record() {
                        let index = read_index(&w.nodes[at], self.bug);
                        let read = Renewal::ReadEarly { from, process, nonce, at: small(at), index };
                        found("read too early", replaced(read, &|_| ()));
                        continue;
                    }
                    let recorded = Renewal::Recorded { from, nonce, at: small(at), index: None };
                    found("record", replaced(recorded, &|w| record(w, at, from, process, self.bounds)));
                }
            }
            Renewal::ReadEarly { from, process, nonce, at, index } => {
                let recorded = Renewal::Recorded { from, nonce, at, index: Some(index) };
                found("record", replaced(recorded, &|w| record(w, at.into(), from, process, self.bounds)));
            }
            Renewal::Recorded { from, nonce, at, index } => {
                let leader = &w.nodes[usize::from(at)];
                let index = index.unwrap_or_else(|| read_index(leader, self.bug));
                if leader.leads && self.bug.skips_quorum() {
                    found("grant", replaced(Renewal::Granted { from, nonce, index }, &|_| ()));
                } else if leader.leads {
                    let reading = Renewal::Reading { from, nonce, at, term: leader.term, index };
                    found("begin round", replaced(reading, &|_| ()));
                }
            }
            Renewal::Reading { from, nonce, at, term, index } => {
                let leader = usize::from(at);
                if !w.nodes[leader].leads || w.nodes[leader].term != term {
                    return;
                }
                for peer in (0..NODES).filter(|p| *p != leader && w.nodes[*p].term <= term) {
                    let granted = Renewal::Granted { from, nonce, index };
                    found("end round", replaced(granted, &|w| follow(&mut w.nodes[peer], term)));
                }
            }
            Renewal::Granted { from, nonce, index } => {
                if let Some(world) = self.granted(place, from.into(), nonce, index) {
                    found("granted", world);
                }
            }
        }
    }

    /// The reply is accepted, or dropped because it matches no request. None while the node has not applied its index:
    /// that is equivalent to a slower network.
    fn granted(&self, place: usize, n: usize, nonce: u8, index: u8) -> Option<ModelWorld> {
        let now = self.world.now(n);
        let mut world = self.changed(|w| {
            w.renewals.remove(place);
        });
        let node = &mut world.nodes[n];
        let grant = LeaseGrant { index: index.into(), length: self.bounds.terms().length };
        if let Some(pending) = node.holder.granted(nonce.into(), grant, now) {
            node.holder.activate(pending, node.applied.into())?;
        }
        Some(world)
    }

    fn revocation(&self, found: &mut impl FnMut(&'static str, ModelWorld)) {
        let w = self.world;
        for (n, node) in w.nodes.iter().enumerate() {
            if node.leads && w.written < self.bounds.writes {
                found("write", self.changed(|w| write(w, n)));
            }
            // A node that has known of the commit for as long as a lease can last may acknowledge without contacting
            // any other.
            let now = w.now(n);
            let wait = self.bug.core().wait(self.bounds.terms());
            if node.knows_since.is_some_and(|since| now.least_since(since) >= wait) {
                found("acknowledge by patience", self.changed(|w| w.acknowledged = true));
            }
            for (place, entry) in node.log.iter().enumerate().take(node.applied.into()) {
                let mine = entry.process == node.process_name(n);
                if entry.revokes && (mine || self.bug.acks_outside_term()) {
                    self.acknowledge(n, entry.term, place + 1, found);
                }
            }
        }
    }

    /// Confirmations state what stays true and open only barriers: all that may have arrived are assumed to have
    /// arrived here. A slower one is equivalent to a later acknowledgement.
    fn acknowledge(
        &self,
        n: usize,
        term: u8,
        index: usize,
        found: &mut impl FnMut(&'static str, ModelWorld),
    ) {
        let now = self.world.now(n);
        let mut table = self.world.nodes[n].table.clone();
        for (peer, node) in self.world.nodes.iter().enumerate() {
            table.confirm(peer as u64, node.ever_applied.into());
        }
        if table.barrier(term.into(), index as u64, self.bounds.terms(), now) == Barrier::Open {
            found("acknowledge", self.changed(|w| w.acknowledged = true));
        }
    }
}

impl ModelNode {
    /// A number that distinguishes the processes of all nodes.
    fn process_name(&self, n: usize) -> u8 {
        small(n) * 8 + self.process
    }
}

/// Commits and applies in one step: a node that knows of a commit and has not applied it yet is equivalent to one that
/// does not know of it yet.
fn learn(w: &mut ModelWorld, n: usize, commit: u8, bounds: &Bounds) {
    let now = w.now(n);
    let node = &mut w.nodes[n];
    node.applied = node.applied.max(commit);
    node.ever_applied = node.ever_applied.max(node.applied);
    if bounds.patience && node.has_seen_revocation() {
        node.knows_since.get_or_insert(now);
    }
}

/// Restarts a node: everything in memory is lost; the log and the term stay. The state is rebuilt from what a leader
/// confirms again.
fn restart(w: &mut ModelWorld, n: usize, bug: ModelBug) {
    w.restarted += 1;
    let node = &mut w.nodes[n];
    node.process += 1;
    node.leads = false;
    node.knows_since = None;
    node.applied = 1;
    node.table = conclave_lease::Table::with(bug.core());
    node.holder = conclave_lease::Holder::with(bug.core());
    w.renewals.retain(|renewal| match renewal {
        Renewal::Recorded { at, .. } | Renewal::Reading { at, .. } | Renewal::ReadEarly { at, .. } => {
            usize::from(*at) != n
        }
        Renewal::Asked { .. } | Renewal::Granted { .. } => true,
    });
}

fn suspend(w: &mut ModelWorld, n: usize) {
    w.tick += 1;
    w.asleep[n] += 1;
}

fn elect(w: &mut ModelWorld, n: usize, voter: usize) {
    w.elected += 1;
    let term = w.nodes[n].term.max(w.nodes[voter].term) + 1;
    follow(&mut w.nodes[voter], term);
    let now = w.now(n);
    let node = &mut w.nodes[n];
    let process = node.process_name(n);
    node.term = term;
    node.leads = true;
    node.table.lead(term.into(), now);
    node.log.push(ModelEntry { term, revokes: false, process });
}

fn follow(node: &mut ModelNode, term: u8) {
    if node.term < term {
        node.term = term;
        node.leads = false;
    }
}

fn replicate(w: &mut ModelWorld, leader: usize, to: usize, bounds: &Bounds) {
    let (term, log, commit) = (w.nodes[leader].term, w.nodes[leader].log.clone(), w.nodes[leader].applied);
    follow(&mut w.nodes[to], term);
    w.nodes[to].log = log;
    learn(w, to, commit, bounds);
}

fn write(w: &mut ModelWorld, n: usize) {
    w.written += 1;
    let process = w.nodes[n].process_name(n);
    let term = w.nodes[n].term;
    w.nodes[n].log.push(ModelEntry { term, revokes: true, process });
}

fn ask(w: &mut ModelWorld, n: usize) {
    w.asked += 1;
    let (nonce, now) = (w.asked, w.now(n));
    w.nodes[n].holder.ask(nonce.into(), now);
    let process = w.nodes[n].process;
    w.renewals.push(Renewal::Asked { from: small(n), process, nonce });
}

fn record(w: &mut ModelWorld, at: usize, from: u8, process: u8, bounds: &Bounds) {
    let now = w.now(at);
    w.nodes[at].table.record(from.into(), process.into(), bounds.terms(), now);
}

/// ReadIndex: the commit index, and at least the leader's own first entry (Raft §6.4).
fn read_index(leader: &ModelNode, bug: ModelBug) -> u8 {
    let own =
        leader.log.iter().position(|entry| entry.term == leader.term).map_or(0, |place| small(place + 1));
    if bug.reads_below_own_entry() { leader.applied } else { leader.applied.max(own) }
}

fn stop(w: &mut ModelWorld, n: usize) {
    w.stopped += 1;
    w.nodes[n].holder.stop();
    let process = w.nodes[n].process;
    w.farewells.push((small(n), process));
}
