//! The faults. Each fault on a node is undone, and between two faults the cluster gets a short pause.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::random::Random;

use super::{
    LiveOptions,
    cluster::LiveCluster,
    environment::{EnvironmentKind, NODES, PLACES},
};

/// The kind of faults of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Processes are killed, mostly the leader's, and started again.
    Kill,
    /// Processes are frozen for 0.1 to 10 s with their sockets open.
    Pause,
    /// Nodes are stopped with SIGTERM, one after the other, and started again.
    Term,
    /// Nodes are partitioned in both directions, in one, or from a single other node.
    Partition,
    /// Links to one node, or to all, become slow: 5 to 400 ms one way.
    Delay,
    /// A disk is full for a while.
    FullDisk,
    /// A disk is lost: its node is removed, and a new one joins at its place.
    Wipe,
    /// Three nodes become five and three again, with any members.
    Churn,
    /// All of them in turn.
    Mixed,
}

impl Scenario {
    /// Each of them by name.
    pub const ALL: &[(&str, Self)] = &[
        ("kill", Self::Kill),
        ("pause", Self::Pause),
        ("term", Self::Term),
        ("partition", Self::Partition),
        ("delay", Self::Delay),
        ("full-disk", Self::FullDisk),
        ("wipe", Self::Wipe),
        ("churn", Self::Churn),
        ("mixed", Self::Mixed),
    ];

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, scenario)| *scenario)
    }

    /// The environment that it needs.
    pub(super) const fn environment(self) -> EnvironmentKind {
        match self {
            Self::Partition => EnvironmentKind::Spaces,
            Self::Mixed => EnvironmentKind::SlowableSpaces,
            Self::Delay => EnvironmentKind::Slowable,
            _ => EnvironmentKind::Plain,
        }
    }

    /// The number of places with a disk of their own, which can become full.
    pub(super) const fn small_disks(self) -> u64 {
        match self {
            Self::FullDisk => NODES,
            // Members change their places.
            Self::Mixed => PLACES,
            _ => 0,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, scenario)| scenario == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

/// The pause between two faults.
const BREATH: Duration = Duration::from_millis(1_500);

/// The faults of the mixed scenario; membership changes, which take long, are less frequent.
const MIX: &[Scenario] = &[
    Scenario::Kill,
    Scenario::Kill,
    Scenario::Pause,
    Scenario::Pause,
    Scenario::Term,
    Scenario::Partition,
    Scenario::Partition,
    Scenario::FullDisk,
    Scenario::Wipe,
    Scenario::Delay,
    Scenario::Churn,
];

/// Time limit of a membership change, which is retried while the cluster is busy with another or has no leader.
const MEMBERS_LIMIT: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(200);

/// The number of restarts by the process supervisor, and their time limit.
const RESTARTS: u32 = 4;
const RESTART_WITHIN: Duration = Duration::from_secs(2);

/// Makes faults until the time is up; returns their number.
pub(super) async fn run(
    scenario: Scenario,
    cluster: &Arc<LiveCluster>,
    options: &LiveOptions,
) -> anyhow::Result<u64> {
    let mut random = Random::new(options.seed);
    let began = Instant::now();
    let mut faults = 0;
    sleep(BREATH).await;
    while began.elapsed() < options.duration {
        let now = match scenario {
            Scenario::Mixed => random.pick(MIX).copied().unwrap_or(Scenario::Kill),
            one => one,
        };
        let victim = victim(cluster, &mut random).await;
        eprintln!("{:>4} s  {now} node {victim}", began.elapsed().as_secs());
        match now {
            Scenario::Kill => kill(cluster, victim, &mut random).await?,
            Scenario::Pause => pause(cluster, victim, &mut random).await?,
            Scenario::Term => restart_in_order(cluster).await?,
            Scenario::Delay => slow_links(cluster, victim, &mut random).await?,
            Scenario::FullDisk => fill_disk(cluster, victim, &mut random).await?,
            Scenario::Wipe => lose_disk(cluster, victim).await?,
            Scenario::Churn => three_five_three(cluster, &mut random).await?,
            Scenario::Partition | Scenario::Mixed => cut_off(cluster, victim, &mut random).await?,
        }
        faults += 1;
        sleep(BREATH).await;
    }
    Ok(faults)
}

/// The node to which the fault is applied: the leader in two of three cases.
async fn victim(cluster: &LiveCluster, random: &mut Random) -> u64 {
    let any = random.pick(&cluster.places()).copied().unwrap_or(1);
    if random.percent(66) { cluster.leader().await.unwrap_or(any) } else { any }
}

async fn kill(cluster: &LiveCluster, victim: u64, random: &mut Random) -> anyhow::Result<()> {
    cluster.signal(victim, "-KILL")?;
    cluster.ended(victim).await?;
    sleep(Duration::from_millis(random.below(2_000))).await;
    cluster.spawn(victim)?;
    cluster.ready(victim).await
}

async fn pause(cluster: &LiveCluster, victim: u64, random: &mut Random) -> anyhow::Result<()> {
    // Mostly around the duration of a lease and of an election, sometimes far beyond.
    let frozen = if random.percent(80) { 100 + random.below(3_000) } else { 3_000 + random.below(7_000) };
    cluster.signal(victim, "-STOP")?;
    sleep(Duration::from_millis(frozen)).await;
    cluster.signal(victim, "-CONT")
}

async fn restart_in_order(cluster: &LiveCluster) -> anyhow::Result<()> {
    for node in cluster.places() {
        cluster.signal(node, "-TERM")?;
        cluster.ended(node).await?;
        cluster.spawn(node)?;
        cluster.ready(node).await?;
    }
    Ok(())
}

async fn cut_off(cluster: &LiveCluster, victim: u64, random: &mut Random) -> anyhow::Result<()> {
    let others: Vec<u64> = cluster.places().into_iter().filter(|node| *node != victim).collect();
    let ways: Vec<(u64, u64)> = match random.below(4) {
        // No node hears it, and it hears none.
        0 => others.iter().flat_map(|other| [(victim, *other), (*other, victim)]).collect(),
        // It can send but hears nothing.
        1 => others.iter().map(|other| (*other, victim)).collect(),
        // It hears but cannot send.
        2 => others.iter().map(|other| (victim, *other)).collect(),
        // A bridge: one of the others still reaches both.
        _ => others.first().map(|other| vec![(victim, *other), (*other, victim)]).unwrap_or_default(),
    };
    for (from, to) in &ways {
        cluster.environment().cut(*from, *to)?;
    }
    sleep(Duration::from_millis(500 + random.below(4_500))).await;
    for (from, to) in &ways {
        cluster.environment().heal(*from, *to)?;
    }
    Ok(())
}

async fn slow_links(cluster: &LiveCluster, victim: u64, random: &mut Random) -> anyhow::Result<()> {
    let all = random.percent(30);
    let slowed: Vec<u64> = cluster.places().into_iter().filter(|place| all || *place == victim).collect();
    // Longer than a heartbeat, and sometimes longer than the election timeout.
    let by =
        Duration::from_millis(if random.percent(70) { 5 + random.below(60) } else { 60 + random.below(340) });
    for place in &slowed {
        cluster.environment().slow(*place, by)?;
    }
    sleep(Duration::from_millis(1_000 + random.below(4_000))).await;
    for place in slowed {
        cluster.environment().slow(place, Duration::ZERO)?;
    }
    Ok(())
}

/// Fills a node's disk. The node may survive it, or end and log the reason; in that case it is started when there is
/// room again.
async fn fill_disk(cluster: &LiveCluster, victim: u64, random: &mut Random) -> anyhow::Result<()> {
    let disk = cluster.disk(victim).context("no disk of its own")?;
    disk.fill()?;
    sleep(Duration::from_millis(1_000 + random.below(4_000))).await;
    disk.free()?;
    sleep(BREATH).await;
    for _ in 0..RESTARTS {
        if cluster.has_ended(victim)? {
            cluster.spawn(victim)?;
        }
        if cluster.ready_within(victim, RESTART_WITHIN).await {
            return Ok(());
        }
    }
    cluster.ready(victim).await
}

async fn lose_disk(cluster: &LiveCluster, victim: u64) -> anyhow::Result<()> {
    let gone = cluster.lose(victim).await?;
    remove(cluster, gone).await?;
    let id = cluster.join(victim).await?;
    anyhow::ensure!(id > gone, "node {id} was given an id that was used before");
    votes(cluster, id).await
}

async fn three_five_three(cluster: &LiveCluster, random: &mut Random) -> anyhow::Result<()> {
    for place in cluster.free_places() {
        let id = cluster.join(place).await?;
        votes(cluster, id).await?;
    }
    while cluster.places().len() as u64 > NODES {
        let leaving = victim(cluster, random).await;
        remove(cluster, cluster.id(leaving)).await?;
        cluster.lose(leaving).await?;
    }
    Ok(())
}

/// Removes a node, like an operator who retries when the cluster asks for it.
async fn remove(cluster: &LiveCluster, node_id: u64) -> anyhow::Result<()> {
    let until = Instant::now() + MEMBERS_LIMIT;
    loop {
        let request = conclave_client::v1::RemoveNodeRequest { node_id, force: false };
        match cluster.api(Duration::from_secs(5))?.cluster().remove(request).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > until => return Err(error).context(format!("remove {node_id}")),
            Err(_) => sleep(AGAIN).await,
        }
    }
}

/// Waits until a node that has joined is a voter.
async fn votes(cluster: &LiveCluster, id: u64) -> anyhow::Result<()> {
    let until = Instant::now() + MEMBERS_LIMIT;
    while Instant::now() < until {
        let members = cluster.members().await.unwrap_or_default();
        if members.iter().any(|node| node.id == id && node.role != "learner" && node.reachable) {
            return Ok(());
        }
        sleep(AGAIN).await;
    }
    anyhow::bail!("node {id} does not vote after {} s", MEMBERS_LIMIT.as_secs())
}
