//! A node that is far behind: the log is purged, so it receives a snapshot.

use std::fs;

use conclave_cluster::{Cluster, SaveError};
use conclave_store::retention::KEEP_SNAPSHOTS;
use futures_util::future::join_all;

use super::harness::{TestCluster, create};

fn snapshot_count(cluster: &TestCluster, id: u64) -> usize {
    let names = fs::read_dir(cluster.data_dir(id).join("snapshots")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| name.ends_with(".snapshot")), "{names:?}");
    names.len()
}

async fn create_many(node: &Cluster, users: std::ops::Range<u32>) {
    for done in join_all(users.map(|n| create(node, n))).await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_far_behind_catches_up_by_snapshot_and_two_are_kept() {
    let mut cluster = TestCluster::start(3).await;
    let away = cluster.followers().await[0];
    create_many(cluster.node(away), 0..10).await;
    cluster.stop(away).await;
    let here: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != away).collect();
    for round in 1..=4 {
        create_many(cluster.node(here[0]), round * 100..round * 100 + 100).await;
        cluster.agree().await;
        for id in &here {
            cluster.node(*id).compact().await.unwrap();
        }
    }
    assert_eq!(snapshot_count(&cluster, away), 0);
    cluster.start_node(away).await.unwrap();
    assert_eq!(cluster.agree().await, 410);
    assert!(snapshot_count(&cluster, away) >= 1, "the log was purged: only a snapshot can have delivered it");
    assert!(here.iter().all(|id| snapshot_count(&cluster, *id) == KEEP_SNAPSHOTS));

    // It continues from there by itself, and a restart starts from the file.
    create_many(cluster.node(away), 500..520).await;
    cluster.stop_all().await;
    cluster.start_all().await;
    assert_eq!(cluster.agree().await, 430);
    // Requests older than the snapshot are remembered through it.
    create(cluster.node(away), 5).await.unwrap();
    assert_eq!(cluster.agree().await, 430);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_reaches_back_to_the_older_snapshot() {
    let mut cluster = TestCluster::start(1).await;
    create_many(cluster.node(1), 0..20).await;
    cluster.node(1).compact().await.unwrap();
    create_many(cluster.node(1), 20..40).await;
    cluster.node(1).take_snapshot().await.unwrap();
    create_many(cluster.node(1), 40..50).await;
    cluster.stop(1).await;
    let dir = cluster.data_dir(1).join("snapshots");
    let newest = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&newest, bytes).unwrap();
    cluster.start_node(1).await.unwrap();
    assert_eq!(cluster.agree().await, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_would_fill_the_disk_is_refused_before_its_first_byte() {
    let cluster = TestCluster::start(1).await;
    let node = cluster.node(1);
    assert!(matches!(node.begin_upload(u64::MAX / 2), Err(SaveError::NoRoom { .. })));
    assert!(node.begin_upload(1).is_ok());
}
