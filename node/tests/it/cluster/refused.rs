//! Data directories that must not join a cluster as they are: each is refused with its own message, and none is
//! changed.

use std::{collections::BTreeMap, fs, path::Path};

use conclave_cluster::{BootstrapError, StartError};

use super::harness::{TestCluster, created, keys};

/// Every file but the lock, whose pid is written at each attempt.
fn content(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.file_name().unwrap() != "lock" {
                files.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_directory_under_an_old_number_is_refused() {
    let mut cluster = TestCluster::start(3).await;
    created(cluster.node(1), 1).await;
    cluster.stop(3).await;
    let aside = cluster.data_dir(3).with_extension("aside");
    fs::rename(cluster.data_dir(3), &aside).unwrap();

    let error = cluster.start_node(3).await.unwrap_err();
    assert!(matches!(error, StartError::Bootstrap(BootstrapError::Wiped { node: 3, .. })), "{error}");
    assert!(error.to_string().contains("A wiped disk cannot come back under its old number"), "{error}");
    assert!(error.to_string().contains("bring back its data directory"), "{error}");

    fs::remove_dir_all(cluster.data_dir(3)).unwrap();
    fs::rename(&aside, cluster.data_dir(3)).unwrap();
    cluster.start_node(3).await.unwrap();
    assert_eq!(cluster.agree().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_that_starts_together_with_the_others_is_refused_as_well() {
    let mut cluster = TestCluster::start(3).await;
    created(cluster.node(1), 1).await;
    cluster.stop_all().await;
    // The first node: the one that would write the first entry of a new cluster.
    fs::remove_dir_all(cluster.data_dir(1)).unwrap();
    let wiped = tokio::spawn(cluster.start_one(1, cluster.options(1)));
    cluster.start_node(2).await.unwrap();
    cluster.start_node(3).await.unwrap();
    let error = wiped.await.unwrap().err().unwrap();
    assert!(matches!(error, StartError::Bootstrap(BootstrapError::Wiped { node: 1, .. })), "{error}");
    assert_eq!(cluster.agree().await, 1);
    created(cluster.node(2), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_number_or_another_secret_is_refused_before_anything_is_opened() {
    let mut cluster = TestCluster::start(3).await;
    created(cluster.node(1), 1).await;
    cluster.stop(2).await;
    let before = content(&cluster.data_dir(2));

    let mut options = cluster.options(2);
    options.node = 7;
    let error = cluster.start_one(2, options).await.err().unwrap();
    assert!(matches!(error, StartError::OtherNode { found: 2, meant: 7 }), "{error}");
    assert!(error.to_string().contains("correct `node.id` or `node.data_dir`"), "{error}");

    let mut options = cluster.options(2);
    options.keys = keys(9);
    let error = cluster.start_one(2, options).await.err().unwrap();
    assert!(matches!(error, StartError::OtherSecret), "{error}");
    assert!(error.to_string().contains("bring back the secret that it was made with"), "{error}");

    assert_eq!(content(&cluster.data_dir(2)), before);
    cluster.start_node(2).await.unwrap();
    assert_eq!(cluster.agree().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_of_another_cluster_stops_its_own_node_and_no_other() {
    let mut ours = TestCluster::start(3).await;
    let mut theirs = TestCluster::start(3).await;
    created(ours.node(1), 1).await;
    created(theirs.node(1), 2).await;
    theirs.agree().await;
    ours.stop(3).await;
    theirs.stop_all().await;

    let mut options = ours.options(3);
    options.data_dir = theirs.data_dir(3);
    let foreign = ours.start_one(3, options).await.unwrap();
    let reason = foreign.stopped().await;
    assert!(reason.contains("this data directory belongs to another cluster than the one at"), "{reason}");
    assert!(reason.contains("point `node.data_dir` at this node's own directory"), "{reason}");
    assert_eq!(foreign.view().user_count(), 1, "its own state, as far as it knew it");
    foreign.halt().await;

    ours.start_node(3).await.unwrap();
    assert_eq!(ours.agree().await, 1);
    theirs.start_all().await;
    assert_eq!(theirs.agree().await, 1);
    assert!(theirs.node(1).view().user_by_name("user-2").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_or_misconfigured_peer_does_not_take_a_healthy_node_down() {
    let mut ours = TestCluster::start(3).await;
    let mut theirs = TestCluster::start(3).await;
    ours.stop(3).await;
    theirs.stop_all().await;
    let mut options = ours.options(3);
    options.data_dir = theirs.data_dir(3);
    options.peers.retain(|peer| peer.node == 3);
    // It sees no other node, so nothing stops it; it answers greetings with its own lineage.
    let foreign = ours.start_one(3, options).await.unwrap();
    ours.stop(1).await;
    ours.start_node(1).await.unwrap();
    created(ours.node(1), 1).await;
    foreign.halt().await;

    // A wiped node with another list of peers: it is itself misconfigured, and no other node is.
    fs::remove_dir_all(theirs.data_dir(3)).unwrap();
    let mut options = ours.options(3);
    options.data_dir = theirs.data_dir(3);
    options.peers.push(conclave_cluster::BootstrapPeer { node: 4, addr: "127.0.0.1:1".into() });
    let wrong = tokio::spawn(ours.start_one(3, options));
    ours.stop(2).await;
    ours.start_node(2).await.unwrap();
    assert!(wrong.await.unwrap().is_err());
    created(ours.node(2), 2).await;
    assert_eq!(ours.agree().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_use_is_refused_and_free_after_the_stop() {
    let mut cluster = TestCluster::start(1).await;
    let mut options = cluster.options_at(1, "127.0.0.1:0");
    options.peers = Vec::new();
    let error = cluster.start_one(1, options).await.err().unwrap();
    assert!(error.to_string().contains("is in use by another conclave process"), "{error}");
    cluster.stop(1).await;
    cluster.start_node(1).await.unwrap();
}
