//! A node that cannot keep its guarantees stops, and logs the reason.

use std::time::Duration;

use conclave_base::runtime::Runtime;
use conclave_cluster::testing::channel;
use conclave_crypto::tls::ClusterTls;
use conclave_proto::{
    cluster::v1::{self as pb, cluster_service_client::ClusterServiceClient},
    command::v1::Command,
};
use prost::Message as _;
use tokio::time::timeout;

use super::harness::{LIMIT, TestCluster, create, created};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_disk_stops_the_node_with_its_reason_and_the_others_go_on() {
    let mut cluster = TestCluster::start(3).await;
    let leader = cluster.leader().await;
    let broken = cluster.node(leader).clone();
    assert!(timeout(Duration::from_millis(50), broken.stopped()).await.is_err(), "it runs");
    cluster.gate(leader).break_it();
    let other = cluster.followers().await[0];
    let writing = tokio::spawn({
        let node = cluster.node(other).clone();
        async move { created(&node, 1).await }
    });
    let reason = timeout(LIMIT, broken.stopped()).await.unwrap();
    assert!(reason.contains("the log failed") && reason.contains("the test broke the disk"), "{reason}");
    cluster.kill(leader).await;
    writing.await.unwrap();
    assert_eq!(cluster.agree().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_command_stops_the_node_and_is_not_skipped_at_the_next_start() {
    let mut cluster = TestCluster::start(1).await;
    create(cluster.node(1), 1).await.unwrap();
    let tls = ClusterTls::new(cluster.keys(), 1, &*Runtime::system().entropy).unwrap();
    let mut client = ClusterServiceClient::new(channel(&tls, cluster.addr(1), Some(1)).unwrap());
    // A command of a later release: its body is a field that this release does not know.
    let command = Command { request_id: vec![7; 16], body: None }.encode_to_vec();
    let envelope = Some(cluster.node(1).envelope(1));
    client.propose(pb::ProposeRequest { envelope, command }).await.unwrap_err();
    let first = timeout(LIMIT, cluster.node(1).stopped()).await.unwrap();
    let index = cluster.node(1).view().index();
    cluster.kill(1).await;

    let again = cluster.start_one(1, cluster.options(1)).await;
    if let Ok(node) = again {
        let second = timeout(LIMIT, node.stopped()).await.unwrap();
        assert_eq!(second.contains("command"), first.contains("command"), "{first} / {second}");
        assert_eq!(node.view().index(), index, "nothing behind it may be applied");
        node.halt().await;
    }
    assert!(first.contains("command"), "{first}");
}
