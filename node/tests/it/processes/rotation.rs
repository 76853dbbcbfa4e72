//! Logins in which every request uses another node: all of them succeed, even while leaders die.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    relying_party::{Way, redeem, refresh, sign_in},
    world::{Demo, kill_9},
};

const LOGINS: usize = 200;
/// Leaders are killed until both are reached, within the limit.
const KILLS: usize = 6;
const LIMIT: Duration = Duration::from_mins(2);
const KILL_EVERY: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_logins_each_step_at_another_node() {
    let demo = Demo::start(&[]);
    for n in 0..LOGINS {
        let signed_in =
            sign_in(&demo, Way::EachToTheNextNode).await.unwrap_or_else(|e| panic!("login {n}: {e:#}"));
        if n % 20 == 0 {
            let (status, body) =
                redeem(&demo, Way::EachToTheNextNode, &signed_in.code, &signed_in.verifier).await.unwrap();
            assert_eq!(
                (status, body.contains("invalid_grant")),
                (400, true),
                "a code was accepted twice: {body}"
            );
        }
    }
    let digests = demo.digests().await;
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_killed_and_no_login_session_or_code_is_lost() {
    let demo = Arc::new(Demo::start(&["--restart"]));
    let over = Arc::new(AtomicBool::new(false));
    let logins = Arc::new(AtomicUsize::new(0));
    let kept = sign_in(&demo, Way::Front).await.unwrap();

    let workers: Vec<_> =
        (0..3).map(|_| tokio::spawn(log_in_until(demo.clone(), over.clone(), logins.clone()))).collect();
    let watcher = tokio::spawn(stay_signed_in(demo.clone(), kept.browser.clone(), over.clone()));
    let killed = kill_leaders(&demo, &logins).await;
    over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    let visits = watcher.await.unwrap();

    demo.all_ready().await;
    let logins = logins.load(Ordering::Relaxed);
    println!("{logins} logins and {visits} visits while {killed} leaders were killed");
    assert!(killed >= KILLS && logins >= LOGINS && visits >= 20, "too little happened to prove anything");
    refresh(&demo, Way::Front, &kept.refresh_token)
        .await
        .expect("the first login's refresh token is still good");
    let digests = demo.digests().await;
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
}

pub(super) async fn log_in_until(demo: Arc<Demo>, over: Arc<AtomicBool>, logins: Arc<AtomicUsize>) {
    while !over.load(Ordering::Relaxed) {
        let signed_in =
            sign_in(&demo, Way::Front).await.unwrap_or_else(|e| panic!("a login was lost: {e:#}"));
        assert!(!signed_in.subject.is_empty());
        let (status, body) = redeem(&demo, Way::Front, &signed_in.code, &signed_in.verifier).await.unwrap();
        assert_eq!(status, 400, "a code was accepted twice: {body}");
        logins.fetch_add(1, Ordering::Relaxed);
    }
}

/// Opens the home page repeatedly: a signed-in user never sees the login page.
pub(super) async fn stay_signed_in(
    demo: Arc<Demo>,
    browser: reqwest::Client,
    over: Arc<AtomicBool>,
) -> usize {
    let mut visits = 0;
    let mut pause = tokio::time::interval(Duration::from_millis(100));
    while !over.load(Ordering::Relaxed) {
        pause.tick().await;
        let reply = browser.get(format!("{}/", demo.cluster.front)).send().await.unwrap();
        assert_eq!(reply.status(), 200, "a person who is signed in was turned away after {visits} visits");
        visits += 1;
    }
    visits
}

async fn kill_leaders(demo: &Demo, logins: &AtomicUsize) -> usize {
    let end = Instant::now() + LIMIT;
    let mut every = tokio::time::interval(KILL_EVERY);
    let mut killed = 0;
    while Instant::now() < end && (killed < KILLS || logins.load(Ordering::Relaxed) < LOGINS) {
        every.tick().await;
        let leader = demo.leader().await;
        if let Some(pid) = leader.and_then(|leader| demo.pid_of(leader)) {
            kill_9(pid);
            killed += 1;
        }
    }
    killed
}
