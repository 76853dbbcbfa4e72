//! One seed, one history: three replicas of one log, and everything that may happen to them.
//!
//! Raft itself is not included: the log is its result. The effects that a log still sees are included: replicas at
//! different speeds, crashes and restarts from a snapshot with a replay, snapshots installed from another replica,
//! proposals that are repeated through the same or another leader, and leaders whose clocks differ, so that stamps run
//! back.

mod history;
pub mod log;
pub mod mutation;
mod replica;

use mutation::ReplicaMutation;

use self::{history::RulesHistory, log::ReplicatedLog, replica::Replica};
use crate::{
    oracle::{Oracle, Violation},
    random::Random,
};

/// Replicas of a cluster.
const REPLICAS: usize = 3;
/// Events of one history. A few hundred produce several snapshots, restarts and leaders.
const EVENTS: usize = 250;
/// Most entries that a follower applies at once.
const MAX_BATCH: u64 = 12;
/// The largest difference between a leader's clock and the true time, either way.
const MAX_SKEW_MS: u64 = 3_000;
/// The start time of histories.
const START_MS: u64 = 1_800_000_000_000;

/// Counts of a history, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries in the log.
    pub entries: u64,
    /// Entries applied, over all replicas.
    pub applied: u64,
    /// Repeated requests.
    pub repeats: u64,
    /// Crashes, each followed by a restart.
    pub restarts: u64,
    /// Snapshots installed from another replica.
    pub installs: u64,
    /// Leader changes.
    pub leaders: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.entries += more.entries;
        self.applied += more.applied;
        self.repeats += more.repeats;
        self.restarts += more.restarts;
        self.installs += more.installs;
        self.leaders += more.leaders;
    }
}

/// Runs the history of this seed.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, mutation: ReplicaMutation, oracle: Oracle) -> Result<Counts, Violation> {
    let mut world = World::new(seed, mutation, oracle);
    world.seed_state()?;
    for _ in 0..EVENTS {
        world.event()?;
    }
    world.heal()?;
    Ok(world.counts)
}

struct World {
    random: Random,
    oracle: Oracle,
    history: RulesHistory,
    log: ReplicatedLog,
    replicas: Vec<Replica>,
    leader: usize,
    /// The true time, and the difference of each replica's clock to the slowest possible one.
    now_ms: u64,
    skews_ms: Vec<u64>,
    counts: Counts,
}

impl World {
    fn new(seed: u64, mutation: ReplicaMutation, oracle: Oracle) -> Self {
        let mut random = Random::new(seed);
        let skews_ms = (0..REPLICAS).map(|_| random.below(2 * MAX_SKEW_MS)).collect();
        Self {
            random,
            oracle,
            history: RulesHistory::default(),
            log: ReplicatedLog::default(),
            replicas: (0..REPLICAS).map(|id| Replica::new(id, mutation)).collect(),
            leader: 0,
            now_ms: START_MS,
            skews_ms,
            counts: Counts::default(),
        }
    }

    fn seed_state(&mut self) -> Result<(), Violation> {
        history::seed_commands().into_iter().try_for_each(|body| self.propose(body))
    }

    fn event(&mut self) -> Result<(), Violation> {
        self.now_ms += self.random.pause_ms();
        let who = self.random.index(REPLICAS);
        match self.random.below(100) {
            0..55 => self.propose_next(),
            55..65 => self.propose_again(),
            65..82 => self.follow(who),
            82..88 => self.each(who, |replica, _, _| {
                replica.take_snapshot();
                Ok(0)
            }),
            88..92 => self.restart(who),
            92..96 => self.install(who),
            _ => self.change_leader(who),
        }
    }

    fn propose_next(&mut self) -> Result<(), Violation> {
        let body = match self.replicas.get(self.leader) {
            Some(leader) => self.history.next(&mut self.random, leader.state()),
            None => return Ok(()),
        };
        self.propose(body)
    }

    fn propose(&mut self, body: conclave_proto::command::v1::command::Body) -> Result<(), Violation> {
        let request = self.random.id();
        self.log.append(self.stamp(), request, body);
        self.answer()
    }

    /// Repeats a request whose reply was lost, through the present leader and with its clock.
    fn propose_again(&mut self) -> Result<(), Violation> {
        let stamp = self.stamp();
        let Some(first) = self.history.retry(&mut self.random, stamp) else { return Ok(()) };
        self.log.append_again(stamp, &first);
        self.counts.repeats += 1;
        self.answer()
    }

    /// The leader applies what is committed; its reply goes to the caller.
    fn answer(&mut self) -> Result<(), Violation> {
        self.counts.entries += 1;
        self.each(self.leader, |replica, log, oracle| replica.apply(log, u64::MAX, oracle))?;
        let answered = self.replicas.get(self.leader).and_then(|leader| {
            let command = self.log.last()?.command.as_ref()?;
            Some((command, leader.last_reply()?, leader.state().meta().clock))
        });
        if let Some((command, reply, clock)) = answered {
            self.history.learn(command, reply, clock);
        }
        Ok(())
    }

    fn follow(&mut self, who: usize) -> Result<(), Violation> {
        let most = 1 + self.random.below(MAX_BATCH);
        self.each(who, |replica, log, oracle| replica.apply(log, most, oracle))
    }

    fn restart(&mut self, who: usize) -> Result<(), Violation> {
        self.counts.restarts += 1;
        self.each(who, |replica, _, oracle| replica.restart(oracle).map(|()| 0))
    }

    /// A replica that is behind installs the newest snapshot instead of applying the entries.
    fn install(&mut self, who: usize) -> Result<(), Violation> {
        let newest = self.replicas.iter().filter_map(Replica::snapshot).max_by_key(|snapshot| snapshot.index);
        let Some(snapshot) = newest else { return Ok(()) };
        let behind = self.replicas.get(who).is_some_and(|replica| replica.state().index() < snapshot.index);
        if !behind {
            return Ok(());
        }
        self.counts.installs += 1;
        self.each(who, |replica, _, oracle| replica.install(snapshot, oracle).map(|()| 0))
    }

    fn change_leader(&mut self, who: usize) -> Result<(), Violation> {
        self.leader = who;
        self.counts.leaders += 1;
        self.log.append_blank();
        self.counts.entries += 1;
        self.each(who, |replica, log, oracle| replica.apply(log, u64::MAX, oracle))
    }

    /// The faults are over: every replica restarts once more and catches up.
    fn heal(&mut self) -> Result<(), Violation> {
        (0..REPLICAS).try_for_each(|who| {
            self.restart(who)?;
            self.each(who, |replica, log, oracle| replica.apply(log, u64::MAX, oracle))
        })
    }

    fn each(
        &mut self,
        who: usize,
        act: impl FnOnce(&mut Replica, &ReplicatedLog, &mut Oracle) -> Result<u64, Violation>,
    ) -> Result<(), Violation> {
        let Some(replica) = self.replicas.get_mut(who) else { return Ok(()) };
        self.counts.applied += act(replica, &self.log, &mut self.oracle)?;
        Ok(())
    }

    /// The leader's clock.
    fn stamp(&self) -> u64 {
        let skew = self.skews_ms.get(self.leader).copied().unwrap_or_default();
        (self.now_ms + skew).saturating_sub(MAX_SKEW_MS)
    }
}
