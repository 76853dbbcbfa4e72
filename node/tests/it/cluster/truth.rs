//! A cluster reports its own state correctly: nodes that moved, nodes that were removed, settings that differ, a disk
//! that hangs.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use conclave_cluster::{BootstrapPeer, ClusterOptions, MembersChange, Plane};
use conclave_proto::cluster::v1::RemoveMember;

use super::harness::{LIMIT, TestCluster, create};

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !done().await {
        assert!(began.elapsed() < LIMIT, "never: {what}");
        tokio::task::yield_now().await;
    }
}

/// Options of a node at a new address, and that address.
fn moved(cluster: &TestCluster, id: u64, peers: Vec<BootstrapPeer>) -> (ClusterOptions, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = port.local_addr().unwrap().to_string();
    let options = ClusterOptions {
        plane: Plane::Tcp(port),
        advertise: addr.clone(),
        hints: peers.iter().map(|peer| peer.addr.clone()).collect(),
        peers,
        ..cluster.options_at(id, "127.0.0.1:0")
    };
    (options, addr)
}

fn peers_of(cluster: &TestCluster) -> Vec<BootstrapPeer> {
    cluster
        .ids()
        .into_iter()
        .map(|node| BootstrapPeer { node, addr: cluster.addr(node).to_owned() })
        .collect()
}

