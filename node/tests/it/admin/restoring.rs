//! A restore that takes long: the token is checked again at its end.

use conclave_node::testing::TestNode;
use conclave_proto::admin::v1::{
    self as pb, restore_part::Part, restore_progress::Step, snapshot_service_client::SnapshotServiceClient,
    token_service_client::TokenServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::{by_operator, channel, with};

#[tokio::test]
async fn who_lost_the_token_while_the_file_was_sent_restores_nothing() {
    let node = TestNode::start().await;
    let saved = node.cluster().save_snapshot(0).await.unwrap();
    let bytes = std::fs::read(saved.path()).unwrap();
    let mut tokens = TokenServiceClient::new(channel(&node));
    for revoked in [true, false] {
        let command =
            pb::CreateTokenRequest { name: format!("restores {revoked}"), role: "admin".into(), ttl_ms: 0 };
        let made = tokens.create_token(by_operator(&node, command)).await.unwrap().into_inner();
        let (send, parts) = mpsc::channel(4);
        let part = |part| pb::RestorePart { part: Some(part) };
        let command = pb::RestoreOrder { size_bytes: bytes.len() as u64, ..Default::default() };
        send.send(part(Part::Order(command))).await.unwrap();
        let mut snapshots = SnapshotServiceClient::new(channel(&node));
        let request = with(ReceiverStream::new(parts), &made.secret, &[]);
        let mut steps = snapshots.restore_snapshot(request).await.unwrap().into_inner();
        let (half, rest) = bytes.split_at(bytes.len() / 2);
        send.send(part(Part::Data(half.to_vec()))).await.unwrap();
        // The data has been received: the call is in progress.
        let first = steps.message().await.unwrap().unwrap().step;
        assert_eq!(first, Some(Step::ReceivedBytes(half.len() as u64)));
        if revoked {
            let command = pb::RevokeTokenRequest { id: made.token.unwrap().id };
            tokens.revoke_token(by_operator(&node, command)).await.unwrap();
        }
        let epoch = node.cluster().view().meta().revocation_epoch;
        send.send(part(Part::Data(rest.to_vec()))).await.unwrap();
        drop(send);
        let outcome = loop {
            match steps.message().await {
                Ok(Some(message)) if matches!(message.step, Some(Step::Report(_))) => break Ok(()),
                Ok(step) => assert!(step.is_some(), "it ends with a report or a refusal"),
                Err(status) => break Err(status.code()),
            }
        };
        let after = node.cluster().view().meta().revocation_epoch;
        let expected = if revoked { (Err(Code::Unauthenticated), epoch) } else { (Ok(()), epoch + 1) };
        assert_eq!((outcome, after), expected);
    }
}
