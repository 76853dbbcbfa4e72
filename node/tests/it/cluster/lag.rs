//! Reads at a node that is behind.

use std::time::Instant;

use conclave_cluster::ViewError;

use super::harness::{LIMIT, TestCluster, create, user_id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_follower_waits_until_it_has_seen_the_index() {
    let cluster = TestCluster::start(3).await;
    let (leader, followers) = (cluster.leader().await, cluster.followers().await);
    let behind = cluster.node(followers[0]).clone();
    cluster.node(followers[0]).hold_back(true);
    let done = create(cluster.node(leader), 1).await.unwrap();
    assert!(behind.view().index() < done.index, "it is held back");

    let reading = tokio::spawn({
        let behind = behind.clone();
        async move { behind.view_at(done.index).await }
    });
    // Another write, applied by the other two: time has passed, and the reader still waits rather than return stale
    // data.
    create(cluster.node(followers[1]), 2).await.unwrap();
    assert!(!reading.is_finished());
    cluster.node(followers[0]).hold_back(false);
    let state = reading.await.unwrap().unwrap();
    assert!(state.index() >= done.index && state.user(user_id(1)).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_stays_behind_says_so_and_shows_nothing() {
    let cluster = TestCluster::start(3).await;
    let (leader, followers) = (cluster.leader().await, cluster.followers().await);
    cluster.node(followers[0]).hold_back(true);
    let done = create(cluster.node(leader), 1).await.unwrap();
    assert_eq!(cluster.node(followers[0]).view_at(done.index).await.err(), Some(ViewError::Behind));
    cluster.node(followers[0]).hold_back(false);
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_from_the_future_is_named_so_on_every_node() {
    let cluster = TestCluster::start(3).await;
    let index = create(cluster.node(1), 1).await.unwrap().index;
    for id in cluster.ids() {
        assert_eq!(cluster.node(id).view_at(index + 1_000).await.err(), Some(ViewError::FromTheFuture));
        assert!(cluster.node(id).view_at(index).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_confirmed() {
    let mut cluster = TestCluster::start(3).await;
    let index = create(cluster.node(1), 1).await.unwrap().index;
    let leader = cluster.leader().await;
    for id in cluster.followers().await {
        cluster.kill(id).await;
    }
    let began = Instant::now();
    assert_eq!(cluster.node(leader).view_at(index + 1).await.err(), Some(ViewError::Behind));
    assert!(cluster.node(leader).confirmed_view().await.is_none());
    assert!(began.elapsed() < LIMIT);
    assert!(cluster.node(leader).view_at(index).await.is_ok(), "what it has seen it may still show");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_never_passes_its_last_state_for_a_later_one() {
    let mut cluster = TestCluster::start(3).await;
    let index = create(cluster.node(1), 1).await.unwrap().index;
    cluster.agree().await;
    let node = cluster.node(2).clone();
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { node.view_at(index + 50).await }
    });
    cluster.stop(2).await;
    assert!(waiting.await.unwrap().is_err());
    assert_eq!(node.view_at(index + 50).await.err(), Some(ViewError::Behind));
}
