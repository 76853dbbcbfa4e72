//! conclave-client against three nodes, one of which is the leader and stops.

use conclave_client::{AdminClient, v1};
use conclave_node::testing::{TestNode, wait_until};

async fn leader(nodes: &[TestNode]) -> usize {
    wait_until(|| nodes.iter().any(|node| node.cluster().is_leader())).await;
    nodes.iter().position(|node| node.cluster().is_leader()).unwrap()
}

/// The client knows only one node, a follower; it finds the leader by itself, and the next one when the leader stops.
#[tokio::test]
async fn writes_go_on_when_the_leader_goes_and_are_read_back_at_once() {
    let mut nodes = TestNode::start_cluster(3).await;
    let leading = leader(&nodes).await;
    let known = (leading + 1) % 3;
    let client =
        AdminClient::builder().endpoints([nodes[known].api_url()]).token(nodes[known].operator_token());
    let client = client.build().unwrap();
    let write = async |name: &str| {
        let command = v1::CreateUserRequest { username: name.into(), ..Default::default() };
        let made = client.users().create(command).await.unwrap();
        let seen = client.users().get(v1::GetUserRequest { user: name.into() }).await.unwrap();
        assert_eq!(made, seen);
    };
    for number in 0..5 {
        write(&format!("before{number}")).await;
    }
    let gone = nodes.remove(leading);
    gone.cluster().shutdown().await;
    drop(gone);
    for number in 0..5 {
        write(&format!("after{number}")).await;
    }
    let users = client.users().list(v1::ListUsersRequest { page: None }).await.unwrap().users;
    assert_eq!(users.len(), 10, "each exactly once");
}
