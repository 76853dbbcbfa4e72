//! Changes of the membership.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use conclave_cluster::{ClusterOptions, MembersChange, MembershipError, ProposeError, join::JoinError};
use conclave_proto::cluster::v1::{RemoveMember, ReplaceMember};

use super::harness::{LIMIT, TestCluster, create, created, user_id};

const fn removal(node_id: u64) -> MembersChange {
    MembersChange::Remove(RemoveMember { node_id, force: false })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_become_five_and_three_again_while_writes_go_on() {
    let mut cluster = TestCluster::start(3).await;
    let (over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let writing = tokio::spawn({
        let (node, over, written) = (cluster.node(1).clone(), over.clone(), written.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                let n = written.load(Ordering::Relaxed);
                created(&node, n).await;
                written.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let fourth = cluster.join(1).await;
    let fifth = cluster.join(2).await;
    // A node id that was reserved and not used leaves a gap.
    assert!(fourth >= 4 && fifth > fourth);
    cluster.voters(&[1, 2, 3, fourth, fifth]).await;
    cluster.ready(fourth).await;
    cluster.ready(fifth).await;
    for gone in [2, 3] {
        cluster.node(fourth).change_members(removal(gone)).await.unwrap();
        cluster.kill(gone).await;
    }
    cluster.voters(&[1, fourth, fifth]).await;
    over.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    let written = written.load(Ordering::Relaxed);
    assert!(written > 5, "only {written} writes went on meanwhile");
    assert_eq!(cluster.agree().await, written as usize);
    for id in cluster.running() {
        assert!(cluster.node(id).view().user(user_id(written - 1)).is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_is_never_given_again_and_a_wiped_disk_comes_back_under_a_new_one() {
    let mut cluster = TestCluster::start(3).await;
    cluster.kill(3).await;
    std::fs::remove_dir_all(cluster.data_dir(3)).unwrap();
    cluster.node(1).change_members(removal(3)).await.unwrap();
    assert_eq!(cluster.join(1).await, 4, "not 3 again, though 3 is free");
    cluster.voters(&[1, 2, 4]).await;
    // A client that did not receive the response removes it again.
    cluster.node(2).change_members(removal(3)).await.unwrap();
    assert!(matches!(
        cluster.node(2).change_members(removal(77)).await,
        Err(MembershipError::Unknown(77) | MembershipError::Refused(_))
    ));
    created(cluster.node(1), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_of_a_node_that_joined_founds_no_cluster_of_its_own() {
    let mut cluster = TestCluster::start(3).await;
    let joined = cluster.join(1).await;
    cluster.kill(joined).await;
    let wiped = ClusterOptions {
        node: joined,
        data_dir: cluster.data_dir(joined),
        peers: Vec::new(),
        joined: true,
        ..cluster.options_at(1, "127.0.0.1:0")
    };
    let why = cluster.start_one(joined, wiped).await.err().expect("refused").to_string();
    assert!(why.contains(&format!("conclave cluster remove {joined}")), "{why}");
    assert!(why.contains("conclave cluster join"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_writes_no_more_and_ends_saying_why() {
    let mut cluster = TestCluster::start(3).await;
    let out = cluster.followers().await[0];
    let node = cluster.node(out).clone();
    cluster.node(cluster.leader().await).change_members(removal(out)).await.unwrap();
    let why = tokio::time::timeout(LIMIT, node.stopped()).await.expect("the removed node still runs");
    assert!(why.contains(&format!("removed node {out}")) && why.contains("cluster join"), "{why}");
    let written = create(&node, 1).await;
    // A leader that is too busy to refuse within a second leaves the outcome unknown; the point is that nothing was
    // written.
    assert!(matches!(written, Err(ProposeError::Unavailable | ProposeError::Unknown)), "{written:?}");
    cluster.kill(out).await;
    assert_eq!(cluster.agree().await, 0, "nothing of it was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_again_gives_the_same_place_and_a_used_directory_or_address_none() {
    let cluster = TestCluster::start(3).await;
    let (asked, first) = cluster.ask_to_join(1).await;
    let first = first.unwrap();
    assert_eq!(first.public_url, "http://127.0.0.1:9000");
    let again = cluster.ask_again(2, &asked).await;
    assert!(matches!(again, Err(JoinError::Taken(_, 4))), "{again:?}");

    let elsewhere = super::harness::Asked { data_dir: asked.data_dir.with_extension("other"), ..asked };
    let taken = cluster.ask_again(2, &elsewhere).await;
    assert!(
        matches!(&taken, Err(JoinError::Refused(why)) if why.contains("conclave cluster remove 4")),
        "{taken:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_would_end_the_quorum_is_refused_with_what_to_do() {
    let mut cluster = TestCluster::start(3).await;
    let leader = cluster.leader().await;
    let followers = cluster.followers().await;
    created(cluster.node(leader), 1).await;
    cluster.kill(followers[0]).await;
    // Without the healthy follower, only the leader and a dead node would be left: no majority of two.
    let refused = cluster.node(leader).change_members(removal(followers[1])).await;
    assert!(matches!(&refused, Err(MembershipError::Refused(why)) if why.contains("--force")), "{refused:?}");
    cluster.node(leader).change_members(removal(followers[0])).await.unwrap();
    cluster
        .voters(&{
            let mut rest = vec![leader, followers[1]];
            rest.sort_unstable();
            rest
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_at_once_leave_a_plain_configuration() {
    let mut cluster = TestCluster::start(3).await;
    let (fourth, fifth) = (cluster.join(1).await, cluster.join(2).await);
    cluster.voters(&[1, 2, 3, 4, 5]).await;
    let (one, two) = (cluster.node(1).clone(), cluster.node(2).clone());
    let (first, second) =
        tokio::join!(one.change_members(removal(fourth)), two.change_members(removal(fifth)));
    // One of them is refused because of the other change, and retries by itself.
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    cluster.kill(fourth).await;
    cluster.kill(fifth).await;
    cluster.voters(&[1, 2, 3]).await;
    created(cluster.node(1), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_itself_can_be_replaced_and_the_lead_given_to_a_named_node() {
    let mut cluster = TestCluster::start(3).await;
    let fourth = cluster.join(1).await;
    cluster.voters(&[1, 2, 3, 4]).await;
    cluster.ready(fourth).await;
    let leader = cluster.leader().await;
    let to = MembersChange::TransferLeader(fourth);
    assert_eq!(cluster.node(leader).change_members(to).await.unwrap(), Some(fourth));
    assert_eq!(cluster.leader().await, fourth);
    let other = if leader == 1 { 2 } else { 1 };
    let command = ReplaceMember { old_node_id: fourth, new_node_id: leader };
    cluster.node(other).change_members(MembersChange::Replace(command)).await.unwrap();
    cluster.kill(fourth).await;
    cluster.voters(&[1, 2, 3]).await;
    created(cluster.node(other), 1).await;
}
