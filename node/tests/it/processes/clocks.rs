//! Wrong wall clocks under three real nodes: jumps that must have no effect, a clock that stays wrong, and the recovery
//! from a log time that all clocks together had moved ahead.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    relying_party::{Way, sign_in},
    restore::{DemoDirectory, Serving, json},
    runbooks::Runbook,
    world::{Demo, browser},
};

const LIMIT: Duration = Duration::from_mins(1);
const DAY: i64 = 86_400;

/// Wall clocks that the test sets, one for each node.
struct Clocks {
    dir: tempfile::TempDir,
    library: PathBuf,
}

impl Clocks {
    fn build() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("offset.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clocks/offset.c");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
        assert!(compile.status().unwrap().success(), "the library for wrong clocks compiles");
        Self { dir, library }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let (library, offsets) = (self.library.display().to_string(), self.dir.path().display().to_string());
        vec![("LD_PRELOAD", library), ("CLOCK_OFFSETS", offsets)]
    }

    fn start(&self) -> DemoDirectory {
        let environment = self.environment();
        let settings: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        DemoDirectory::start_with(&settings)
    }

    /// Sets the wall clock of this node ahead by this many seconds.
    fn set(&self, node: u64, seconds: i64) {
        let (file, part) = (self.dir.path().join(node.to_string()), self.dir.path().join("part"));
        std::fs::write(&part, seconds.to_string()).unwrap();
        std::fs::rename(part, file).unwrap();
    }

    fn set_all(&self, seconds: i64) {
        (1..=3).for_each(|node| self.set(node, seconds));
    }
}

/// Returns true if the node reports that it is ready, and its report.
async fn readiness(demo: &Demo, node: u64) -> (bool, String) {
    let url = format!("{}/healthz/ready", demo.cluster.nodes[usize::try_from(node).unwrap() - 1].http);
    match browser().get(url).send().await {
        Ok(reply) => (reply.status().is_success(), reply.text().await.unwrap_or_default()),
        Err(error) => (false, error.to_string()),
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::task::yield_now().await;
    }
}

async fn leader(house: &DemoDirectory) -> u64 {
    let mut leader = None;
    until("a node leads", async || {
        leader = house.demo.leader().await;
        leader.is_some()
    })
    .await;
    leader.unwrap()
}

