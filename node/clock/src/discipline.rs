//! The estimate of the cluster clock on one node, and the rules by which it follows the clocks of a quorum.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    AGREE, ClockAnswer, ClockChange, ClockVerdict, FRESH, HOLD, Micros, NodeId, RECONCILE, SECOND,
    SLEW_PER_SECOND, Standing, WALL_BOUND,
    quorum::{agreed, median},
    reading::Reading,
};

/// The cluster clock as an offset to the own steady clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Estimate {
    offset: Micros,
    steps: u64,
}

/// A different time on which a quorum of wall clocks agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PendingStep {
    target: Micros,
    since: Micros,
}

/// One node's view of all clocks. It is kept in memory only: a process that restarts queries its peers first.
#[derive(Clone, Debug, Default)]
pub struct Discipline {
    node: NodeId,
    own_wall: Micros,
    readings: BTreeMap<NodeId, Reading>,
    /// Peers of a version without the cluster clock: they are neither counted nor vote.
    silent: BTreeSet<NodeId>,
    estimate: Option<Estimate>,
    pending: Option<PendingStep>,
    looked_at: Micros,
}

impl Discipline {
    /// The clocks of `node`, before any was read.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self { node, ..Self::default() }
    }

    /// Records the reply of a peer. `sent` and `received` are by this node's steady clock.
    pub fn observe(&mut self, peer: NodeId, answer: ClockAnswer, sent: Micros, received: Micros) {
        self.silent.remove(&peer);
        let Some(reading) = Reading::of(answer, sent, received) else { return };
        match self.readings.get(&peer) {
            Some(before) if !reading.replaces(before) => {}
            _ => drop(self.readings.insert(peer, reading)),
        }
    }

    /// Records that this peer's version does not support the query.
    pub fn cannot_tell(&mut self, peer: NodeId) {
        self.readings.remove(&peer);
        self.silent.insert(peer);
    }

    /// The cluster clock at the steady time `now`, if there is an estimate.
    #[must_use]
    pub fn cluster_at(&self, now: Micros) -> Option<Micros> {
        self.estimate.map(|estimate| now.saturating_add(estimate.offset))
    }

    /// The number of steps of the cluster clock.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.estimate.map_or(0, |estimate| estimate.steps)
    }

    /// A peer's wall clock minus the cluster clock, by its last reply.
    #[must_use]
    pub fn wall_offset_of(&self, peer: NodeId) -> Option<Micros> {
        Some(self.readings.get(&peer)?.wall.saturating_sub(self.estimate?.offset))
    }

    /// Evaluates all clocks: makes or moves the estimate. `voters` are the members whose clocks are counted.
    pub fn look(&mut self, now: Micros, own_wall: Micros, voters: &[NodeId]) -> ClockVerdict {
        let passed = now.saturating_sub(self.looked_at).clamp(0, FRESH);
        self.looked_at = now;
        self.own_wall = own_wall.saturating_sub(now);
        self.readings.retain(|_, reading| now.saturating_sub(reading.received) <= FRESH);
        let round = Round::of(self, voters);
        let change = match self.estimate {
            None => self.establish(&round),
            Some(_) => self
                .follow_step(&round)
                .or_else(|| self.rejoin(&round))
                .or_else(|| self.reconcile(&round))
                .or_else(|| self.correct(&round, now, passed)),
        };
        self.verdict(&Round::of(self, voters), change)
    }

    /// Makes the first estimate: the others' if there is one, because a running cluster knows better than the wall
    /// clocks; otherwise the time of a quorum of wall clocks.
    fn establish(&mut self, round: &Round) -> Option<ClockChange> {
        let newest = round.clusters.iter().map(|cluster| cluster.steps).max();
        let running = newest.and_then(|steps| {
            let offset =
                middle(round.clusters.iter().filter(|cluster| cluster.steps == steps).map(|c| c.offset))?;
            Some(Estimate { offset, steps })
        });
        let by_walls =
            || Some(Estimate { offset: agreed(round.walls.clone(), round.quorum, RECONCILE)?, steps: 1 });
        self.estimate = Some(running.or_else(by_walls)?);
        Some(ClockChange::Established)
    }

    /// Follows a peer that has stepped, if a quorum has stepped, or if the wall clocks agree with it.
    fn follow_step(&mut self, round: &Round) -> Option<ClockChange> {
        let own = self.estimate?;
        let steps =
            round.clusters.iter().map(|cluster| cluster.steps).max().filter(|steps| *steps > own.steps)?;
        let ahead: Vec<Micros> =
            round.clusters.iter().filter(|cluster| cluster.steps == steps).map(|c| c.offset).collect();
        let count = ahead.len();
        let offset = middle(ahead)?;
        let walls = agreed(round.walls.clone(), round.quorum, WALL_BOUND);
        let is_plausible = walls.is_some_and(|walls| (walls - offset).abs() <= WALL_BOUND);
        if count < round.quorum && !is_plausible {
            return None;
        }
        self.pending = None;
        self.estimate = Some(Estimate { offset, steps });
        Some(ClockChange::Stepped(offset - own.offset))
    }

    /// Adopts the estimate of a quorum of the others that agrees, but not with this node: its steady clock was not
    /// steady.
    fn rejoin(&mut self, round: &Round) -> Option<ClockChange> {
        let own = self.estimate?;
        let others = round.clusters.iter().filter(|cluster| cluster.steps == own.steps);
        let theirs = agreed(others.clone().map(|cluster| cluster.offset).collect(), round.quorum, AGREE)?;
        let error = others.map(|cluster| cluster.error).max().unwrap_or(0);
        if (theirs - own.offset).abs() <= AGREE.saturating_add(error) {
            return None;
        }
        self.pending = None;
        self.estimate = Some(Estimate { offset: theirs, ..own });
        Some(ClockChange::Rejoined(theirs - own.offset))
    }

    /// Reconciles the estimates if a quorum was heard but no quorum agrees: steady clocks drifted apart while their
    /// nodes were partitioned. All nodes adopt the same time at once: the time of the wall clocks if those agree,
    /// otherwise the median of the estimates. Nothing is adopted if they are so far apart that one of them must be
    /// wrong.
    fn reconcile(&mut self, round: &Round) -> Option<ClockChange> {
        let own = self.estimate?;
        if round.agreeing_with(own) >= round.quorum {
            return None;
        }
        let mut estimates: Vec<Micros> =
            round.clusters.iter().filter(|cluster| cluster.steps == own.steps).map(|c| c.offset).collect();
        estimates.extend(round.is_voter.then_some(own.offset));
        let middle = agreed(estimates, round.quorum, RECONCILE)?;
        let walls = agreed(round.walls.clone(), round.quorum, AGREE);
        let offset = walls.filter(|walls| (walls - middle).abs() <= RECONCILE).unwrap_or(middle);
        self.pending = None;
        self.estimate = Some(Estimate { offset, ..own });
        Some(ClockChange::Reconciled(offset - own.offset))
    }

    /// Slews toward the time of the clocks; steps after a large difference has lasted.
    fn correct(&mut self, round: &Round, now: Micros, passed: Micros) -> Option<ClockChange> {
        let own = self.estimate?;
        let walls = agreed(round.walls.clone(), round.quorum, AGREE);
        let Some(target) = walls.filter(|target| (target - own.offset).abs() > AGREE) else {
            self.pending = None;
            let target = walls.or_else(|| self.without_walls(round, own))?;
            let most = SLEW_PER_SECOND.saturating_mul(passed) / SECOND;
            let offset = own.offset + (target - own.offset).clamp(-most, most);
            self.estimate = Some(Estimate { offset, ..own });
            return None;
        };
        let pending = self
            .pending
            .filter(|pending| (pending.target - target).abs() <= AGREE)
            .unwrap_or(PendingStep { target, since: now });
        self.pending = Some(pending);
        if now.saturating_sub(pending.since) < HOLD {
            return None;
        }
        self.pending = None;
        self.estimate = Some(Estimate { offset: target, steps: own.steps.saturating_add(1) });
        Some(ClockChange::Stepped(target - own.offset))
    }

    /// The target while the wall clocks do not agree: the median of the estimates, so that they do not drift apart; on
    /// a node that hears of no estimates, its own wall clock, as long as it did not jump.
    fn without_walls(&self, round: &Round, own: Estimate) -> Option<Micros> {
        let mut estimates: Vec<Micros> =
            round.clusters.iter().filter(|cluster| cluster.steps == own.steps).map(|c| c.offset).collect();
        if estimates.is_empty() {
            return ((self.own_wall - own.offset).abs() <= AGREE).then_some(self.own_wall);
        }
        estimates.push(own.offset);
        middle(estimates)
    }

    fn verdict(&self, round: &Round, change: Option<ClockChange>) -> ClockVerdict {
        let Some(own) = self.estimate else {
            let standing = Standing::Unestablished;
            return ClockVerdict { standing, wall_offset: 0, is_wall_off: false, pending_step: None, change };
        };
        let agrees = round.agreeing_with(own) >= round.quorum;
        let standing = if agrees { Standing::Agreed } else { Standing::Alone };
        let wall_offset = self.own_wall.saturating_sub(own.offset);
        let is_wall_off = wall_offset.abs() > WALL_BOUND && self.pending.is_none();
        let pending_step = self.pending.map(|pending| pending.target - own.offset);
        ClockVerdict { standing, wall_offset, is_wall_off, pending_step, change }
    }
}

