//! Founding a cluster, and founding it again.

use super::{
    harness::{TestCluster, create, created, keys, request, user_id},
    logs,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_fresh_nodes_found_one_cluster_and_a_write_at_a_follower_is_seen_there() {
    let cluster = TestCluster::start(3).await;
    let lineages: Vec<_> = cluster.ids().into_iter().map(|id| cluster.node(id).lineage()).collect();
    assert!(lineages.iter().all(|lineage| *lineage == lineages[0] && lineage.epoch == 1));
    let leaders = cluster.ids().into_iter().filter(|id| cluster.node(*id).is_leader()).count();
    assert_eq!(leaders, 1);

    for (n, follower) in (1..).zip(cluster.followers().await) {
        let done = create(cluster.node(follower), n).await.unwrap();
        assert!(done.state.user(user_id(n)).is_some());
        assert!(
            cluster.node(follower).view().user(user_id(n)).is_some(),
            "acknowledged and not visible here"
        );
        assert!(cluster.node(follower).view().index() >= done.index);
    }
    assert_eq!(cluster.agree().await, 2);
    for id in cluster.ids() {
        cluster.ready(id).await;
        assert_eq!(cluster.node(id).member_count(), 3);
        let leader = cluster.leader().await;
        assert_eq!(cluster.node(id).leader_api_url(), Some(format!("http://api-{leader}.test")));
        for member in cluster.node(id).member_statuses().await {
            assert_eq!(member.status.unwrap().node_id, member.node);
            assert_eq!(member.cluster_addr, cluster.addr(member.node));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_all_keeps_the_cluster_and_what_was_acknowledged() {
    let mut cluster = TestCluster::start(3).await;
    let lineage = cluster.node(1).lineage();
    for n in 1..=20 {
        created(cluster.node(u64::from(n % 3 + 1)), n).await;
    }
    cluster.stop_all().await;
    cluster.start_all().await;
    assert!(cluster.ids().into_iter().all(|id| cluster.node(id).lineage() == lineage));
    assert_eq!(cluster.agree().await, 20);
    create(cluster.node(2), 21).await.unwrap();
    for id in cluster.ids() {
        cluster.kill(id).await;
    }
    cluster.start_all().await;
    assert_eq!(cluster.agree().await, 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_first_of_fresh_nodes_prepares_to_found_the_cluster() {
    let cluster = TestCluster::prepare(3);
    let prepare = |cluster: &TestCluster| [1, 2, 3].map(|id| cluster.options(id).may_found());
    assert_eq!(prepare(&cluster), [true, false, false]);
    let alone = conclave_cluster::ClusterOptions { peers: Vec::new(), ..cluster.options(2) };
    assert!(alone.may_found());

    let mut cluster = TestCluster::start(3).await;
    cluster.stop_all().await;
    assert_eq!(prepare(&cluster), [false; 3], "what was set up is not founded again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_is_a_cluster() {
    let mut cluster = TestCluster::prepare(1);
    let alone = |cluster: &TestCluster| {
        let mut options = cluster.options(1);
        options.peers = Vec::new();
        cluster.start_one(1, options)
    };
    let node = alone(&cluster).await.unwrap();
    let first = create(&node, 1).await.unwrap();
    assert_eq!(create(&node, 1).await.unwrap().body, first.body, "a repeated request has its first answer");
    assert_eq!(node.confirmed_view().await.unwrap().user_count(), 1);
    node.shutdown().await;

    let node = alone(&cluster).await.unwrap();
    assert_eq!(node.propose(request(1), super::harness::body(1)).await.unwrap().body, first.body);
    assert_eq!(node.view().user_count(), 1);
    assert_eq!(node.lineage().epoch, 1);
    node.shutdown().await;
    // The same directory, now with itself recorded as the only peer.
    cluster.start_node(1).await.unwrap();
    assert_eq!(cluster.agree().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founding_waits_for_all_and_a_late_one_completes_it() {
    let mut cluster = TestCluster::prepare(3);
    let early: Vec<_> = [2, 3].map(|id| tokio::spawn(cluster.start_one(id, cluster.options(id)))).into();
    logs::listen();
    logs::heard(&["waiting for all 3 members", cluster.addr(1), "refused"]).await;
    assert!(early.iter().all(|starting| !starting.is_finished()));
    cluster.start_node(1).await.unwrap();
    for starting in early {
        starting.await.unwrap().unwrap().leader_when(|leader| leader.is_some()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_secret_cannot_join_and_both_sides_say_why() {
    logs::listen();
    let cluster = TestCluster::prepare(2);
    let mut options = cluster.options(2);
    options.keys = keys(2);
    let founding = tokio::spawn(cluster.start_one(1, cluster.options(1)));
    let other_cluster = tokio::spawn(cluster.start_one(2, options));
    for other in [1, 2] {
        // The reason for which the founding waits, on either side, and the node that was rejected.
        let at = cluster.addr(other);
        logs::heard(&["waiting for all 2 members", at, "a certificate of another cluster secret"]).await;
    }
    logs::heard(&[
        "turned a connection to the cluster port away",
        "refused this node's certificate as one of another",
    ])
    .await;
    assert!(!founding.is_finished() && !other_cluster.is_finished());
    founding.abort();
    other_cluster.abort();
}
