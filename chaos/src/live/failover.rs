//! How long the next write takes when a leader goes: from the fault to the first acknowledgement of a write that began after it, at a
//! survivor. Beside it every survivor is asked for checks all the time, and none may fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use conclave_client::v1;

use super::{
    cluster::Cluster,
    ground::{Kind, nodes},
    traffic::password,
    visitor::Visitor,
};
use crate::history::Seen;

/// How the leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `kill -9`.
    Kill,
    /// SIGSTOP: its sockets stay open.
    Freeze,
    /// Cut off from everybody, in both directions.
    Cut,
    /// SIGTERM.
    Term,
}

impl How {
    /// Each of them by name.
    pub const ALL: &[(&str, Self)] =
        &[("kill", Self::Kill), ("freeze", Self::Freeze), ("cut", Self::Cut), ("term", Self::Term)];

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, how)| *how)
    }

    /// Whether nodes must be cut apart.
    pub(super) const fn ground(self) -> Kind {
        if matches!(self, Self::Cut) { Kind::Spaces } else { Kind::Plain }
    }
}

/// What was measured.
#[derive(Default)]
pub struct Times {
    /// Each run's.
    pub writes: Vec<Duration>,
    /// Checks at survivors meanwhile.
    pub checks: u64,
    /// Of those, without an answer or with a wrong one.
    pub checks_failed: u64,
}

/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before each fault: the cluster is whole and quiet.
const CALM: Duration = Duration::from_millis(700);
const USER: &str = "watched";

pub async fn measure(how: How, runs: u32, cluster: &Arc<Cluster>) -> anyhow::Result<Times> {
    let api = cluster.api(PATIENCE)?;
    let order =
        v1::CreateUserRequest { username: USER.into(), password: password(USER), ..Default::default() };
    api.users().create(order).await?;
    let http =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE).build()?;
    let mut visitor = Visitor::new(http);
    let url = cluster.url(1);
    visitor.sign_in([&url, &url], USER, &password(USER)).await?;
    let mut times = Times::default();
    for run in 0..runs {
        tokio::time::sleep(CALM).await;
        one(how, run, cluster, &visitor, &mut times).await.with_context(|| format!("run {run}"))?;
        eprintln!("run {run}: {:?}", times.writes.last().copied().unwrap_or_default());
    }
    Ok(times)
}

async fn one(
    how: How,
    run: u32,
    cluster: &Arc<Cluster>,
    visitor: &Visitor,
    times: &mut Times,
) -> anyhow::Result<()> {
    let leader = cluster.leader().await.context("no leader")?;
    let survivors: Vec<u64> = nodes().filter(|node| *node != leader).collect();
    let (over, done, failed) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let watchers: Vec<_> = survivors
        .iter()
        .map(|node| {
            let (visitor, url) = (visitor.clone(), cluster.url(*node));
            let (over, done, failed) = (over.clone(), done.clone(), failed.clone());
            let (node, begun) = (*node, Instant::now());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let asked = begun.elapsed();
                    let seen = visitor.check(&url).await;
                    done.fetch_add(1, Ordering::Relaxed);
                    if seen != Seen::Accepted {
                        eprintln!(
                            "a check at node {node} failed: {seen:?}, {asked:?} to {:?} into the run",
                            begun.elapsed()
                        );
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        })
        .collect();
    let survivor = survivors.get(run as usize % survivors.len()).copied().context("a survivor")?;
    let api = cluster.api_of(std::iter::once(survivor), PATIENCE)?;
    // Its connection is open already, as a busy cluster's are.
    api.users().get(v1::GetUserRequest { user: USER.into() }).await?;

    let began = Instant::now();
    fault(how, cluster, leader)?;
    let order = v1::CreateGroupRequest { name: format!("after-{run}"), description: String::new() };
    api.groups().create(order).await?;
    times.writes.push(began.elapsed());
    tokio::time::sleep(CALM).await;
    over.store(true, Ordering::Relaxed);
    for watcher in watchers {
        watcher.await?;
    }
    times.checks += done.load(Ordering::Relaxed);
    times.checks_failed += failed.load(Ordering::Relaxed);
    undo(how, cluster, leader).await
}

fn fault(how: How, cluster: &Cluster, leader: u64) -> anyhow::Result<()> {
    match how {
        How::Kill => cluster.signal(leader, "-KILL"),
        How::Freeze => cluster.signal(leader, "-STOP"),
        How::Term => cluster.signal(leader, "-TERM"),
        How::Cut => {
            for other in nodes().filter(|node| *node != leader) {
                cluster.ground().cut(leader, other)?;
                cluster.ground().cut(other, leader)?;
            }
            Ok(())
        }
    }
}

async fn undo(how: How, cluster: &Cluster, leader: u64) -> anyhow::Result<()> {
    match how {
        How::Kill | How::Term => {
            cluster.ended(leader).await?;
            cluster.spawn(leader)?;
        }
        How::Freeze => cluster.signal(leader, "-CONT")?,
        How::Cut => {
            for other in nodes().filter(|node| *node != leader) {
                cluster.ground().heal(leader, other)?;
                cluster.ground().heal(other, leader)?;
            }
        }
    }
    for node in nodes() {
        cluster.ready(node).await?;
    }
    Ok(())
}
