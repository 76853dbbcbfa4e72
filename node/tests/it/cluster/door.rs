//! The listener of the cluster plane, called by a client that has the secret.

use conclave_base::runtime::Runtime;
use conclave_cluster::{Cluster, testing::channel};
use conclave_crypto::tls::ClusterTls;
use conclave_proto::cluster::v1::{self as pb, cluster_service_client::ClusterServiceClient};
use tonic::{Code, Status, transport::Channel};

use super::harness::{TestCluster, create, keys};

type Client = ClusterServiceClient<Channel>;

fn client(cluster: &TestCluster, to: u64) -> Client {
    let tls = ClusterTls::new(cluster.keys(), 2, &*Runtime::system().entropy).unwrap();
    ClusterServiceClient::new(channel(&tls, cluster.addr(to), Some(to)).unwrap())
}

/// Calls every method of the service with the same envelope.
async fn knock(
    client: &mut Client,
    envelope: Option<pb::Envelope>,
) -> Vec<(&'static str, Result<(), Status>)> {
    let vote = pb::VoteRequest {
        envelope: envelope.clone(),
        // A term that a node would accept if it processed the call.
        vote: Some(pb::RaftVote { term: 1_000, voted_for: 2, committed: true }),
        ..pb::VoteRequest::default()
    };
    let transfer = pb::TransferLeaderRequest {
        envelope: envelope.clone(),
        from_leader: vote.vote,
        to_node: 1,
        last_log_id: None,
    };
    let append =
        pb::AppendRequest { envelope: envelope.clone(), vote: vote.vote, ..pb::AppendRequest::default() };
    let begin =
        pb::SnapshotBegin { envelope: envelope.clone(), vote: vote.vote, ..pb::SnapshotBegin::default() };
    let begin = pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Begin(begin)) };
    let appended = async {
        let mut replies = client.clone().append(tokio_stream::iter([append])).await?.into_inner();
        while replies.message().await?.is_some() {}
        Ok(())
    };
    vec![
        ("append", appended.await),
        ("vote", client.vote(vote.clone()).await.map(drop)),
        ("pre_vote", client.pre_vote(vote).await.map(drop)),
        ("transfer_leader", client.transfer_leader(transfer).await.map(drop)),
        ("install_snapshot", client.install_snapshot(tokio_stream::iter([begin])).await.map(drop)),
        (
            "propose",
            client
                .propose(pb::ProposeRequest { envelope: envelope.clone(), command: vec![] })
                .await
                .map(drop),
        ),
        (
            "read_index",
            client.read_index(pb::ReadIndexRequest { envelope: envelope.clone() }).await.map(drop),
        ),
        ("status", client.status(pb::StatusRequest { envelope, with_digest: false }).await.map(drop)),
    ]
}

fn from(node: &Cluster, change: impl FnOnce(&mut pb::Envelope)) -> Option<pb::Envelope> {
    let mut envelope = node.envelope(1);
    change(&mut envelope);
    Some(envelope)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_not_a_members_own_is_refused_by_every_call_with_the_reason() {
    let cluster = TestCluster::start(3).await;
    create(cluster.node(1), 1).await.unwrap();
    let (mut client, two) = (client(&cluster, 1), cluster.node(2));
    let rejected = [
        ("another cluster or lineage", from(two, |e| e.cluster_id = vec![9; 16])),
        ("another cluster or lineage", from(two, |e| e.cluster_id.clear())),
        ("another cluster or lineage", from(two, |e| e.epoch += 1)),
        ("another data directory than the cluster knows", from(two, |e| e.incarnation = vec![9; 16])),
        ("this is node 1, not node 3", from(two, |e| e.to = 3)),
        ("no envelope", None),
    ];
    let term = cluster.node(1).member_statuses().await[0].status.as_ref().unwrap().term;
    for (why, envelope) in rejected {
        for (call, outcome) in knock(&mut client, envelope).await {
            let status = outcome.expect_err(call);
            assert_eq!(status.code(), Code::PermissionDenied, "{call}: {status}");
            assert!(status.message().contains(why), "{call}: {status}");
        }
    }
    let statuses = cluster.node(1).member_statuses().await;
    assert!(
        statuses.iter().all(|member| member.status.as_ref().unwrap().term == term),
        "no node was disturbed"
    );
    // The same client with a member's own envelope is accepted.
    let reply =
        client.status(pb::StatusRequest { envelope: from(two, |_| {}), with_digest: false }).await.unwrap();
    assert_eq!(reply.into_inner().node_id, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_for_another_node_or_holds_another_secret_gets_no_connection() {
    let cluster = TestCluster::start(1).await;
    let entropy = Runtime::system().entropy;
    let ours = ClusterTls::new(cluster.keys(), 2, &*entropy).unwrap();
    let theirs = ClusterTls::new(&keys(7), 2, &*entropy).unwrap();
    for (tls, node, why) in
        [(&ours, 3, "another node than the one configured"), (&theirs, 1, "another cluster secret")]
    {
        let mut client = ClusterServiceClient::new(channel(tls, cluster.addr(1), Some(node)).unwrap());
        let status = client.hello(pb::HelloRequest::default()).await.unwrap_err();
        let mut text = String::new();
        let mut cause: Option<&dyn std::error::Error> = Some(&status);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        assert!(text.contains(why), "{text}");
    }
}
