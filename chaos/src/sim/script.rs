//! Histories that follow a plan: staged situations in which a known bug must show. The seed decides the delays and the
//! role of each node.

use std::{fmt, sync::Arc, time::Duration};

use conclave_cluster::Cluster;
use turmoil::Sim;

use super::{
    USUAL_LATENCY, judge,
    nemesis::Nemesis,
    node::ip,
    world::{OperatorCommand, ScriptStage, SimWorld, nodes},
};
use crate::random::Random;

/// The plan of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SimPlan {
    /// Faults chosen by the seed.
    #[default]
    Storm,
    /// A leader that renews leases is partitioned by something that answers for it, so that the others elect at once,
    /// and revoke.
    Deposed,
    /// A node that was partitioned until its lease expired reconnects, slow to apply, just when a session is revoked.
    Returned,
    /// One of the two nodes that have a write loses its disk and starts again under its node id, while the other one is
    /// down.
    Reborn,
    /// Right after a write is acknowledged, every machine loses power; several times.
    PowerLost,
}

impl SimPlan {
    /// Each of them by name.
    pub const ALL: &[(&str, Self)] = &[
        ("storm", Self::Storm),
        ("deposed", Self::Deposed),
        ("returned", Self::Returned),
        ("reborn", Self::Reborn),
        ("power-lost", Self::PowerLost),
    ];

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, plan)| *plan)
    }
}

impl fmt::Display for SimPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, plan)| plan == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

/// Longer than any lease lasts and any leader waits, by the slowest clock.
const OUTLIVES_LEASES: Duration = Duration::from_secs(3);
/// The renewal interval of 400 ms: a plan begins at any point between two renewals.
const RENEWAL_MS: u64 = 400;
/// The time between the end of a partition and a revocation: the node requests a lease within a renewal's pause and a
/// connection.
const SOON_MS: u64 = 120;
/// The number of power losses.
const POWER_CUTS: u32 = 6;
/// The time for which checks continue after the acknowledgement: longer than a faulty lease may last.
const AFTERWARDS: Duration = Duration::from_millis(400);
/// Longest wait for a condition of the plan; a revocation takes 2.2 s.
const LIMIT: Duration = Duration::from_secs(10);

/// Carries out the plan.
///
/// # Errors
/// The end of the simulation, or a situation that does not arise.
pub(super) fn play(plan: SimPlan, sim: &mut Sim<'_>, world: &Arc<SimWorld>) -> turmoil::Result {
    let random = Random::new(world.seed ^ 0x706c_616e);
    let mut stage = Play { sim, world, random, ordered: 0 };
    let leader = stage.begin()?;
    match plan {
        SimPlan::Storm => {}
        SimPlan::Deposed => stage.deposed(leader)?,
        SimPlan::Returned => stage.returned(leader)?,
        SimPlan::Reborn => return stage.reborn(leader),
        SimPlan::PowerLost => stage.power_lost()?,
    }
    stage.end()
}

struct Play<'a, 'b> {
    sim: &'a mut Sim<'b>,
    world: &'a Arc<SimWorld>,
    random: Random,
    /// The number of commands so far.
    ordered: u64,
}

impl Play<'_, '_> {
    /// Starts the plan: a client is signed in, every node knows it, and nothing else happens. Returns the leader.
    fn begin(&mut self) -> turmoil::Result<u64> {
        self.all_are_there()?;
        self.carry_out(1, OperatorCommand::SignIn)?;
        self.until("the same everywhere", judge::agree)?;
        let jitter = Duration::from_millis(self.random.below(RENEWAL_MS));
        self.pass(OUTLIVES_LEASES + jitter)?;
        leader_of(self.world, &nodes().collect::<Vec<_>>()).ok_or_else(|| "no leader".into())
    }

    fn deposed(&mut self, leader: u64) -> turmoil::Result {
        let others = others(leader);
        self.cut_off(leader);
        self.world.answer_for(Some(leader));
        for other in &others {
            self.cluster(*other)?.suspect(leader);
        }
        let others_lead = others.clone();
        self.until("another leader", move |world| leader_of(world, &others_lead).is_some())?;
        let next = leader_of(self.world, &others).ok_or("no leader")?;
        self.carry_out(next, OperatorCommand::Revoke)?;
        self.pass(AFTERWARDS)?;
        self.world.answer_for(None);
        self.heal();
        Ok(())
    }

