//! Histories that follow a plan: the few situations in which a known bug must show, brought about on purpose. The seed
//! decides the delays and which node plays which part.

use std::{fmt, sync::Arc, time::Duration};

use conclave_cluster::Cluster;
use turmoil::Sim;

use super::{
    USUAL_LATENCY, judge,
    nemesis::Nemesis,
    node::ip,
    world::{Order, Stage, World, nodes},
};
use crate::random::Random;

/// How a history goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    /// Whatever the seed brings.
    #[default]
    Storm,
    /// A leader that renews leases is cut off by something that answers for it, so that the others elect at once, and
    /// revoke.
    Deposed,
    /// A node that was cut off until its lease was over comes back, slow to apply, just when something is revoked.
    Returned,
    /// One of the two that know of a write loses its disk and starts again under its number, the other one is away.
    Reborn,
    /// Right after a write is acknowledged, every machine loses its power; several times.
    PowerLost,
}

impl Plan {
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

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, plan)| plan == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

/// Longer than any lease lasts and any leader waits, by the slowest of the clocks.
const OUTLIVES_LEASES: Duration = Duration::from_secs(3);
/// Renewals come every 400 ms: a plan begins anywhere between two.
const RENEWAL_MS: u64 = 400;
/// How much may pass between the end of a cut and a revocation: the node asks for a lease within a renewal's pause and
/// a connection.
const SOON_MS: u64 = 120;
/// How often the power goes.
const POWER_CUTS: u32 = 6;
/// How long checks go on after the acknowledgement: longer than what a lease may last too long.
const AFTERWARDS: Duration = Duration::from_millis(400);
/// Longest wait for what the plan needs to go on; a revocation takes 2.2 s.
const LIMIT: Duration = Duration::from_secs(10);

/// Goes through the plan.
///
/// # Errors
/// When the simulation ends, or the situation does not come about.
pub fn play(plan: Plan, sim: &mut Sim<'_>, world: &Arc<World>) -> turmoil::Result {
    let random = Random::new(world.seed ^ 0x706c_616e);
    let mut stage = Play { sim, world, random, ordered: 0 };
    let leader = stage.begin()?;
    match plan {
        Plan::Storm => {}
        Plan::Deposed => stage.deposed(leader)?,
        Plan::Returned => stage.returned(leader)?,
        Plan::Reborn => return stage.reborn(leader),
        Plan::PowerLost => stage.power_lost()?,
    }
    stage.end()
}

struct Play<'a, 'b> {
    sim: &'a mut Sim<'b>,
    world: &'a Arc<World>,
    random: Random,
    /// Orders given so far.
    ordered: u64,
}

impl Play<'_, '_> {
    /// Somebody is signed in, every node knows it, and nothing else happens. Who leads.
    fn begin(&mut self) -> turmoil::Result<u64> {
        self.all_are_there()?;
        self.carry_out(1, Order::SignIn)?;
        self.until("the same everywhere", judge::agree)?;
        let jitter = Duration::from_millis(self.random.below(RENEWAL_MS));
        self.pass(OUTLIVES_LEASES + jitter)?;
        leader_of(self.world, &nodes().collect::<Vec<_>>()).ok_or_else(|| "nobody leads".into())
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
        let next = leader_of(self.world, &others).ok_or("nobody leads")?;
        self.carry_out(next, Order::Revoke)?;
        self.pass(AFTERWARDS)?;
        self.world.answer_for(None);
        self.heal();
        Ok(())
    }

    fn returned(&mut self, leader: u64) -> turmoil::Result {
        let late = *self.random.pick(&others(leader)).ok_or("nobody else")?;
        self.cut_off(late);
        self.pass(OUTLIVES_LEASES)?;
        self.cluster(late)?.hold_back(true);
        self.heal();
        let soon = Duration::from_millis(self.random.below(SOON_MS));
        self.pass(soon)?;
        self.carry_out(leader, Order::Revoke)?;
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
        self.carry_out(leader, Order::CreateUser)?;
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
        // The one that knows comes back, and the two that were never without a disk go on.
        self.sim.bounce(ip(leader));
        self.pass(OUTLIVES_LEASES)?;
        self.look()
    }

    fn power_lost(&mut self) -> turmoil::Result {
        for _ in 0..POWER_CUTS {
            let leader = leader_of(self.world, &nodes().collect::<Vec<_>>()).ok_or("nobody leads")?;
            self.carry_out(leader, Order::CreateUser)?;
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

    /// Whoever answers must know what was acknowledged.
    fn look(&mut self) -> turmoil::Result {
        let running: Vec<u64> = self.world.running().into_keys().collect();
        running.into_iter().try_for_each(|node| self.carry_out(node, Order::Look))
    }

    fn end(&mut self) -> turmoil::Result {
        self.world.enter(Stage::Quiet);
        // What is not so in time is judged.
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

    fn carry_out(&mut self, node: u64, order: Order) -> turmoil::Result {
        self.ordered += 1;
        self.world.order(node, order);
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

    fn until(&mut self, what: &str, met: impl Fn(&World) -> bool) -> turmoil::Result {
        let end = self.sim.elapsed() + LIMIT;
        while !met(self.world) {
            if self.sim.elapsed() >= end {
                return Err(format!("the plan needs {what}, and it does not come about").into());
            }
            self.sim.step()?;
        }
        Ok(())
    }
}

fn others(node: u64) -> Vec<u64> {
    nodes().filter(|other| *other != node).collect()
}

/// Which of these leads by its own opinion.
fn leader_of(world: &World, among: &[u64]) -> Option<u64> {
    let running = world.running();
    let leads = |node: &&u64| running.get(node).is_some_and(|cluster| cluster.leader_id() == Some(**node));
    among.iter().find(leads).copied()
}
