//! Measures the time until the next write when a leader fails: from the fault to the first acknowledgement, at a
//! survivor, of a write that began after it. Meanwhile every survivor constantly receives forward-auth checks, and
//! clients sign in; none of that may fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use conclave_client::{AdminClient, v1};

use super::{
    client::BrowserClient,
    cluster::LiveCluster,
    environment::{EnvironmentKind, nodes},
    traffic::password,
};
use crate::history::Seen;

/// The way in which the leader fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `kill -9`.
    Kill,
    /// SIGSTOP: its sockets stay open.
    Freeze,
    /// Partitioned from all others, in both directions.
    Cut,
    /// SIGTERM.
    Term,
    /// The end of a partition: the node that was partitioned, the leader or a follower, reconnects. The longest write
    /// after it is measured.
    Heal,
}

impl How {
    /// Each of them by name.
    pub const ALL: &[(&str, Self)] = &[
        ("kill", Self::Kill),
        ("freeze", Self::Freeze),
        ("cut", Self::Cut),
        ("term", Self::Term),
        ("heal", Self::Heal),
    ];

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, how)| *how)
    }

    /// The environment that it needs: some of them partition nodes.
    pub(super) const fn environment(self) -> EnvironmentKind {
        if matches!(self, Self::Cut | Self::Heal) { EnvironmentKind::Spaces } else { EnvironmentKind::Plain }
    }
}

/// The measurements.
#[derive(Default)]
pub struct Times {
    /// The write time of each run.
    pub writes: Vec<Duration>,
    /// Writes after the end of a partition that failed.
    pub writes_failed: u64,
    /// Forward-auth checks at survivors meanwhile.
    pub checks: u64,
    /// Failed checks: without a response or with a wrong one.
    pub checks_failed: u64,
    /// Complete logins meanwhile, their steps at the survivors in turn.
    pub logins: u64,
    /// Failed logins: those that did not end in a session.
    pub logins_failed: u64,
}

/// Time limit of one write.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// The pause before each fault: the cluster is complete and idle.
const CALM: Duration = Duration::from_millis(700);
/// The duration of a partition that is to heal: the others have a leader by then.
const APART: Duration = Duration::from_secs(2);
const BETWEEN_CHECKS: Duration = Duration::from_millis(2);
/// A login costs some 10 ms of a core for its hash alone; the nodes need the rest.
const BETWEEN_LOGINS: Duration = Duration::from_millis(50);
const USER: &str = "watched";

pub(super) async fn measure(how: How, runs: u32, cluster: &Arc<LiveCluster>) -> anyhow::Result<Times> {
    let api = cluster.api(WAIT_LIMIT)?;
    let request =
        v1::CreateUserRequest { username: USER.into(), password: password(USER), ..Default::default() };
    api.users().create(request).await?;
    let http =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(WAIT_LIMIT).build()?;
    let mut client = BrowserClient::new(http, USER);
    let url = cluster.url(1);
    client.sign_in([&url, &url], &password(USER)).await?;
    let mut times = Times::default();
    for run in 0..runs {
        tokio::time::sleep(CALM).await;
        one(how, run, cluster, &client, &mut times).await.with_context(|| format!("run {run}"))?;
        eprintln!("run {run}: {:?}", times.writes.last().copied().unwrap_or_default());
    }
    Ok(times)
}

async fn one(
    how: How,
    run: u32,
    cluster: &Arc<LiveCluster>,
    client: &BrowserClient,
    times: &mut Times,
) -> anyhow::Result<()> {
    let leader = cluster.leader().await.context("no leader")?;
    let gone = how.victim(run, leader);
    let survivors: Vec<u64> = nodes().filter(|node| *node != gone).collect();
    let survivor = survivors.get(run as usize % survivors.len()).copied().context("a survivor")?;
    let api = cluster.api_of(std::iter::once(survivor), WAIT_LIMIT)?;
    // Its connection is open already, as a busy cluster's are.
    api.users().get(v1::GetUserRequest { user: USER.into() }).await?;
    if how == How::Heal {
        how.fault(cluster, gone)?;
        tokio::time::sleep(APART).await;
    }
    let watch = Watch::default();
    let mut watchers: Vec<_> = survivors
        .iter()
        .map(|node| tokio::spawn(watch.clone().checks(client.clone(), *node, cluster.url(*node))))
        .collect();
    watchers.push(tokio::spawn(
        watch.clone().logins(client.clone(), survivors.iter().map(|node| cluster.url(*node)).collect()),
    ));

    if how == How::Heal {
        how.undo(cluster, gone).await?;
        let (longest, failed) = writes_for(CALM * 3, &api, run).await;
        times.writes.push(longest);
        times.writes_failed += failed;
    } else {
        let began = Instant::now();
        how.fault(cluster, gone)?;
        api.groups().create(group(format!("after-{run}"))).await?;
        times.writes.push(began.elapsed());
        tokio::time::sleep(CALM).await;
    }
    watch.over.store(true, Ordering::Relaxed);
    for watcher in watchers {
        watcher.await?;
    }
    times.add(&watch);
    if how != How::Heal {
        how.undo(cluster, gone).await?;
    }
    for node in nodes() {
        cluster.ready(node).await?;
    }
    Ok(())
}

