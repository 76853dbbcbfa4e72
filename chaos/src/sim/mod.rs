//! **Sim**: three whole nodes of the cluster room (consensus, log storage, serve leases, failover, forwarding, the gRPC
//! between them) in one thread, over a simulated network, disk and clock. One seed is one history, which is always
//! reproduced exactly.
//!
//! | file | owns |
//! |---|---|
//! | `world` | the data that the nodes share with their observer |
//! | `node` | the software of a host |
//! | `traffic` | clients at each node |
//! | `nemesis` | the faults, and their ends |
//! | `script` | plans: staged situations |
//! | `bug` | known bugs, each with its plan and the promise that it breaks |
//! | `wire`, `disk`, `clock` | replacements of the machine's parts |
//! | `judge` | the final checks |
//!
//! Not simulated: TLS, the sled engine (its own tests break it), snapshot files, HTTP. A crash happens between two
//! milliseconds.

mod bug;
mod clock;
mod disk;
mod judge;
mod nemesis;
mod node;
mod script;
mod traffic;
mod wire;
mod world;

use std::{
    collections::BTreeMap,
    panic,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use conclave_base::runtime::testing::SeededEntropy;
use conclave_cluster::testing::seed as seed_raft;
use conclave_crypto::secret::ClusterSecret;
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};
use turmoil::{Builder, Sim};

pub use self::{bug::SimBug, script::SimPlan};
use self::{
    nemesis::Nemesis,
    world::{ScriptStage, SimWorld, nodes},
};
use crate::promise::{Broken, Promise};

/// The duration of the faults.
const FAULTS: Duration = Duration::from_secs(8);
/// Time limit for everything to work again afterwards.
const HEALED_WITHIN: Duration = Duration::from_secs(10);
/// Time limit for the nodes to reach the same index after the last write.
const QUIET: Duration = Duration::from_secs(3);
/// Longest delay of a message while the network is healthy.
const USUAL_LATENCY: Duration = Duration::from_millis(3);

/// Counts of a history, and the promises that it broke.
#[derive(Debug, Default)]
pub struct SimOutcome {
    /// Name and count.
    pub counts: BTreeMap<&'static str, u64>,
    /// A description of each broken promise.
    pub violations: Vec<Broken>,
}

/// Runs the history of this seed under this plan. Only once in a process, because randomness is seeded per process.
#[must_use]
pub fn run(seed: u64, plan: SimPlan, bug: SimBug) -> SimOutcome {
    let panics = note_panics();
    // A separate thread, so that the randomness in its thread-locals is seeded too.
    let history = thread::Builder::new().name(format!("seed-{seed}")).spawn(move || {
        seeded_getrandom::seed(seed);
        seed_raft(seed);
        bug.put_into_nodes();
        live(seed, plan, bug)
    });
    let mut outcome = match history.map(JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        _ => SimOutcome {
            violations: vec![Promise::RunsOn.broken("the simulation did not end")],
            ..SimOutcome::default()
        },
    };
    let panics = panics.lock().unwrap_or_else(PoisonError::into_inner);
    outcome.violations.extend(
        panics
            .iter()
            .filter(|text| !is_known(text))
            .map(|text| Promise::RunsOn.broken(format!("a panic: {text}"))),
    );
    outcome
}

/// Records panics. A task's panic ends that task silently; here it is recorded.
fn note_panics() -> Arc<Mutex<Vec<String>>> {
    let panics = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&panics);
    panic::set_hook(Box::new(move |info| {
        eprintln!("{info}");
        noted.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
    }));
    panics
}

/// True for a known panic: openraft asserts in debug builds that a replication never starts behind its end. After a
/// change of the leader it may, and the release build correctly sends a heartbeat there.
fn is_known(panic: &str) -> bool {
    cfg!(debug_assertions) && panic.contains("read_log_entries received reversed range")
}

/// Shows the nodes' log lines, with simulated time, with a filter like `RUST_LOG`.
pub fn show_log(filter: &str) {
    struct SimTime;
    impl FormatTime for SimTime {
        fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
            write!(out, "{:>9.3}", clock::true_time().as_secs_f64())
        }
    }
    let shown = tracing_subscriber::fmt().with_timer(SimTime).with_writer(std::io::stderr);
    let shown = shown.with_ansi(false).with_max_level(tracing::Level::TRACE);
    // Only the first call has an effect.
    let _ = shown.with_env_filter(filter).try_init();
}

fn live(seed: u64, plan: SimPlan, bug: SimBug) -> SimOutcome {
    let Ok(data) = tempfile::tempdir() else {
        return SimOutcome {
            violations: vec![Promise::RunsOn.broken("no temporary directory")],
            ..SimOutcome::default()
        };
    };
    let secret = ClusterSecret::generate(&*SeededEntropy::new(seed));
    let world = SimWorld::new(seed, plan, bug, data.path(), secret);
    let mut sim = Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_hours(1))
        .max_message_latency(USUAL_LATENCY)
        .tcp_capacity(4_096)
        .build();
    for node in nodes() {
        let shared = Arc::clone(&world);
        sim.host(node::ip(node), move || node::software(Arc::clone(&shared), node));
    }
    let mut outcome = SimOutcome::default();
    let unfolded = match plan {
        SimPlan::Storm => storm(&mut sim, &world, &mut outcome),
        plan => script::play(plan, &mut sim, &world),
    };
    if let Err(error) = unfolded {
        outcome.violations.push(Promise::RunsOn.broken(format!("the simulation ended: {error}")));
    }
    outcome.violations.extend(world.take_broken());
    if plan != SimPlan::Storm && plan != SimPlan::Reborn {
        outcome.violations.extend(judge::at_the_end(&world));
    }
    outcome.counts.extend(world.history.counts());
    outcome.violations.extend(world.history.judge());
    outcome
}

fn storm(sim: &mut Sim<'_>, world: &Arc<SimWorld>, outcome: &mut SimOutcome) -> turmoil::Result {
    let mut nemesis = Nemesis::new(world);
    while sim.elapsed() < FAULTS {
        nemesis.step(sim);
        sim.step()?;
    }
    nemesis.heal(sim);
    outcome.counts.insert("faults", nemesis.made);
    world.enter(ScriptStage::Proof);
    let healed = sim.elapsed();
    while !world.all_work() && sim.elapsed() < healed + HEALED_WITHIN {
        let now = sim.elapsed();
        nemesis.cure(sim, now);
        sim.step()?;
    }
    if !world.all_work() {
        let how = format!("{} s after the faults some node does not work", HEALED_WITHIN.as_secs());
        outcome.violations.push(Promise::WorksAgain.broken(how));
    }
    world.enter(ScriptStage::Quiet);
    let began = sim.elapsed();
    while !judge::agree(world) && sim.elapsed() < began + QUIET {
        let now = sim.elapsed();
        nemesis.cure(sim, now);
        sim.step()?;
    }
    outcome.counts.insert("virtual ms", u64::try_from(sim.elapsed().as_millis()).unwrap_or(u64::MAX));
    outcome.violations.extend(judge::at_the_end(world));
    outcome.violations.extend(nemesis.unexpected);
    Ok(())
}
