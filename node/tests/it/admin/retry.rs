//! Writes that are sent more than once, and reads that must see them: over three nodes.

use conclave_node::testing::{ApiRole, TestNode, wait_until};
use conclave_proto::admin::v1::{
    self as pb, client_service_client::ClientServiceClient, token_service_client::TokenServiceClient,
    user_service_client::UserServiceClient,
};
use tonic::Code;

use super::{by_operator, channel, header, refusal, with};

const REQUEST: &str = "000102030405060708090a0b0c0d0e0f";
const ID: &str = "x-conclave-request-id";

fn client(client_id: &str) -> pb::CreateClientRequest {
    pb::CreateClientRequest { client_id: client_id.into(), ..Default::default() }
}

async fn create_client(
    node: &TestNode,
    token: &str,
    request: pb::CreateClientRequest,
) -> Result<pb::CreateClientResponse, tonic::Status> {
    let mut clients = ClientServiceClient::new(channel(node));
    clients.create_client(with(request, token, &[(ID, REQUEST)])).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_write_sent_again_to_another_node_happens_once_and_gets_the_same_secrets() {
    let nodes = TestNode::start_cluster(3).await;
    let (_, token) = nodes[0].api_token(ApiRole::Admin).await;
    let first = create_client(&nodes[0], &token, client("shop")).await.unwrap();
    for node in &nodes {
        assert_eq!(create_client(node, &token, client("shop")).await.unwrap(), first);
    }
    assert!(!first.client_secret.is_empty());

    let new = || pb::CreateTokenRequest { name: "ci".into(), role: "reader".into(), ttl_ms: 0 };
    let mut made = Vec::new();
    for node in &nodes {
        let mut tokens = TokenServiceClient::new(channel(node));
        made.push(tokens.create_token(with(new(), &token, &[(ID, REQUEST)])).await.unwrap().into_inner());
    }
    assert_eq!(made[0], made[1]);
    assert_eq!(made[0], made[2]);
    assert_eq!(nodes[0].cluster().view().tokens_after(None).count(), 2, "the caller's own and the new one");
}

#[tokio::test]
async fn a_request_id_is_its_callers_and_its_messages_alone() {
    let node = TestNode::start().await;
    let (_, ada) = node.api_token(ApiRole::Admin).await;
    let (_, eve) = node.api_token(ApiRole::Admin).await;
    create_client(&node, &ada, client("shop")).await.unwrap();
    let stolen = create_client(&node, &eve, client("shop")).await;
    assert_eq!(refusal(stolen).0, Code::AlreadyExists, "not the answer that the other got");
    let another = create_client(&node, &ada, client("mall")).await.unwrap();
    assert_eq!(another.client.unwrap().client_id, "mall");
    let mut clients = ClientServiceClient::new(channel(&node));
    let bad = clients.create_client(with(client("x"), &ada, &[(ID, "short")])).await;
    assert_eq!(refusal(bad).0, Code::InvalidArgument);
}

#[tokio::test]
async fn a_delete_sent_again_is_answered_as_the_first_time() {
    let nodes = TestNode::start_cluster(3).await;
    nodes[0].create_user("ada", "", &[]).await;
    let (_, token) = nodes[0].api_token(ApiRole::Admin).await;
    let delete = || pb::DeleteUserRequest { user: "ada".into() };
    for node in &nodes {
        let mut users = UserServiceClient::new(channel(node));
        users.delete_user(with(delete(), &token, &[(ID, REQUEST)])).await.unwrap();
    }
    let mut users = UserServiceClient::new(channel(&nodes[0]));
    let other = "ff".repeat(16);
    for id in [&[][..], &[(ID, other.as_str())]] {
        let again = refusal(users.delete_user(with(delete(), &token, id)).await);
        assert_eq!(again, (Code::NotFound, "there is no user ada".into()), "another write finds no user");
    }
}

#[tokio::test]
async fn every_node_takes_writes_and_a_follower_says_who_leads() {
    let nodes = TestNode::start_cluster(3).await;
    wait_until(|| nodes.iter().any(|node| node.cluster().is_leader())).await;
    for (number, node) in nodes.iter().enumerate() {
        let mut users = UserServiceClient::new(channel(node));
        let request = pb::CreateUserRequest { username: format!("user{number}"), ..Default::default() };
        let answer = users.create_user(by_operator(node, request)).await.unwrap();
        let leader = nodes.iter().find(|n| n.cluster().is_leader()).unwrap();
        let expected = (!node.cluster().is_leader()).then(|| leader.api_url().to_owned());
        assert_eq!(header(&answer, "x-conclave-leader"), expected);
    }
}

#[tokio::test]
async fn what_one_node_acknowledged_another_shows_to_whoever_says_so() {
    let nodes = TestNode::start_cluster(3).await;
    let token = nodes[0].operator_token();
    for round in 0..20 {
        let (writer, reader) = (&nodes[round % 3], &nodes[(round + 1) % 3]);
        let mut users = UserServiceClient::new(channel(writer));
        let name = format!("user{round}");
        let request = pb::CreateUserRequest { username: name.clone(), ..Default::default() };
        let answer = users.create_user(with(request, &token, &[])).await.unwrap();
        let index = header(&answer, "x-conclave-index").unwrap();
        let mut users = UserServiceClient::new(channel(reader));
        let get = with(pb::GetUserRequest { user: name }, &token, &[("x-conclave-index", &index)]);
        let seen = users.get_user(get).await.unwrap();
        let number = |text: &str| text.split_once('.').unwrap().0.parse::<u64>().unwrap();
        assert!(number(&header(&seen, "x-conclave-index").unwrap()) >= number(&index));
    }
    let mut users = UserServiceClient::new(channel(&nodes[0]));
    let forged =
        ["18446744073709551615.AAAAAAAAAAAAAAAA", "1.AAAAAAAAAAAAAAAA"].map(|text| (text, Code::OutOfRange));
    for (index, code) in
        forged.into_iter().chain([("1", Code::InvalidArgument), ("x", Code::InvalidArgument)])
    {
        let get = with(pb::GetUserRequest { user: "user0".into() }, &token, &[("x-conclave-index", index)]);
        assert_eq!(refusal(users.get_user(get).await).0, code);
    }
}

#[tokio::test]
async fn a_token_made_on_one_node_opens_the_others_at_once() {
    let nodes = TestNode::start_cluster(3).await;
    for round in 0..10 {
        let (_, token) = nodes[round % 3].api_token(ApiRole::Reader).await;
        for node in &nodes {
            let mut users = UserServiceClient::new(channel(node));
            users.list_users(with(pb::ListUsersRequest { page: None }, &token, &[])).await.unwrap();
        }
    }
}