/// Makes one write after the other for this long; returns the longest, and the number that failed.
async fn writes_for(time: Duration, api: &AdminClient, run: u32) -> (Duration, u64) {
    let (began, mut longest, mut failed) = (Instant::now(), Duration::ZERO, 0);
    for number in 0_u32.. {
        if began.elapsed() >= time {
            break;
        }
        let asked = Instant::now();
        if let Err(error) = api.groups().create(group(format!("healed-{run}-{number}"))).await {
            eprintln!("a write failed after {:?}: {error}", asked.elapsed());
            failed += 1;
        }
        longest = longest.max(asked.elapsed());
    }
    (longest, failed)
}

fn group(name: String) -> v1::CreateGroupRequest {
    v1::CreateGroupRequest { name, description: String::new() }
}

/// Checks and logins at survivors, until stopped.
#[derive(Clone, Default)]
struct Watch {
    over: Arc<AtomicBool>,
    checks: Arc<AtomicU64>,
    checks_failed: Arc<AtomicU64>,
    logins: Arc<AtomicU64>,
    logins_failed: Arc<AtomicU64>,
}

impl Watch {
    async fn checks(self, client: BrowserClient, node: u64, url: String) {
        let begun = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            let asked = begun.elapsed();
            let seen = client.check(&url).await;
            self.checks.fetch_add(1, Ordering::Relaxed);
            if seen != Seen::Accepted {
                let answered = begun.elapsed();
                eprintln!("a check at node {node} failed: {seen:?}, {asked:?} to {answered:?} into the run");
                self.checks_failed.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(BETWEEN_CHECKS).await;
        }
    }

    /// Signs in repeatedly, each time in a new browser, with the steps at survivors in turn.
    async fn logins(self, client: BrowserClient, urls: Vec<String>) {
        let mut turn = urls.iter().cycle();
        while !self.over.load(Ordering::Relaxed) {
            let (Some(first), Some(second)) = (turn.next(), turn.next()) else { return };
            let began = Instant::now();
            let outcome = client.anew().sign_in([first, second], &password(USER)).await;
            self.logins.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = outcome {
                eprintln!("a login failed after {:?}: {error:#}", began.elapsed());
                self.logins_failed.fetch_add(1, Ordering::Relaxed);
            }
            turn.next();
            tokio::time::sleep(BETWEEN_LOGINS).await;
        }
    }
}

impl Times {
    fn add(&mut self, watch: &Watch) {
        self.checks += watch.checks.load(Ordering::Relaxed);
        self.checks_failed += watch.checks_failed.load(Ordering::Relaxed);
        self.logins += watch.logins.load(Ordering::Relaxed);
        self.logins_failed += watch.logins_failed.load(Ordering::Relaxed);
    }
}

impl How {
    /// The node that fails: the leader; for partitions that heal, every other time a follower.
    fn victim(self, run: u32, leader: u64) -> u64 {
        let follower = nodes().find(|node| *node != leader);
        if self == Self::Heal && run % 2 == 1 { follower.unwrap_or(leader) } else { leader }
    }

    fn fault(self, cluster: &LiveCluster, leader: u64) -> anyhow::Result<()> {
        match self {
            Self::Kill => cluster.signal(leader, "-KILL"),
            Self::Freeze => cluster.signal(leader, "-STOP"),
            Self::Term => cluster.signal(leader, "-TERM"),
            Self::Cut | Self::Heal => {
                for other in nodes().filter(|node| *node != leader) {
                    cluster.environment().cut(leader, other)?;
                    cluster.environment().cut(other, leader)?;
                }
                Ok(())
            }
        }
    }

    async fn undo(self, cluster: &LiveCluster, leader: u64) -> anyhow::Result<()> {
        match self {
            Self::Kill | Self::Term => {
                cluster.ended(leader).await?;
                cluster.spawn(leader)?;
            }
            Self::Freeze => cluster.signal(leader, "-CONT")?,
            Self::Cut | Self::Heal => {
                for other in nodes().filter(|node| *node != leader) {
                    cluster.environment().heal(leader, other)?;
                    cluster.environment().heal(other, leader)?;
                }
            }
        }
        Ok(())
    }
}
