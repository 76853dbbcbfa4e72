//! The faults. What it does to a node it undoes, and between two faults it lets the cluster breathe for a moment.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::random::Random;

use super::{
    Options,
    cluster::Cluster,
    ground::{NODES, nodes},
};

/// What happens to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Processes are killed, mostly the leader's, and started again.
    Kill,
    /// Processes are frozen for 0.1 to 10 s with their sockets open.
    Pause,
    /// Nodes are stopped in order, one after the other, and started again.
    Term,
    /// Nodes are cut off in both directions, in one, or from one other alone.
    Partition,
    /// All of it in turn.
    Mixed,
}

impl Scenario {
    /// Each of them by name.
    pub const ALL: &[(&str, Self)] = &[
        ("kill", Self::Kill),
        ("pause", Self::Pause),
        ("term", Self::Term),
        ("partition", Self::Partition),
        ("mixed", Self::Mixed),
    ];

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, scenario)| *scenario)
    }

    /// Whether nodes must be cut apart.
    #[must_use]
    pub const fn needs_spaces(self) -> bool {
        matches!(self, Self::Partition | Self::Mixed)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, scenario)| scenario == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

/// How long the cluster breathes between two faults.
const BREATH: Duration = Duration::from_millis(1_500);

/// Goes on until the time is over; how many faults there were.
pub async fn run(scenario: Scenario, cluster: &Arc<Cluster>, options: &Options) -> anyhow::Result<u64> {
    let mut random = Random::new(options.seed);
    let began = Instant::now();
    let mut faults = 0;
    sleep(BREATH).await;
    while began.elapsed() < options.duration {
        let now = match scenario {
            Scenario::Mixed => {
                let all = [Scenario::Kill, Scenario::Pause, Scenario::Term, Scenario::Partition];
                random.pick(&all).copied().unwrap_or(Scenario::Kill)
            }
            one => one,
        };
        let victim = victim(cluster, &mut random).await;
        eprintln!("{:>4} s  {now} node {victim}", began.elapsed().as_secs());
        match now {
            Scenario::Kill => kill(cluster, victim, &mut random).await?,
            Scenario::Pause => pause(cluster, victim, &mut random).await?,
            Scenario::Term => restart_in_order(cluster).await?,
            Scenario::Partition | Scenario::Mixed => cut_off(cluster, victim, &mut random).await?,
        }
        faults += 1;
        sleep(BREATH).await;
    }
    Ok(faults)
}

/// The leader in two of three cases.
async fn victim(cluster: &Cluster, random: &mut Random) -> u64 {
    let any = 1 + random.below(NODES);
    if random.percent(66) { cluster.leader().await.unwrap_or(any) } else { any }
}

async fn kill(cluster: &Cluster, victim: u64, random: &mut Random) -> anyhow::Result<()> {
    cluster.signal(victim, "-KILL")?;
    cluster.ended(victim).await?;
    sleep(Duration::from_millis(random.below(2_000))).await;
    cluster.spawn(victim)?;
    cluster.ready(victim).await
}

async fn pause(cluster: &Cluster, victim: u64, random: &mut Random) -> anyhow::Result<()> {
    // Mostly around the length of a lease and of an election, sometimes far beyond.
    let frozen = if random.percent(80) { 100 + random.below(3_000) } else { 3_000 + random.below(7_000) };
    cluster.signal(victim, "-STOP")?;
    sleep(Duration::from_millis(frozen)).await;
    cluster.signal(victim, "-CONT")
}

async fn restart_in_order(cluster: &Cluster) -> anyhow::Result<()> {
    for node in nodes() {
        cluster.signal(node, "-TERM")?;
        cluster.ended(node).await?;
        cluster.spawn(node)?;
        cluster.ready(node).await?;
    }
    Ok(())
}

async fn cut_off(cluster: &Cluster, victim: u64, random: &mut Random) -> anyhow::Result<()> {
    let others: Vec<u64> = nodes().filter(|node| *node != victim).collect();
    let ways: Vec<(u64, u64)> = match random.below(4) {
        // Nobody hears it, and it hears nobody.
        0 => others.iter().flat_map(|other| [(victim, *other), (*other, victim)]).collect(),
        // It speaks and hears nothing.
        1 => others.iter().map(|other| (*other, victim)).collect(),
        // It hears and cannot speak.
        2 => others.iter().map(|other| (victim, *other)).collect(),
        // A bridge: one of the others still reaches both.
        _ => others.first().map(|other| vec![(victim, *other), (*other, victim)]).unwrap_or_default(),
    };
    for (from, to) in &ways {
        cluster.ground().cut(*from, *to)?;
    }
    sleep(Duration::from_millis(500 + random.below(4_500))).await;
    for (from, to) in &ways {
        cluster.ground().heal(*from, *to)?;
    }
    Ok(())
}
