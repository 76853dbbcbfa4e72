//! Once a revocation is acknowledged, no node accepts on a state without it; and an ordinary check contacts no other
//! node.

use std::time::{Duration, Instant};

use conclave_cluster::{CheckMode, Cluster, CommittedWrite, ProposeError, ViewError};
use conclave_proto::command::v1::{UpdateUser, command::Body};

use super::harness::{LIMIT, TestCluster, create, request, user_id};

/// A lease and its margin (docs/design/serve-leases.md).
const WAIT: Duration = Duration::from_millis(2_200);

/// Disables user `n`, as request `r`.
async fn disable(node: &Cluster, n: u32, r: u32) -> Result<CommittedWrite, ProposeError> {
    let user =
        UpdateUser { user_id: user_id(n).bytes().to_vec(), disabled: Some(true), ..UpdateUser::default() };
    node.propose(request(r), Body::UpdateUser(user)).await
}

/// Waits until each node can decide checks by itself.
async fn leased(cluster: &TestCluster) {
    for id in cluster.ids() {
        cluster.ready(id).await;
    }
}

/// Returns whether this node would accept user `n`.
async fn accepts(node: &Cluster, n: u32) -> Result<bool, ViewError> {
    let state = node.serving_view(0).await?;
    Ok(state.user(user_id(n)).is_some_and(|user| !user.disabled))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_revocation_holds_on_every_node_at_once() {
    let cluster = TestCluster::start(3).await;
    leased(&cluster).await;
    for n in 1..=10_u32 {
        create(cluster.node(1), n).await.unwrap();
        let at = cluster.node(u64::from(n % 3) + 1);
        disable(at, n, 1_000 + n).await.unwrap();
        for id in cluster.ids() {
            assert_eq!(accepts(cluster.node(id), n).await, Ok(false), "user {n} on node {id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_follow_holds_up_revocations_until_its_lease_is_over_and_nothing_else() {
    let cluster = TestCluster::start(3).await;
    leased(&cluster).await;
    create(cluster.node(1), 1).await.unwrap();
    cluster.agree().await;
    let (leader, stuck) = (cluster.leader().await, cluster.followers().await[0]);
    cluster.node(stuck).hold_back(true);

    create(cluster.node(leader), 2).await.unwrap();
    let revoking = tokio::spawn({
        let leader = cluster.node(leader).clone();
        async move { disable(&leader, 1, 1_001).await }
    });
    create(cluster.node(leader), 3).await.unwrap();
    assert!(!revoking.is_finished(), "the stuck node may still accept, so it is not acknowledged");
    assert!(
        cluster.node(stuck).view().user(user_id(1)).is_some_and(|user| !user.disabled),
        "it has not seen the revocation"
    );
    revoking.await.unwrap().unwrap();
    // The stuck node still has its old state; it knows that it must not use it.
    assert!(accepts(cluster.node(stuck), 1).await.is_err());
    cluster.node(stuck).hold_back(false);
    cluster.agree().await;
    assert_eq!(accepts(cluster.node(stuck), 1).await, Ok(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_asks_nobody_while_the_lease_lasts_and_is_refused_when_it_is_over() {
    let mut cluster = TestCluster::start(3).await;
    leased(&cluster).await;
    create(cluster.node(1), 1).await.unwrap();
    cluster.agree().await;
    let (leader, last) = (cluster.leader().await, cluster.followers().await[0]);
    let other = cluster.followers().await[1];
    cluster.kill(leader).await;
    cluster.kill(other).await;
    assert_eq!(accepts(cluster.node(last), 1).await, Ok(true), "there is no other node to contact");
    let began = Instant::now();
    while accepts(cluster.node(last), 1).await.is_ok() {
        assert!(began.elapsed() < LIMIT, "it goes on accepting without a confirmation");
    }
    assert!(cluster.node(last).readiness().is_err());
    let known = cluster.node(last).known_view(Duration::from_mins(1));
    assert!(known.is_some(), "an application may allow known sessions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_waits_for_the_leases_of_the_one_before_and_plain_writes_do_not() {
    let mut cluster = TestCluster::start(3).await;
    leased(&cluster).await;
    create(cluster.node(1), 1).await.unwrap();
    let (leader, survivor) = (cluster.leader().await, cluster.followers().await[0]);
    let began = Instant::now();
    cluster.kill(leader).await;
    create(cluster.node(survivor), 2).await.unwrap();
    let plain = began.elapsed();
    disable(cluster.node(survivor), 1, 1_001).await.unwrap();
    assert!(began.elapsed() >= WAIT, "acknowledged after {:?}", began.elapsed());
    assert!(plain < WAIT, "a plain write took {plain:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_in_order_is_not_waited_for() {
    let mut cluster = TestCluster::start(3).await;
    leased(&cluster).await;
    create(cluster.node(1), 1).await.unwrap();
    let (leader, leaving) = (cluster.leader().await, cluster.followers().await[0]);
    // Long enough for the leader's own first wait to have ended.
    disable(cluster.node(leader), 1, 1_001).await.unwrap();
    cluster.stop(leaving).await;
    let began = Instant::now();
    disable(cluster.node(leader), 1, 1_002).await.unwrap();
    assert!(began.elapsed() < WAIT / 2, "waited {:?} for a node that released its lease", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_quorum_checks_no_clock_is_trusted() {
    let mut cluster = TestCluster::start(3).await;
    leased(&cluster).await;
    create(cluster.node(1), 1).await.unwrap();
    let asks = cluster.followers().await[0];
    cluster.stop(asks).await;
    let options = conclave_cluster::ClusterOptions { checks: CheckMode::Quorum, ..cluster.options(asks) };
    let node = cluster.start_one(asks, options).await.unwrap();
    assert_eq!(accepts(&node, 1).await, Ok(true));
    let began = Instant::now();
    while node.known_view(Duration::from_mins(1)).is_none() {
        assert!(began.elapsed() < LIMIT, "it never notes what is known");
        tokio::task::yield_now().await;
    }
    // A revocation does not wait for a node that holds no lease, however stuck.
    disable(cluster.node(cluster.leader().await), 2, 1_000).await.unwrap_err();
    node.hold_back(true);
    let began = Instant::now();
    disable(cluster.node(cluster.leader().await), 1, 1_001).await.unwrap();
    assert!(began.elapsed() < WAIT / 2, "waited {:?} for a node without a lease", began.elapsed());
    assert_eq!(accepts(&node, 1).await, Err(ViewError::Behind), "it knows that it has not seen it");
    node.hold_back(false);

    // Partitioned, it at once accepts nothing, although a lease would last for two seconds; and it takes no longer than
    // a second to answer.
    let (leader, other) = (cluster.leader().await, cluster.followers().await[0]);
    create(cluster.node(leader), 3).await.unwrap();
    cluster.kill(leader).await;
    cluster.kill(other).await;
    let began = Instant::now();
    assert_eq!(accepts(&node, 3).await, Err(ViewError::Behind));
    assert!(began.elapsed() < Duration::from_millis(1_500), "held for {:?}", began.elapsed());
    assert!(node.known_view(Duration::from_mins(1)).is_some() && node.known_view(Duration::ZERO).is_none());
    node.halt().await;
}
