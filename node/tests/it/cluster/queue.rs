//! Writes while no node can accept them: bounded, and with a correct error about their outcome.

use conclave_cluster::{ProposeError, testing::MAX_WAITING};
use futures_util::future::join_all;

use super::harness::{TestCluster, create, created};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_leader_a_full_queue_is_busy_and_the_rest_were_never_sent() {
    const TOO_MANY: usize = 40;
    let mut cluster = TestCluster::start(3).await;
    let left = cluster.followers().await[0];
    for id in cluster.ids() {
        if id != left {
            cluster.kill(id).await;
        }
    }
    // A write that is sent to a leader whose end is not noticed yet has an unknown outcome, which is another test.
    cluster.node(left).leader_when(|leader| leader.is_none()).await;
    let count = u32::try_from(MAX_WAITING + TOO_MANY).unwrap();
    let outcomes = join_all((0..count).map(|n| create(cluster.node(left), n))).await;
    let busy = outcomes.iter().filter(|outcome| matches!(outcome, Err(ProposeError::Busy))).count();
    let unavailable =
        outcomes.iter().filter(|outcome| matches!(outcome, Err(ProposeError::Unavailable))).count();
    assert_eq!((busy, unavailable), (TOO_MANY, MAX_WAITING));

    // There is room again, and the writes reported as "nothing changed" have changed nothing.
    cluster.start_all().await;
    assert_eq!(cluster.agree().await, 0);
    created(cluster.node(left), 0).await;
    assert_eq!(cluster.agree().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_sent_and_not_answered_is_unknown_and_happens_once() {
    const WRITES: u32 = 12;
    let cluster = TestCluster::start(3).await;
    let (leader, followers) = (cluster.leader().await, cluster.followers().await);
    // The leader keeps its quorum of heartbeats, but no follower writes an entry to its disk.
    followers.iter().for_each(|id| cluster.gate(*id).close());
    let at = |n: u32| cluster.node(if n.is_multiple_of(2) { leader } else { followers[0] });
    let outcomes = join_all((0..WRITES).map(|n| create(at(n), n))).await;
    // On a machine so busy that the leader loses its term first, a write may not have been sent at all, and is reported
    // as such.
    let unknown = outcomes.iter().filter(|outcome| matches!(outcome, Err(ProposeError::Unknown))).count();
    let unsent = outcomes.iter().filter(|outcome| matches!(outcome, Err(ProposeError::Unavailable))).count();
    assert!(unknown > 0 && unknown + unsent == outcomes.len(), "{outcomes:?}");
    followers.iter().for_each(|id| cluster.gate(*id).open());
    assert!(cluster.agree().await <= unknown, "what was called not sent is there: {outcomes:?}");
    for n in 0..WRITES {
        created(at(n + 1), n).await;
    }
    assert_eq!(cluster.agree().await, usize::try_from(WRITES).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_too_large_for_the_log_is_refused_at_any_node() {
    use conclave_proto::command::v1::{CreateGroup, command::Body};
    let cluster = TestCluster::start(3).await;
    let huge =
        || Body::CreateGroup(CreateGroup { description: "x".repeat(100_000), ..CreateGroup::default() });
    for id in cluster.ids() {
        let refused = cluster.node(id).propose(super::harness::request(1), huge()).await;
        assert!(matches!(refused, Err(ProposeError::TooLarge(_))), "{refused:?}");
    }
    created(cluster.node(1), 1).await;
}