    fn returned(&mut self, leader: u64) -> turmoil::Result {
        let late = *self.random.pick(&others(leader)).ok_or("no other node")?;
        self.cut_off(late);
        self.pass(OUTLIVES_LEASES)?;
        self.cluster(late)?.hold_back(true);
        self.heal();
        let soon = Duration::from_millis(self.random.below(SOON_MS));
        self.pass(soon)?;
        self.carry_out(leader, OperatorCommand::Revoke)?;
        self.pass(AFTERWARDS)?;
        self.cluster(late)?.hold_back(false);
        Ok(())
    }

    fn reborn(&mut self, leader: u64) -> turmoil::Result {
        let (wiped, unknowing) = match others(leader).as_slice() {
            [one, other] if self.random.percent(50) => (*one, *other),
            [one, other] => (*other, *one),
            _ => return Err("three nodes are needed".into()),
        };
        self.cut_off(unknowing);
        self.carry_out(leader, OperatorCommand::CreateUser)?;
        for gone in [leader, wiped] {
            self.world.forget(gone);
            self.sim.crash(ip(gone));
        }
        let machine = self.world.machine(wiped).ok_or("no such machine")?;
        machine.disk.wipe();
        std::fs::remove_dir_all(&machine.data_dir)?;
        self.heal();
        self.sim.bounce(ip(wiped));
        self.pass(OUTLIVES_LEASES)?;
        self.look()?;
        // The node that has the write restarts, and the two that always had a disk continue.
        self.sim.bounce(ip(leader));
        self.pass(OUTLIVES_LEASES)?;
        self.look()
    }

    fn power_lost(&mut self) -> turmoil::Result {
        for _ in 0..POWER_CUTS {
            let leader = leader_of(self.world, &nodes().collect::<Vec<_>>()).ok_or("no leader")?;
            self.carry_out(leader, OperatorCommand::CreateUser)?;
            for node in nodes() {
                self.world.forget(node);
                self.sim.crash(ip(node));
                self.world.machine(node).ok_or("no such machine")?.disk.crash();
            }
            nodes().for_each(|node| self.sim.bounce(ip(node)));
            self.all_are_there()?;
            self.look()?;
        }
        Ok(())
    }

    fn all_are_there(&mut self) -> turmoil::Result {
        self.until("three nodes and a leader", |world| {
            let running = world.running();
            let followed = running.values().all(|cluster| cluster.leader_id().is_some());
            let all: Vec<u64> = running.keys().copied().collect();
            running.len() == nodes().count() && followed && leader_of(world, &all).is_some()
        })
    }

    /// Every node that answers must know everything that was acknowledged.
    fn look(&mut self) -> turmoil::Result {
        let running: Vec<u64> = self.world.running().into_keys().collect();
        running.into_iter().try_for_each(|node| self.carry_out(node, OperatorCommand::Look))
    }

    fn end(&mut self) -> turmoil::Result {
        self.world.enter(ScriptStage::Quiet);
        // If they do not agree in time, the judge reports it.
        let _ = self.until("the same everywhere", judge::agree);
        Ok(())
    }

    fn cluster(&self, node: u64) -> turmoil::Result<Cluster> {
        self.world.running().remove(&node).ok_or_else(|| format!("node {node} does not run").into())
    }

    fn cut_off(&mut self, node: u64) {
        for other in others(node) {
            self.sim.partition(ip(node), ip(other));
        }
    }

    fn heal(&mut self) {
        Nemesis::repair_all(self.sim);
        self.sim.set_max_message_latency(USUAL_LATENCY);
    }

    fn carry_out(&mut self, node: u64, command: OperatorCommand) -> turmoil::Result {
        self.ordered += 1;
        self.world.give_command(node, command);
        let ordered = self.ordered;
        self.until("an order carried out", move |world| world.carried_out() >= ordered)
    }

    fn pass(&mut self, time: Duration) -> turmoil::Result {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.sim.step()?;
        }
        Ok(())
    }

    fn until(&mut self, what: &str, met: impl Fn(&SimWorld) -> bool) -> turmoil::Result {
        let end = self.sim.elapsed() + LIMIT;
        while !met(self.world) {
            if self.sim.elapsed() >= end {
                return Err(format!("the plan needs {what}, which did not happen").into());
            }
            self.sim.step()?;
        }
        Ok(())
    }
}

fn others(node: u64) -> Vec<u64> {
    nodes().filter(|other| *other != node).collect()
}

/// The node among these that considers itself the leader.
fn leader_of(world: &SimWorld, among: &[u64]) -> Option<u64> {
    let running = world.running();
    let leads = |node: &&u64| running.get(node).is_some_and(|cluster| cluster.leader_id() == Some(**node));
    among.iter().find(leads).copied()
}
