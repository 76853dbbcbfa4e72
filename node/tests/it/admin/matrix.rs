//! Permissions: every RPC of the API, read from its descriptor, against every kind of caller.

use std::collections::BTreeMap;

use conclave_crypto::handle::HandleSecret;
use conclave_node::testing::{ApiRole, TestNode};
use conclave_proto::{
    admin::FILE_DESCRIPTOR_SET,
    command::v1::{RevokeApiToken, command::Body},
};
use prost::Message as _;
use tonic::{Code, Request, codegen::http::uri::PathAndQuery, metadata::MetadataValue, transport::Channel};
use tonic_prost::ProstCodec;

use super::channel;

/// Every RPC, whether it writes, and the reply to an empty message from an authorised caller. A new RPC needs a line
/// here.
const RPCS: [(&str, bool, Code); 70] = [
    ("UserService/CreateUser", true, Code::InvalidArgument),
    ("UserService/GetUser", false, Code::NotFound),
    ("UserService/ListUsers", false, Code::Ok),
    ("UserService/UpdateUser", true, Code::InvalidArgument),
    ("UserService/SetPassword", true, Code::InvalidArgument),
    ("UserService/DeleteUser", true, Code::InvalidArgument),
    ("UserService/UnlockUser", true, Code::InvalidArgument),
    ("UserService/RenameUser", true, Code::InvalidArgument),
    ("GroupService/CreateGroup", true, Code::InvalidArgument),
    ("GroupService/ListGroups", false, Code::Ok),
    ("GroupService/DeleteGroup", true, Code::InvalidArgument),
    ("GroupService/RenameGroup", true, Code::InvalidArgument),
    ("GroupService/AddMember", true, Code::InvalidArgument),
    ("GroupService/RemoveMember", true, Code::InvalidArgument),
    ("ApplicationService/CreateApplication", true, Code::InvalidArgument),
    ("ApplicationService/GetApplication", false, Code::NotFound),
    ("ApplicationService/ListApplications", false, Code::Ok),
    ("ApplicationService/UpdateApplication", true, Code::InvalidArgument),
    ("ApplicationService/DeleteApplication", true, Code::InvalidArgument),
    ("ClientService/CreateClient", true, Code::Ok),
    ("ClientService/GetClient", false, Code::NotFound),
    ("ClientService/ListClients", false, Code::Ok),
    ("ClientService/UpdateClient", true, Code::InvalidArgument),
    ("ClientService/RotateClientSecret", true, Code::InvalidArgument),
    ("ClientService/DeleteClient", true, Code::InvalidArgument),
    ("ClientService/ListConsents", false, Code::NotFound),
    ("ClientService/RevokeConsent", true, Code::InvalidArgument),
    ("UpstreamService/CreateUpstream", true, Code::InvalidArgument),
    ("UpstreamService/GetUpstream", false, Code::NotFound),
    ("UpstreamService/ListUpstreams", false, Code::Ok),
    ("UpstreamService/UpdateUpstream", true, Code::NotFound),
    ("UpstreamService/DeleteUpstream", true, Code::NotFound),
    ("UpstreamService/ListIdentities", false, Code::NotFound),
    ("UpstreamService/UnlinkIdentity", true, Code::InvalidArgument),
    ("UpstreamService/InviteIdentity", true, Code::NotFound),
    ("UpstreamService/ListInvitations", false, Code::Ok),
    ("UpstreamService/RevokeInvitation", true, Code::NotFound),
    ("PolicyService/SetPolicy", true, Code::InvalidArgument),
    ("PolicyService/GetPolicy", false, Code::NotFound),
    ("PolicyService/RemovePolicy", true, Code::InvalidArgument),
    ("PolicyService/PromoteCandidate", true, Code::InvalidArgument),
    ("PolicyService/TestPolicy", false, Code::NotFound),
    ("PolicyService/ExplainDecision", false, Code::NotFound),
    ("PolicyService/ListDecisions", false, Code::Ok),
    ("PolicyService/GetShadowReport", false, Code::NotFound),
    ("PolicyService/ReplayCandidate", false, Code::NotFound),
    ("SessionService/ListSessions", false, Code::Ok),
    ("SessionService/RevokeSession", true, Code::InvalidArgument),
    ("SessionService/RevokeUserSessions", true, Code::InvalidArgument),
    ("SessionService/ListNotices", false, Code::Ok),
    ("TokenService/CreateToken", true, Code::InvalidArgument),
    ("TokenService/ListTokens", false, Code::Ok),
    ("TokenService/RevokeToken", true, Code::InvalidArgument),
    ("AppPasswordService/CreateAppPassword", true, Code::InvalidArgument),
    ("AppPasswordService/ListAppPasswords", false, Code::Ok),
    ("AppPasswordService/RevokeAppPassword", true, Code::InvalidArgument),
    ("KeyService/ListKeys", false, Code::Ok),
    ("KeyService/RotateKey", true, Code::InvalidArgument),
    ("KeyService/RetireKey", true, Code::NotFound),
    ("ClusterService/RemoveNode", true, Code::NotFound),
    ("ClusterService/ReplaceNode", true, Code::NotFound),
    ("ClusterService/TransferLeader", true, Code::FailedPrecondition),
    ("ClusterService/ResetLogTime", true, Code::FailedPrecondition),
    ("SnapshotService/SaveSnapshot", true, Code::Ok),
    ("SnapshotService/RestoreSnapshot", true, Code::InvalidArgument),
    ("ArchiveService/GetArchiveStatus", false, Code::FailedPrecondition),
    ("ArchiveService/ListArchive", false, Code::FailedPrecondition),
    ("ArchiveService/PruneArchive", true, Code::FailedPrecondition),
    ("SecretService/GetSecretStatus", false, Code::Ok),
    ("SecretService/EndEverything", true, Code::Ok),
];
/// An RPC that needs no state of its own.
const STATUS: (&str, bool, Code) = ("ClusterService/GetStatus", false, Code::Ok);

