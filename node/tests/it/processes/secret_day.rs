//! The change of the cluster secret, as `deploy/runbooks/leaked-secret.md` describes it: three rolling restarts during
//! logins, visits and refreshes. No user is signed out, no login fails, and afterwards the old secret opens nothing.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    relying_party::{Way, refresh, sign_in},
    rotation::{log_in_until, stay_signed_in},
    world::Demo,
};

/// The longest time for a node to come back, and for the cluster to complete a phase.
const LIMIT: Duration = Duration::from_mins(1);
/// The least number of logins and visits for a meaningful result.
const LOGINS: usize = 5;
const VISITS: usize = 50;

/// The current and the accepted secrets in a node's settings.
#[derive(Clone, Copy)]
struct Ring<'a> {
    current: &'a str,
    accepted: &'a [&'a str],
}

fn dir(demo: &Demo) -> PathBuf {
    demo.cluster.nodes[0].data_dir.parent().unwrap().to_owned()
}

fn conclave(demo: &Demo, config: &str, args: &[&str]) -> Output {
    let config = dir(demo).join(config);
    Command::new(env!("CARGO_BIN_EXE_conclave")).args(args).arg("--config").arg(config).output().unwrap()
}

/// Writes the settings of a node as an operator would change them, to the file `to`.
fn configure(demo: &Demo, from: &str, to: &str, ring: Ring<'_>) {
    let shown = |name: &str| format!("{:?}", dir(demo).join(name).display().to_string());
    let text = fs::read_to_string(dir(demo).join(from)).unwrap();
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("accept_secret_files")) {
        if line.starts_with("secret_file") {
            lines.push(format!("secret_file = {}", shown(ring.current)));
            let accepted: Vec<_> = ring.accepted.iter().map(|name| shown(name)).collect();
            lines.push(format!("accept_secret_files = [{}]", accepted.join(", ")));
        } else {
            lines.push(line.to_owned());
        }
    }
    fs::write(dir(demo).join(to), lines.join("\n")).unwrap();
}

async fn restart(demo: &Demo, node: u64) {
    let before = demo.pid_of(node).expect("the node runs");
    assert!(Command::new("kill").args(["-TERM", &before.to_string()]).status().unwrap().success());
    let deadline = Instant::now() + LIMIT;
    while demo.pid_of(node).is_none_or(|pid| pid == before) {
        assert!(Instant::now() < deadline, "node {node} does not come back");
        tokio::task::yield_now().await;
    }
}

/// One node after the other, each ready before the next.
async fn roll(demo: &Demo, ring: Ring<'_>) {
    for node in &demo.cluster.nodes {
        let file = format!("node-{}.toml", node.id);
        configure(demo, &file, &file, ring);
        restart(demo, node.id).await;
        demo.all_ready().await;
    }
}

async fn safe_to_drop(demo: &Demo) -> serde_json::Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let asked = conclave(demo, "node-1.toml", &["secret", "status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
        if status["safe_to_drop"] == true {
            return status;
        }
        assert!(Instant::now() < deadline, "{status} {}", String::from_utf8_lossy(&asked.stderr));
        tokio::task::yield_now().await;
    }
}

async fn keep_refreshing(demo: Arc<Demo>, mut token: String, over: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        token = refresh(&demo, Way::Front, &token)
            .await
            .unwrap_or_else(|e| panic!("a family was lost after {count} refreshes: {e:#}"));
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_changes_and_nobody_is_signed_out() {
    let demo = Arc::new(Demo::start(&["--restart"]));
    let made = conclave_secret(&demo, "new.secret");
    assert!(made.status.success(), "{made:?}");
    let (old, new) = ("cluster.secret", "new.secret");
    let over = Arc::new(AtomicBool::new(false));
    let logins = Arc::new(AtomicUsize::new(0));
    // One user who keeps visiting, one who is absent all day, and one who refreshes tokens.
    let kept = sign_in(&demo, Way::Front).await.unwrap();
    let away = sign_in(&demo, Way::Front).await.unwrap();
    let token = sign_in(&demo, Way::Front).await.unwrap().refresh_token;
    let worker = tokio::spawn(log_in_until(demo.clone(), over.clone(), logins.clone()));
    let watcher = tokio::spawn(stay_signed_in(demo.clone(), kept.browser.clone(), over.clone()));
    let refresher = tokio::spawn(keep_refreshing(demo.clone(), token, over.clone()));

    roll(&demo, Ring { current: old, accepted: &[new] }).await;
    roll(&demo, Ring { current: new, accepted: &[old] }).await;
    let status = safe_to_drop(&demo).await;
    assert_eq!(status["sealed_under_other_key"], 0, "{status}");
    roll(&demo, Ring { current: new, accepted: &[] }).await;

    over.store(true, Ordering::Relaxed);
    worker.await.unwrap();
    let (visits, renewals) = (watcher.await.unwrap(), refresher.await.unwrap());
    let logins = logins.load(Ordering::Relaxed);
    println!("{logins} logins, {visits} visits and {renewals} renewals while the secret changed");
    assert!(
        logins >= LOGINS && visits >= VISITS && renewals >= VISITS,
        "too little happened to prove anything"
    );

    let reply = away.browser.get(format!("{}/", demo.cluster.front)).send().await.unwrap();
    assert_eq!(reply.status(), 200, "who was away all day is still signed in");
    refresh(&demo, Way::Front, &away.refresh_token).await.expect("and their refresh token is good");

    configure(&demo, "node-1.toml", "left-behind.toml", Ring { current: old, accepted: &[] });
    let refused = conclave(&demo, "left-behind.toml", &["user", "list"]);
    assert!(!refused.status.success(), "an operator with the old secret was let in: {refused:?}");
    assert!(conclave(&demo, "node-1.toml", &["user", "list"]).status.success());
    an_old_node_is_refused(&demo, Ring { current: old, accepted: &[] }).await;

    roll_one(&demo, 3, Ring { current: new, accepted: &[] }).await;
    let digests = demo.digests().await;
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
}

fn conclave_secret(demo: &Demo, name: &str) -> Output {
    let out = dir(demo).join(name);
    Command::new(env!("CARGO_BIN_EXE_conclave")).args(["secret", "new", "--out"]).arg(out).output().unwrap()
}

async fn an_old_node_is_refused(demo: &Demo, ring: Ring<'_>) {
    configure(demo, "node-3.toml", "node-3.toml", ring);
    let log = dir(demo).join("node-3.log");
    let seen = fs::metadata(&log).unwrap().len();
    let pid = demo.pid_of(3).unwrap();
    assert!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap().success());
    let deadline = Instant::now() + LIMIT;
    loop {
        let text = fs::read(&log).unwrap();
        let since = String::from_utf8_lossy(&text[usize::try_from(seen).unwrap()..]).into_owned();
        if since.contains("another cluster secret") {
            return;
        }
        assert!(Instant::now() < deadline, "a node with the old secret was not refused: {since}");
        tokio::task::yield_now().await;
    }
}

/// A node that is restarted repeatedly reads its settings at its next start.
async fn roll_one(demo: &Demo, node: u64, ring: Ring<'_>) {
    let file = format!("node-{node}.toml");
    configure(demo, &file, &file, ring);
    demo.all_ready().await;
}