/// A peer's estimate.
struct PeerCluster {
    offset: Micros,
    steps: u64,
    error: Micros,
}

/// The clocks of all voters at one evaluation.
struct Round {
    quorum: usize,
    is_voter: bool,
    walls: Vec<Micros>,
    clusters: Vec<PeerCluster>,
}

impl Round {
    /// The number of voters whose estimates are known to be within [`AGREE`] of this one, this node included.
    fn agreeing_with(&self, own: Estimate) -> usize {
        let agrees = |cluster: &&PeerCluster| {
            let difference = (cluster.offset - own.offset).abs();
            cluster.steps == own.steps && difference <= AGREE.saturating_add(cluster.error)
        };
        self.clusters.iter().filter(agrees).count() + usize::from(self.is_voter)
    }

    fn of(clocks: &Discipline, voters: &[NodeId]) -> Self {
        let able = voters.iter().filter(|voter| !clocks.silent.contains(voter)).count();
        let is_voter = voters.contains(&clocks.node);
        let peers = || {
            let others = voters.iter().filter(|voter| **voter != clocks.node);
            others.filter_map(|voter| clocks.readings.get(voter))
        };
        let mut walls: Vec<Micros> = peers().map(|reading| reading.wall).collect();
        walls.extend(is_voter.then_some(clocks.own_wall));
        let clusters = peers()
            .filter_map(|reading| {
                let (offset, steps) = reading.cluster?;
                Some(PeerCluster { offset, steps, error: reading.error })
            })
            .collect();
        Self { quorum: able / 2 + 1, is_voter, walls, clusters }
    }
}

fn middle(values: impl IntoIterator<Item = Micros>) -> Option<Micros> {
    let mut values: Vec<Micros> = values.into_iter().collect();
    values.sort_unstable();
    median(&values)
}