fn described() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let files = set.file.iter().filter(|file| file.package() == "conclave.admin.v1");
    let services = files.flat_map(|file| &file.service);
    services.flat_map(|s| s.method.iter().map(move |m| format!("{}/{}", s.name(), m.name()))).collect()
}

async fn call(channel: Channel, rpc: &str, token: Option<&str>) -> Code {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = Request::new(());
    if let Some(token) = token {
        let bearer = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
        request.metadata_mut().insert("authorization", bearer);
    }
    let path = PathAndQuery::try_from(format!("/conclave.admin.v1.{rpc}")).unwrap();
    let codec = ProstCodec::<(), ()>::default();
    grpc.unary(request, path, codec).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn every_rpc_lets_in_whom_it_should_and_nobody_else() {
    let expected: BTreeMap<String, (bool, Code)> = RPCS
        .iter()
        .chain([&STATUS])
        .map(|(rpc, writes, code)| ((*rpc).to_owned(), (*writes, *code)))
        .collect();
    let described = described();
    assert!(
        described.iter().all(|rpc| expected.contains_key(rpc)),
        "an RPC has no line in this test: {described:?}"
    );
    assert_eq!(described.len(), expected.len(), "a line here has no RPC");

    let node = TestNode::start().await;
    let expired = node.operator_token();
    let (_, reader) = node.api_token(ApiRole::Reader).await;
    let (_, admin) = node.api_token(ApiRole::Admin).await;
    let (revoked_id, revoked) = node.api_token(ApiRole::Admin).await;
    node.propose(Body::RevokeApiToken(RevokeApiToken { token_id: revoked_id.to_vec() })).await.unwrap();
    let forged_secret = node.auth().issue(
        conclave_crypto::handle::HandleKind::Api,
        *node.api_token(ApiRole::Admin).await.0.bytes(),
        HandleSecret::new([7; 32]),
        0,
        1,
    );
    let session_cookie = node.auth().issue(
        conclave_crypto::handle::HandleKind::Session,
        [1; 16],
        HandleSecret::new([7; 32]),
        0,
        1,
    );
    node.clock().advance(std::time::Duration::from_mins(3));
    let operator = node.operator_token();

    let strangers = [None, Some(""), Some("garbage"), Some("op1.1.2.3")].into_iter();
    let strangers =
        strangers.chain([&expired, &revoked, &forged_secret, &session_cookie].map(|t| Some(t.as_str())));
    let strangers: Vec<Option<&str>> = strangers.collect();
    let channel = channel(&node);
    for (rpc, (writes, code)) in &expected {
        for stranger in &strangers {
            assert_eq!(
                call(channel.clone(), rpc, *stranger).await,
                Code::Unauthenticated,
                "{rpc} by {stranger:?}"
            );
        }
        let for_readers = if *writes { Code::PermissionDenied } else { *code };
        assert_eq!(call(channel.clone(), rpc, Some(&reader)).await, for_readers, "{rpc} by a reader");
        assert_eq!(call(channel.clone(), rpc, Some(&admin)).await, *code, "{rpc} by an admin");
        assert_eq!(call(channel.clone(), rpc, Some(&operator)).await, *code, "{rpc} by the operator");
    }
}
