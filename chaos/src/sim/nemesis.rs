//! The faults of one history, each with its end: chosen by the seed, made between two steps of the simulation.

use std::{sync::Arc, time::Duration};

use turmoil::Sim;

use super::{
    disk::{self, Disk},
    node::ip,
    traffic,
    world::{NODES, OperatorCommand, SimWorld},
};
use crate::{
    promise::{Broken, Promise},
    random::Random,
};

/// Longest pause before the next fault.
const PAUSE_MS: u64 = 900;
/// Longest time that a fault lasts.
const LASTS_MS: u64 = 2_500;
/// Longest time that a machine is suspended.
const SUSPENDED_MS: u64 = 5_000;
/// The largest error to which a wall clock is set, either way.
const WALL_MS: u64 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Crash,
    CrashOfTwo,
    CrashOfAll,
    Isolation,
    OneWay,
    /// One link only: both ends still reach the third node.
    Bridge,
    /// Nothing arrives for a while, and then everything: as if the process were stopped.
    Held,
    SlowNetwork,
    SlowDisk,
    FailingDisk,
    Suspension,
    WallClock,
    Snapshot,
    StopInOrder,
}

const FAULTS: [Fault; 14] = [
    Fault::Crash,
    Fault::CrashOfTwo,
    Fault::CrashOfAll,
    Fault::Isolation,
    Fault::OneWay,
    Fault::Bridge,
    Fault::Held,
    Fault::SlowNetwork,
    Fault::SlowDisk,
    Fault::FailingDisk,
    Fault::Suspension,
    Fault::WallClock,
    Fault::Snapshot,
    Fault::StopInOrder,
];

/// The reasons for which a process may end by itself.
const EXPECTED: [&str; 2] = [traffic::STOPPED_IN_ORDER, disk::FAILED];

/// The end of a fault, and its time.
struct Cure {
    at: Duration,
    what: Ending,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Start(u64),
    Heal,
    Release,
    FastNetwork,
    FastDisk(u64),
}

/// Every link.
fn pairs() -> impl Iterator<Item = (String, String)> {
    (1..=NODES).map(|node| (ip(node), ip(1 + node % NODES)))
}

pub(super) struct Nemesis {
    world: Arc<SimWorld>,
    random: Random,
    /// A history has some kinds of faults and not others: rare combinations occur sooner than if each history had all
    /// of them.
    kinds: Vec<Fault>,
    next: Duration,
    cures: Vec<Cure>,
    down: Vec<u64>,
    /// The number of faults.
    pub made: u64,
    /// Processes that ended by themselves without a request.
    pub unexpected: Vec<Broken>,
}

impl Nemesis {
    pub(super) fn new(world: &Arc<SimWorld>) -> Self {
        let mut random = Random::new(world.seed ^ 0x6e65_6d65_7369_7300);
        let mut kinds: Vec<Fault> = FAULTS.into_iter().filter(|_| random.percent(40)).collect();
        if kinds.is_empty() {
            kinds.push(Fault::Crash);
        }
        let next = Duration::from_millis(1_000 + random.below(PAUSE_MS));
        Self {
            world: Arc::clone(world),
            random,
            kinds,
            next,
            cures: Vec::new(),
            down: Vec::new(),
            made: 0,
            unexpected: Vec::new(),
        }
    }

