//! The rotation of signing keys, over its whole time.

use std::time::Duration;

use conclave_node::testing::TestNode;
use conclave_state::{client::SigningAlgorithm, key::KeyStage};

const DAY: Duration = Duration::from_hours(24);

async fn stages(node: &TestNode) -> Vec<(SigningAlgorithm, KeyStage)> {
    node.auth().rotate_what_is_due().await;
    node.auth().cluster().view().keys().map(|key| (key.algorithm, key.stage)).collect()
}

fn count(stages: &[(SigningAlgorithm, KeyStage)], wanted: fn(&KeyStage) -> bool) -> usize {
    stages.iter().filter(|(_, stage)| wanted(stage)).count()
}

#[tokio::test]
async fn a_key_is_published_then_signs_then_is_kept_then_goes() {
    let node = TestNode::start().await;
    node.auth().clone().ensure_signing_keys(None).await;
    let tokens = node.auth().settings().tokens.clone();
    let next = |stage: &KeyStage| *stage == KeyStage::Next;
    let active = |stage: &KeyStage| matches!(stage, KeyStage::Active(_));
    let retired = |stage: &KeyStage| matches!(stage, KeyStage::Retired { .. });
    assert_eq!(stages(&node).await.len(), 3, "young keys stay alone");
    let before = node.auth().cluster().view();
    let old = before.active_key(SigningAlgorithm::Es256).unwrap().kid.clone();

    node.clock().advance(tokens.signing_key_ttl.saturating_sub(tokens.signing_key_notice));
    let seen = stages(&node).await;
    assert_eq!((count(&seen, active), count(&seen, next)), (3, 3), "known before they sign");
    assert_eq!(stages(&node).await.len(), 6, "and no more of them");

    node.clock().advance(tokens.signing_key_notice);
    let seen = stages(&node).await;
    assert_eq!((count(&seen, active), count(&seen, retired)), (3, 3));
    let state = node.auth().cluster().view();
    assert_ne!(state.active_key(SigningAlgorithm::Es256).unwrap().kid, old);
    assert!(node.auth().signing().verifier(&state, &old).is_some(), "what it signed is still good");

    node.clock().advance(tokens.access_ttl + DAY);
    assert_eq!(stages(&node).await.len(), 3, "gone when nothing it signed is valid");
    let state = node.auth().cluster().view();
    assert!(node.auth().signing().verifier(&state, &old).is_none());
}
