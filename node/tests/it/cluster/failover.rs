//! The leader stops in the middle of the work.

use std::time::{Duration, Instant};

use conclave_cluster::ProposeError;
use futures_util::future::join_all;

use super::harness::{LIMIT, TestCluster, body, create, created, request};

const BEFORE: u32 = 20;
const DURING: u32 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_in_flight_at_followers_survive_the_leaders_death() {
    let mut cluster = TestCluster::start(3).await;
    let leader = cluster.leader().await;
    let followers = cluster.followers().await;
    for n in 0..BEFORE {
        create(cluster.node(followers[0]), n).await.unwrap();
    }
    let writes: Vec<_> = (BEFORE..BEFORE + DURING)
        .map(|n| {
            let node = cluster.node(followers[n as usize % 2]).clone();
            tokio::spawn(async move { (n, created(&node, n).await) })
        })
        .collect();
    // In flight: some are acknowledged, most are not.
    let users = |id| cluster.node(id).view().user_count();
    while users(leader) <= BEFORE as usize {
        tokio::task::yield_now().await;
    }
    cluster.kill(leader).await;

    let mut replies = Vec::new();
    for written in join_all(writes).await {
        replies.push(written.unwrap());
    }
    assert_ne!(cluster.leader().await, leader);
    let total = usize::try_from(BEFORE + DURING).unwrap();
    assert_eq!(cluster.agree().await, total, "each once");

    // The response was lost, and the client retries at another node.
    for (n, first) in replies.iter().step_by(20) {
        let again = create(cluster.node(followers[1]), *n).await.unwrap();
        assert_eq!(again.body, first.body);
        // The same write under another request id is another write: the request id makes the retry safe.
        let other = cluster.node(followers[1]).propose(request(n + 1_000_000), body(*n)).await;
        assert!(matches!(other, Err(ProposeError::Refused(_))), "{other:?}");
    }
    cluster.start_node(leader).await.unwrap();
    assert_eq!(cluster.agree().await, total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_at_the_old_leader_goes_to_the_new_one() {
    let mut cluster = TestCluster::start(3).await;
    for n in 0..3 {
        let leader = cluster.leader().await;
        cluster.stop(leader).await;
        let next = cluster.leader().await;
        create(cluster.node(next), n * 2).await.unwrap();
        cluster.start_node(leader).await.unwrap();
        create(cluster.node(leader), n * 2 + 1).await.unwrap();
    }
    assert_eq!(cluster.agree().await, 6);
}

/// openraft goes on naming a leader that has long stopped; a load balancer must not believe it.
#[tokio::test]
async fn a_node_without_a_quorum_is_not_ready_although_it_remembers_a_leader() {
    let mut cluster = TestCluster::start(3).await;
    let leader = cluster.leader().await;
    let followers = cluster.followers().await;
    let survivor = followers[0];
    cluster.ready(survivor).await;
    cluster.kill(leader).await;
    cluster.kill(followers[1]).await;
    let turned_red = async {
        while cluster.node(survivor).readiness().is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), turned_red)
        .await
        .expect("the survivor calls itself ready for ever");
    cluster.start_node(leader).await.unwrap();
    cluster.ready(survivor).await;
}

/// By its timers alone no follower can lead sooner: the leader's lease, and then the shortest election timeout
/// (docs/design/consensus.md).
const TIMERS: Duration = Duration::from_millis(450);
/// A busy machine may miss the fast path now and then; the timers alone never achieve it.
const TRIES: u32 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_process_is_succeeded_long_before_any_timer() {
    let mut cluster = TestCluster::start(3).await;
    let mut times = Vec::new();
    for n in 0..TRIES {
        let leader = cluster.leader().await;
        let survivor = cluster.followers().await[0];
        create(cluster.node(survivor), 2 * n).await.unwrap();
        let began = Instant::now();
        cluster.kill(leader).await;
        create(cluster.node(survivor), 2 * n + 1).await.unwrap();
        times.push(began.elapsed());
        cluster.start_node(leader).await.unwrap();
        cluster.ready(leader).await;
    }
    assert!(times.iter().any(|time| *time < TIMERS), "{times:?}");
    assert_eq!(cluster.agree().await, 2 * TRIES as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_in_order_gives_the_lead_away_first() {
    let mut cluster = TestCluster::start(3).await;
    let mut times = Vec::new();
    for n in 0..TRIES {
        let leader = cluster.leader().await;
        cluster.ready(leader).await;
        created(cluster.node(leader), 2 * n).await;
        let began = Instant::now();
        cluster.node(leader).transfer_leadership().await;
        assert!(!cluster.node(leader).is_leader());
        created(cluster.node(leader), 2 * n + 1).await;
        times.push(began.elapsed());
        assert_ne!(cluster.leader().await, leader);
    }
    assert!(times.iter().any(|time| *time < TIMERS), "{times:?}");

    // With the others gone there is no node to transfer leadership to; the stop must not wait for ever.
    let next = cluster.leader().await;
    for id in cluster.ids().into_iter().filter(|id| *id != next) {
        cluster.kill(id).await;
    }
    tokio::time::timeout(LIMIT, cluster.node(next).transfer_leadership()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_stands_against_a_leader_that_lives() {
    let cluster = TestCluster::start(3).await;
    let leader = cluster.leader().await;
    create(cluster.node(leader), 1).await.unwrap();
    let term = cluster.node(leader).term();
    for follower in cluster.followers().await {
        cluster.node(follower).suspect(leader);
    }
    for n in 2..20 {
        create(cluster.node(leader), n).await.unwrap();
    }
    assert_eq!((cluster.leader().await, cluster.node(leader).term()), (leader, term));
}