    /// Carries out everything that is due by now.
    pub(super) fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        self.cure(sim, now);
        if now >= self.next {
            self.next = now + Duration::from_millis(self.random.below(PAUSE_MS));
            if let Some(fault) = self.random.pick(&self.kinds).copied() {
                self.made += 1;
                self.begin(sim, now, fault);
            }
        }
    }

    /// Ends the faults that are due. A process that has ended by itself is restarted, as by a supervisor.
    pub(super) fn cure(&mut self, sim: &mut Sim<'_>, now: Duration) {
        for (node, reason) in self.world.take_ended() {
            if !EXPECTED.iter().any(|known| reason.contains(known)) {
                let how = format!("node {node} ended by itself: {reason}");
                self.unexpected.push(Promise::RunsOn.broken(how));
            }
            self.crash(sim, now, node);
        }
        let (due, later): (Vec<Cure>, Vec<Cure>) =
            std::mem::take(&mut self.cures).into_iter().partition(|cure| cure.at <= now);
        self.cures = later;
        for cure in due {
            self.end(sim, cure.what);
        }
    }

    /// Ends all faults and makes no more.
    pub(super) fn heal(&mut self, sim: &mut Sim<'_>) {
        for cure in std::mem::take(&mut self.cures) {
            self.end(sim, cure.what);
        }
        self.end(sim, Ending::Heal);
    }

    fn begin(&mut self, sim: &mut Sim<'_>, now: Duration, fault: Fault) {
        let victim = 1 + self.random.below(NODES);
        let other = 1 + victim % NODES;
        let third = 1 + other % NODES;
        let lasts = now + Duration::from_millis(self.random.below(LASTS_MS));
        match fault {
            Fault::Crash => self.crash(sim, now, victim),
            Fault::CrashOfTwo => [victim, other].into_iter().for_each(|node| self.crash(sim, now, node)),
            Fault::CrashOfAll => (1..=NODES).for_each(|node| self.crash(sim, now, node)),
            Fault::Isolation => {
                sim.partition(ip(victim), ip(other));
                sim.partition(ip(victim), ip(third));
                self.until(lasts, Ending::Heal);
            }
            Fault::OneWay => {
                sim.partition_oneway(ip(victim), ip(other));
                if self.random.percent(50) {
                    sim.partition_oneway(ip(victim), ip(third));
                }
                self.until(lasts, Ending::Heal);
            }
            Fault::Bridge => {
                sim.partition(ip(victim), ip(other));
                self.until(lasts, Ending::Heal);
            }
            Fault::Held => {
                sim.hold(ip(victim), ip(other));
                sim.hold(ip(victim), ip(third));
                self.until(lasts, Ending::Release);
            }
            Fault::SlowNetwork => {
                sim.set_max_message_latency(Duration::from_millis(1 + self.random.below(120)));
                self.until(lasts, Ending::FastNetwork);
            }
            Fault::SlowDisk => {
                self.disk(victim, |disk| disk.slow(true));
                self.until(lasts, Ending::FastDisk(victim));
            }
            Fault::FailingDisk => self.disk(victim, Disk::fail),
            Fault::Suspension => {
                let time = Duration::from_millis(self.random.below(SUSPENDED_MS));
                if let Some(machine) = self.world.machine(victim) {
                    machine.clock.suspend(time);
                }
            }
            Fault::WallClock => {
                let off = i64::try_from(self.random.below(2 * WALL_MS)).unwrap_or(0) - 20_000;
                if let Some(machine) = self.world.machine(victim) {
                    machine.clock.set_wall(off);
                }
            }
            Fault::Snapshot => self.world.give_command(victim, OperatorCommand::Compact),
            Fault::StopInOrder => self.world.give_command(victim, OperatorCommand::Stop),
        }
    }

    fn end(&mut self, sim: &mut Sim<'_>, what: Ending) {
        match what {
            Ending::Start(node) => {
                self.down.retain(|down| *down != node);
                sim.bounce(ip(node));
            }
            Ending::Heal => Self::repair_all(sim),
            Ending::Release => pairs().for_each(|(one, other)| sim.release(one, other)),
            Ending::FastNetwork => sim.set_max_message_latency(super::USUAL_LATENCY),
            Ending::FastDisk(node) => self.disk(node, |disk| disk.slow(false)),
        }
    }

    /// Ends every partition.
    pub(super) fn repair_all(sim: &Sim<'_>) {
        pairs().for_each(|(one, other)| sim.repair(one, other));
    }

    fn crash(&mut self, sim: &mut Sim<'_>, now: Duration, node: u64) {
        if self.down.contains(&node) {
            return;
        }
        self.down.push(node);
        self.world.forget(node);
        sim.crash(ip(node));
        self.disk(node, Disk::crash);
        let back = now + Duration::from_millis(20 + self.random.below(LASTS_MS));
        self.until(back, Ending::Start(node));
    }

    fn disk(&self, node: u64, act: impl FnOnce(&Disk)) {
        if let Some(machine) = self.world.machine(node) {
            act(&machine.disk);
        }
    }

    fn until(&mut self, at: Duration, what: Ending) {
        self.cures.push(Cure { at, what });
    }
}