fn problems(house: &DemoDirectory) -> Vec<String> {
    let status = house.demo.conclave(&["cluster", "status"]);
    let said = status["problems"].as_array().cloned().unwrap_or_default();
    said.iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// Signs users in until `stop` is set; returns the number of failures.
async fn keep_signing_in(house: Arc<DemoDirectory>, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> usize {
    let mut lost = 0;
    while !stop.load(Ordering::Relaxed) {
        match sign_in(&house.demo, Way::EachToTheNextNode).await {
            Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
            Err(_) => lost += 1,
        }
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_leaps_or_stays_wrong_loses_no_sign_in() {
    let clocks = Clocks::build();
    let house = Arc::new(clocks.start());
    house.ready(&[1, 2, 3]).await;
    let before = sign_in(&house.demo, Way::EachToTheNextNode).await.unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let people = tokio::spawn(keep_signing_in(Arc::clone(&house), Arc::clone(&stop), Arc::clone(&done)));
    let signed_in_since = async |count: usize| {
        let from = done.load(Ordering::Relaxed);
        until("people sign in", async || done.load(Ordering::Relaxed) >= from + count).await;
    };

    // The leader's clock jumps ahead by ten days and returns, then back, then ahead by an hour: no node is affected.
    for jump in [10 * DAY, -10 * DAY, 3_600] {
        let leader = leader(&house).await;
        clocks.set(leader, jump);
        signed_in_since(6).await;
        clocks.set(leader, 0);
        signed_in_since(3).await;
    }
    for node in 0..3 {
        assert!(house.knows(node, &before).await, "the session of before lives at node {}", node + 1);
    }

    // The clock stays wrong: the node reports it in readiness and status, another one leads, and users continue to sign
    // in on all nodes.
    let leader = leader(&house).await;
    clocks.set(leader, 3_600);
    until("the node is not ready", async || !readiness(&house.demo, leader).await.0).await;
    let (_, said) = readiness(&house.demo, leader).await;
    assert!(said.contains("the clock of this machine is 60 min ahead of the cluster clock"), "{said}");
    until("another node leads", async || house.demo.leader().await.is_some_and(|now| now != leader)).await;
    assert!(problems(&house).iter().any(|line| line.starts_with(&format!("node {leader} is not ready"))));
    signed_in_since(6).await;
    clocks.set(leader, 0);
    until("the node is ready again", async || readiness(&house.demo, leader).await.0).await;
    assert!(problems(&house).is_empty());
    stop.store(true, Ordering::Relaxed);
    assert_eq!(people.await.unwrap(), 0, "no sign-in was lost, of {}", done.load(Ordering::Relaxed));
    for node in 0..3 {
        assert!(house.knows(node, &before).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_time_that_wrong_clocks_moved_ahead_is_brought_back_by_the_runbook() {
    let clocks = Clocks::build();
    let mut house = clocks.start();
    house.create("kept").await;
    house.demo.kill();

    // All machines start with clocks that are ten days ahead: no clock contradicts them.
    clocks.set_all(10 * DAY);
    let environment = clocks.environment();
    let serve = |house: &DemoDirectory, node: u64| {
        Serving::start_with(&house.config(node), &house.file(&format!("{node}.log")), &environment)
    };
    let nodes: Vec<Serving> = (1..=3).map(|node| serve(&house, node)).collect();
    house.ready(&[1, 2, 3]).await;
    house.create("made-ahead").await;
    let snapshot = house.file("ahead.snapshot").display().to_string();
    house.demo.conclave(&["snapshot", "save", "--to", &snapshot, "--linearizable"]);
    drop(nodes);

    // The clocks are right again. The cluster reports the fault instead of refusing every user without an explanation.
    clocks.set_all(0);
    let nodes: Vec<Serving> = (1..=3).map(|node| serve(&house, node)).collect();
    until("every node says what is wrong", async || {
        let mut said = Vec::new();
        for node in 1..=3 {
            said.push(readiness(&house.demo, node).await.1);
        }
        said.iter().all(|text| text.contains("log time is") && text.contains("cluster reset-clock"))
    })
    .await;
    let mut book = Runbook::open("clocks.md");
    let config = "--config /etc/conclave/conclave.toml";
    let said = book.step(&house, 1, &format!("conclave cluster status {config}"));
    assert!(said.lines().next().unwrap().contains("log time is"), "{said}");
    book.step(&house, 1, &format!("conclave cluster reset-clock --yes {config}"));
    house.ready(&[1, 2, 3]).await;
    sign_in(&house.demo, Way::EachToTheNextNode).await.unwrap();
    assert!(house.user("kept").await.is_some() && house.user("made-ahead").await.is_some());
    let again = json(&["cluster", "reset-clock", "--yes", "--config", &house.config(1)]).unwrap_err();
    assert!(again.contains("not ahead"), "{again}");

    // The snapshot of that time also founds a cluster.
    drop(nodes);
    std::fs::rename(snapshot, house.file("conclave.snapshot")).unwrap();
    let file = house.file("conclave.snapshot").display().to_string();
    let refused = json(&["restore", &file, "--config", &house.config(1), "--set-aside"]).unwrap_err();
    assert!(refused.contains("--reset-log-time"), "{refused}");
    let line = format!("conclave restore /backups/conclave.snapshot {config} --set-aside --reset-log-time");
    book.step(&house, 1, &line);
    book.end();
    let _node = serve(&house, 1);
    house.ready(&[1]).await;
    let status: Value = json(&["cluster", "status", "--config", &house.config(1)]).unwrap();
    assert_eq!(status["problems"], serde_json::json!([]));
    assert!(house.user("made-ahead").await.is_some());
}
