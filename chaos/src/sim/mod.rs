//! **Sim**: three whole nodes of the cluster room (consensus, log storage, serve leases, failover, forwarding, the gRPC between them) in
//! one thread, over a simulated network, disk and clock. One seed is one history: the same again, whenever it is asked for.
//!
//! | file | owns |
//! |---|---|
//! | `world` | what the nodes share with their watcher |
//! | `node` | what runs on a host |
//! | `traffic` | visitors at each node |
//! | `nemesis` | the faults, and their ends |
//! | `wire`, `disk`, `clock` | what stands in the place of the machine |
//! | `judge` | what must hold at the end |
//!
//! Not simulated: TLS, the sled engine (its own tests break it), the files of snapshots, HTTP. A crash falls between two milliseconds.

mod clock;
mod disk;
mod judge;
mod nemesis;
mod node;
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

#[cfg(feature = "mutations")]
use conclave_lease::Mutation;
use conclave_node::{
    cluster::testing::{Wrong, do_wrong, seed as seed_raft},
    crypto::secret::ClusterSecret,
    runtime::testing::SeededEntropy,
};
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};
use turmoil::{Builder, Sim};

use self::{
    nemesis::Nemesis,
    world::{Stage, World, nodes},
};
use crate::random::Random;

/// How long the faults last.
const FAULTS: Duration = Duration::from_secs(8);
/// How long everything may take to work again afterwards.
const HEALED_WITHIN: Duration = Duration::from_secs(10);
/// How long the nodes have to come to the same index when nobody writes any more.
const QUIET: Duration = Duration::from_secs(3);
/// Longest delay of a message while the network is well.
const USUAL_LATENCY: Duration = Duration::from_millis(3);

/// What is wrong with the nodes on purpose. All but [`Bug::None`] need the feature "mutations".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bug {
    /// Nothing.
    #[default]
    None,
    /// The disk says that it has synced and has not, now and then.
    #[cfg(feature = "mutations")]
    SyncForgotten,
    /// The core of the serve leases does something wrong.
    #[cfg(feature = "mutations")]
    Leases(Mutation),
}

impl Bug {
    /// Each of them, with its name on the command line. Those of the leases that need a meeting of several rare things are left to the
    /// model, which looks at every order of events.
    pub const ALL: &[(&str, Self)] = &[
        ("none", Self::None),
        #[cfg(feature = "mutations")]
        ("sync-forgotten", Self::SyncForgotten),
        #[cfg(feature = "mutations")]
        ("no-new-leader-wait", Self::Leases(Mutation::NoNewLeaderWait)),
        #[cfg(feature = "mutations")]
        ("ack-ignores-table", Self::Leases(Mutation::AckIgnoresTable)),
        #[cfg(feature = "mutations")]
        ("no-margin", Self::Leases(Mutation::NoMargin)),
    ];

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, bug)| *bug)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, bug)| *bug == self).map_or("none", |(name, _)| name)
    }

    #[cfg_attr(
        not(feature = "mutations"),
        expect(clippy::unused_self, reason = "only bugs answer differently")
    )]
    fn forgets_to_sync(self, random: &mut Random) -> bool {
        #[cfg(feature = "mutations")]
        return self == Self::SyncForgotten && random.percent(30);
        #[cfg(not(feature = "mutations"))]
        {
            let _ = random;
            false
        }
    }

    /// What the nodes' own code is to do wrong.
    #[cfg_attr(
        not(feature = "mutations"),
        expect(clippy::unused_self, reason = "only bugs answer differently")
    )]
    fn of_the_nodes(self) -> Wrong {
        #[cfg(feature = "mutations")]
        if let Self::Leases(leases) = self {
            return Wrong { leases };
        }
        Wrong::default()
    }
}

/// What a history held, and what it broke.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Name and count.
    pub counts: BTreeMap<&'static str, u64>,
    /// Each broken promise, in words.
    pub violations: Vec<String>,
}

/// Lives through the history of this seed. Once in a process: chance is a property of the process.
#[must_use]
pub fn run(seed: u64, bug: Bug) -> Outcome {
    let panics = note_panics();
    // A thread of its own: what chance its thread-locals hold follows from the seed as well.
    let history = thread::Builder::new().name(format!("seed-{seed}")).spawn(move || {
        seeded_getrandom::seed(seed);
        seed_raft(seed);
        do_wrong(bug.of_the_nodes());
        live(seed, bug)
    });
    let mut outcome = match history.map(JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        _ => Outcome { violations: vec!["the simulation did not end".into()], ..Outcome::default() },
    };
    let panics = panics.lock().unwrap_or_else(PoisonError::into_inner);
    outcome
        .violations
        .extend(panics.iter().filter(|text| !is_known(text)).map(|text| format!("a panic: {text}")));
    outcome
}

/// A task's panic ends that task and nobody else hears of it; here they are heard.
fn note_panics() -> Arc<Mutex<Vec<String>>> {
    let panics = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&panics);
    panic::set_hook(Box::new(move |info| {
        eprintln!("{info}");
        noted.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
    }));
    panics
}

/// openraft asserts in debug builds that a replication never starts behind its end; after a change of the leader it may, and the release
/// build sends a heartbeat there, as it should.
fn is_known(panic: &str) -> bool {
    cfg!(debug_assertions) && panic.contains("read_log_entries received reversed range")
}

/// Shows what the nodes log, with the simulation's time, in the manner of `RUST_LOG`.
pub fn show_log(filter: &str) {
    struct SimTime;
    impl FormatTime for SimTime {
        fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
            write!(out, "{:>9.3}", clock::true_time().as_secs_f64())
        }
    }
    let shown = tracing_subscriber::fmt().with_timer(SimTime).with_writer(std::io::stderr);
    let shown = shown.with_ansi(false).with_max_level(tracing::Level::TRACE);
    // Only the first call counts.
    let _ = shown.with_env_filter(filter).try_init();
}

fn live(seed: u64, bug: Bug) -> Outcome {
    let Ok(data) = tempfile::tempdir() else {
        return Outcome { violations: vec!["no temporary directory".into()], ..Outcome::default() };
    };
    let secret = ClusterSecret::generate(&*SeededEntropy::new(seed));
    let world = World::new(seed, bug, data.path(), secret);
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
    let mut outcome = Outcome::default();
    if let Err(error) = unfold(&mut sim, &world, &mut outcome) {
        outcome.violations.push(format!("the simulation ended: {error}"));
    }
    outcome.counts.extend(world.history.counts());
    outcome.violations.extend(world.history.judge());
    outcome
}

fn unfold(sim: &mut Sim<'_>, world: &Arc<World>, outcome: &mut Outcome) -> turmoil::Result {
    let mut nemesis = Nemesis::new(world);
    while sim.elapsed() < FAULTS {
        nemesis.step(sim);
        sim.step()?;
    }
    nemesis.heal(sim);
    outcome.counts.insert("faults", nemesis.made);
    world.enter(Stage::Proof);
    let healed = sim.elapsed();
    while !world.all_work() && sim.elapsed() < healed + HEALED_WITHIN {
        let now = sim.elapsed();
        nemesis.cure(sim, now);
        sim.step()?;
    }
    if !world.all_work() {
        outcome
            .violations
            .push(format!("{} s after the faults not every node works", HEALED_WITHIN.as_secs()));
    }
    world.enter(Stage::Quiet);
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