async fn address_of(cluster: &TestCluster, at: u64, id: u64) -> String {
    let statuses = cluster.node(at).member_statuses().await;
    statuses.into_iter().find(|status| status.node == id).unwrap().cluster_addr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_at_another_address_is_taken_back_by_its_identity() {
    let mut cluster = TestCluster::start(3).await;
    create(cluster.node(1), 1).await.unwrap();
    let id = cluster.followers().await[0];
    cluster.stop(id).await;
    let (options, addr) = moved(&cluster, id, peers_of(&cluster));
    let node = cluster.start_one(id, options).await.unwrap();
    until("the moved node is ready", async || node.readiness().is_ok()).await;
    let leader = cluster.leader().await;
    until("the log has its new address", async || address_of(&cluster, leader, id).await == addr).await;
    create(cluster.node(leader), 2).await.unwrap();
    until("it follows", async || node.view().user_count() == 2).await;
    node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_that_all_moved_find_each_other_by_their_settings() {
    let mut cluster = TestCluster::start(3).await;
    create(cluster.node(1), 1).await.unwrap();
    cluster.stop_all().await;
    let ports: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addrs: Vec<String> = ports.iter().map(|port| port.local_addr().unwrap().to_string()).collect();
    let peers: Vec<BootstrapPeer> =
        (1..=3).zip(&addrs).map(|(node, addr)| BootstrapPeer { node, addr: addr.clone() }).collect();
    let starting = ports.into_iter().zip(&peers).map(|(port, peer)| {
        let options = ClusterOptions {
            plane: Plane::Tcp(port),
            advertise: peer.addr.clone(),
            hints: addrs.clone(),
            peers: peers.clone(),
            ..cluster.options_at(peer.node, "127.0.0.1:0")
        };
        cluster.start_one(peer.node, options)
    });
    let nodes: Vec<_> =
        futures_util::future::join_all(starting).await.into_iter().map(Result::unwrap).collect();
    for node in &nodes {
        until("every node is ready", async || node.readiness().is_ok()).await;
    }
    create(&nodes[0], 2).await.unwrap();
    until("the log has all new addresses", async || {
        let statuses = nodes[0].member_statuses().await;
        statuses.iter().all(|status| addrs.contains(&status.cluster_addr) && status.status.is_ok())
    })
    .await;
    for node in nodes {
        assert_eq!(node.view().user_count(), 2);
        node.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_removed_while_it_was_away_ends_whoever_leads_by_then() {
    for _ in 0..3 {
        let mut cluster = TestCluster::start(3).await;
        let joined = cluster.join(1).await;
        cluster.voters(&[1, 2, 3, joined]).await;
        cluster.kill(joined).await;
        let leader = cluster.leader().await;
        let remove = MembersChange::Remove(RemoveMember { node_id: joined, force: true });
        cluster.node(leader).change_members(remove).await.unwrap();
        cluster.voters(&[1, 2, 3]).await;
        cluster.stop(leader).await;
        cluster.leader().await;
        let node = cluster.start_one(joined, cluster.joined_options(joined)).await;
        if let Ok(node) = node {
            let why = tokio::time::timeout(LIMIT, node.stopped()).await.expect("it ends");
            // The reason depends on which it hears first: the new leader, or the member list of a peer.
            let reasons = ["removed", "not a member", "has no member"];
            assert!(reasons.iter().any(|reason| why.contains(reason)), "{why}");
            node.halt().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_settings_differ_is_not_ready_and_names_them() {
    let cluster = TestCluster::prepare(3);
    let shared = |proxies: &str| vec![("http.trusted_proxies".to_owned(), proxies.to_owned())];
    let with = |id: u64, proxies: &str| ClusterOptions { settings: shared(proxies), ..cluster.options(id) };
    let starting = [(1, "10.0.0.0/24"), (2, "10.0.0.0/24"), (3, "")];
    let starting = starting.map(|(id, proxies)| cluster.start_one(id, with(id, proxies)));
    let nodes: Vec<_> =
        futures_util::future::join_all(starting).await.into_iter().map(Result::unwrap).collect();
    until("the odd node says so", async || {
        nodes[2]
            .readiness()
            .is_err_and(|why| why.contains("http.trusted_proxies differs from that of nodes 1, 2"))
    })
    .await;
    until("the others are ready", async || nodes[0].readiness().is_ok() && nodes[1].readiness().is_ok())
        .await;
    let said = conclave_cluster::problems(&nodes[0].member_statuses().await);
    assert!(said[0].starts_with("node 3 is not ready: the setting http.trusted_proxies"), "{said:?}");
    for node in nodes {
        node.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_disk_is_seen_and_the_lead_moves() {
    let cluster = TestCluster::start(3).await;
    create(cluster.node(1), 1).await.unwrap();
    let leader = cluster.leader().await;
    cluster.gate(leader).close();
    let began = Instant::now();
    let other = cluster.followers().await[0];
    let writing = create(cluster.node(other), 2);
    let (written, ()) = tokio::join!(
        writing,
        until("another node leads", async || {
            cluster.node(other).leader_id().is_some_and(|now| now != leader)
        })
    );
    assert!(began.elapsed() < Duration::from_secs(12), "the lead moved after {:?}", began.elapsed());
    drop(written);
    until("it says so", async || {
        cluster.node(leader).not_ready_because().iter().any(|why| why.contains("the disk of the log"))
    })
    .await;
    create(cluster.node(other), 3).await.unwrap();
    cluster.gate(leader).open();
    until("it is ready again", async || cluster.node(leader).readiness().is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_gave_the_lead_away_serves_as_leader_again_when_it_gets_it_back() {
    let cluster = TestCluster::start(3).await;
    create(cluster.node(1), 1).await.unwrap();
    let first = cluster.leader().await;
    cluster.node(first).transfer_leadership().await;
    let deadline = Instant::now() + LIMIT;
    loop {
        let leader = cluster.leader().await;
        if leader == first {
            break;
        }
        assert!(Instant::now() < deadline, "node {first} never leads again");
        // It transfers leadership to the voter with most of the log, which is either of the other two.
        cluster.node(leader).transfer_leadership().await;
    }
    create(cluster.node(first), 2).await.unwrap();
    for id in 1..=3 {
        until("every node holds a lease of the leader", async || cluster.node(id).readiness().is_ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_start_and_a_failed_join_leave_nothing_behind() {
    let mut cluster = TestCluster::start(3).await;
    let id = cluster.followers().await[0];
    cluster.stop(id).await;
    std::fs::remove_dir_all(cluster.data_dir(id)).unwrap();
    let refused = cluster.start_node(id).await.unwrap_err().to_string();
    assert!(refused.contains("cluster remove"), "{refused}");
    assert!(!cluster.data_dir(id).join("identity").exists(), "nothing is left of the refused start");
    assert!(!cluster.data_dir(id).join("log").exists());

    // There is no leader: the request fails, and the directory is unchanged.
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    let left = cluster.running()[0];
    let (asked, outcome) = cluster.ask_to_join(left).await;
    let error = outcome.unwrap_err();
    assert!(!asked.data_dir.join("identity").exists(), "nothing is left of the failed join: {error}");
}
