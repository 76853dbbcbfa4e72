//! The parts that need no token, and the bounds.

use conclave_node::testing::TestNode;
use conclave_proto::admin::v1::{self as pb, user_service_client::UserServiceClient};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::{by_operator, channel, refusal};

#[tokio::test]
async fn health_follows_readiness() {
    let node = TestNode::start().await;
    let mut health = HealthClient::new(channel(&node));
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "conclave.admin.v1.UserService"] {
        let answer = health.check(ask(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    assert_eq!(refusal(health.check(ask("nonsense")).await).0, Code::NotFound);
    let mut watch = health.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    node.cluster().shutdown().await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(health.check(ask("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn reflection_names_every_service() {
    let node = TestNode::start().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel(&node));
    let asked = tokio_stream::once(request);
    let mut answers = reflection.server_reflection_info(asked).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("conclave.admin.v1.")).count(), 14, "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health"));
}

#[tokio::test]
async fn a_message_beyond_the_bound_is_refused_and_the_connection_lives_on() {
    let node = TestNode::start().await;
    let mut users = UserServiceClient::new(channel(&node));
    let huge = pb::CreateUserRequest { display_name: "x".repeat(2 * 1024 * 1024), ..Default::default() };
    assert_eq!(refusal(users.create_user(by_operator(&node, huge)).await).0, Code::OutOfRange);
    let large = pb::CreateUserRequest { display_name: "x".repeat(512 * 1024), ..Default::default() };
    assert_eq!(refusal(users.create_user(by_operator(&node, large)).await).0, Code::InvalidArgument);
    users.list_users(by_operator(&node, pb::ListUsersRequest { page: None })).await.unwrap();
}
