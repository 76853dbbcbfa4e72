//! The first signing keys of a cluster.

use conclave_auth::keys::{EarlyRsa, all_present};
use conclave_crypto::{
    jwk::Alg,
    jwt::{JwtError, JwtSigningKey},
};
use conclave_node::testing::TestNode;
use conclave_state::client::SigningAlgorithm;

#[tokio::test]
async fn the_key_begun_early_is_the_one_that_signs() {
    let node = TestNode::start().await;
    let pkcs8 = JwtSigningKey::generate_pkcs8(Alg::Rs256, &*node.runtime().entropy).unwrap();
    let begun = JwtSigningKey::from_pkcs8(Alg::Rs256, &pkcs8).unwrap();
    let early = EarlyRsa::of(tokio::spawn(async move { Ok(pkcs8) }));

    node.auth().clone().ensure_signing_keys(Some(early)).await;

    let state = node.auth().cluster().view();
    assert!(all_present(&state));
    let signer = node.auth().signing().signer(&state, SigningAlgorithm::Rs256).unwrap();
    assert_eq!(signer.kid(), begun.kid());
}

#[tokio::test]
async fn an_early_key_that_failed_is_replaced_by_another() {
    let node = TestNode::start().await;
    let early = EarlyRsa::of(tokio::spawn(async { Err(JwtError::Signing) }));
    node.auth().clone().ensure_signing_keys(Some(early)).await;
    assert!(all_present(&node.auth().cluster().view()));
}
