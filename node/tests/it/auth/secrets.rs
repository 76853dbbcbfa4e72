//! Tests of what survives a change of the cluster secret, and what does not.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use conclave_auth::{Auth, machine_client::app_password_hash, write_key::WriteKey};
use conclave_base::runtime::testing::SeededEntropy;
use conclave_crypto::{
    handle::{HandleContents, HandleKind, HandleSecret, refresh_secret},
    keys::ClusterKeys,
    password::PasswordPool,
    secret::{ClusterSecret, SecretRing},
};
use conclave_node::testing::{CHEAP, TestNode};
use conclave_proto::command::v1::{CreateAppPassword, CreateUser, command::Body};
use conclave_state::{client::SigningAlgorithm, ids::AppPasswordId};

fn new() -> ClusterSecret {
    ClusterSecret::generate(&*SeededEntropy::new(77))
}

/// This cluster as a node in another phase of the rotation sees it.
fn phase(node: &TestNode, current: ClusterSecret, accepted: Vec<ClusterSecret>) -> Auth {
    let keys = ClusterKeys::ring(&SecretRing { current, accepted });
    let passwords = PasswordPool::start(NonZeroUsize::MIN, CHEAP).unwrap();
    let settings = node.auth().settings().clone();
    Auth::new(node.cluster().clone(), Arc::new(keys), passwords, settings, node.runtime().clone())
}

fn derived(auth: &Auth) -> conclave_state::ids::RequestId {
    let keys = auth.deriving_keys();
    WriteKey::of_request(&keys.request, Some("again"), &[b"login"], &*auth.runtime().entropy).request()
}

#[tokio::test]
async fn what_is_held_and_who_is_who_outlives_the_day_and_nothing_else_does() {
    let node = TestNode::start().await;
    let old = node.auth();
    old.clone().ensure_signing_keys(None).await;
    let pairwise = *old.pairwise_key().unwrap().expose();
    let cookie = old.issue(HandleKind::Session, [1; 16], HandleSecret::new([2; 32]), 0, 1);
    let refresh = refresh_secret(&old.cluster_keys().refresh, &[3; 16], 4);
    let refresh = old.issue(HandleKind::Refresh, [3; 16], refresh, 4, 1);

    let first = phase(&node, TestNode::secret(), vec![new()]);
    let second = phase(&node, new(), vec![TestNode::secret()]);
    first.tend_secret().await.unwrap();
    assert_eq!(derived(&first), derived(&second), "a retry at a node of the other phase is the same write");
    assert_eq!(second.values_to_reseal().0.len(), 3, "all of the signing keys");

    second.tend_secret().await.unwrap();
    assert_eq!(derived(&first), derived(&second), "also after the cluster has changed over");
    assert_ne!(derived(&second), derived(old), "to the new secret");
    assert_eq!(node.cluster().secret_of_data(), second.cluster_keys().secret_check);

    let third = phase(&node, new(), Vec::new());
    third.check_secrets().unwrap();
    assert_eq!(*third.pairwise_key().unwrap().expose(), pairwise, "relying parties know people by it");
    assert_eq!((third.values_to_reseal().0.len(), third.values_to_reseal().1), (0, 0));
    let state = node.cluster().view();
    third.signing().signer(&state, SigningAlgorithm::Es256).unwrap();
    assert!(third.parse(HandleKind::Session, &cookie).is_some(), "a session from before the day");
    let handle = third.parse(HandleKind::Refresh, &refresh).unwrap();
    assert!(third.is_refresh_secret(&handle));
    let forged = HandleContents { secret: HandleSecret::new([9; 32]), ..handle };
    assert!(!third.is_refresh_secret(&forged));

    let left_behind = phase(&node, TestNode::secret(), Vec::new());
    let refused = left_behind.check_secrets().unwrap_err().to_string();
    assert!(refused.contains("cluster.accept_secret_files"), "{refused}");
    let made = left_behind.issue(HandleKind::Session, [1; 16], HandleSecret::new([2; 32]), 0, 1);
    assert!(third.parse(HandleKind::Session, &made).is_some(), "its MAC alone lets nobody in");
    let kid = state.active_key(SigningAlgorithm::Es256).unwrap().kid.clone();
    assert!(left_behind.signing().verifier(&state, &kid).is_some(), "verifying needs no private half");
    assert!(left_behind.signing().signer(&state, SigningAlgorithm::Es256).is_err());
}

#[tokio::test]
async fn a_first_phase_that_was_left_out_changes_nobodys_name() {
    let node = TestNode::start().await;
    let pairwise = *node.auth().pairwise_key().unwrap().expose();
    let second = phase(&node, new(), vec![TestNode::secret()]);
    assert_eq!(*second.pairwise_key().unwrap().expose(), pairwise, "before anything is kept");
    second.tend_secret().await.unwrap();
    assert_eq!(*phase(&node, new(), Vec::new()).pairwise_key().unwrap().expose(), pairwise);
}

#[tokio::test]
async fn a_change_that_is_broken_off_leaves_the_old_secret_in_use() {
    let node = TestNode::start().await;
    let cookie = |auth: &Auth| auth.issue(HandleKind::Session, [1; 16], HandleSecret::new([2; 32]), 0, 1);
    let second = phase(&node, new(), vec![TestNode::secret()]);
    second.tend_secret().await.unwrap();
    let meanwhile = cookie(&second);
    let back = phase(&node, TestNode::secret(), vec![new()]);
    back.tend_secret().await.unwrap();
    let alone = phase(&node, TestNode::secret(), Vec::new());
    assert!(alone.parse(HandleKind::Session, &meanwhile).is_some());
    assert_eq!(alone.retired_secrets(), [second.cluster_keys().secret_check]);
}

#[tokio::test]
async fn an_app_password_is_good_after_the_day_and_hashed_anew_when_it_is_used() {
    let node = TestNode::start().await;
    let (user, id, secret) = ([5; 16], [6; 16], HandleSecret::new([7; 32]));
    let command = CreateUser { user_id: user.to_vec(), username: "ada".into(), ..Default::default() };
    node.propose(Body::CreateUser(command)).await.unwrap();
    let command = CreateAppPassword {
        app_password_id: id.to_vec(),
        user_id: user.to_vec(),
        name: "phone".into(),
        secret_hash: app_password_hash(&node.auth().cluster_keys().app_password, &secret).to_vec(),
        ..Default::default()
    };
    node.propose(Body::CreateAppPassword(command)).await.unwrap();
    phase(&node, new(), vec![TestNode::secret()]).tend_secret().await.unwrap();
    let third = phase(&node, new(), Vec::new());
    let row = || {
        let state = node.cluster().view();
        Arc::clone(state.live_app_password(AppPasswordId::new(id), third.now(&state)).unwrap().0)
    };
    assert!(!third.is_app_password(&row(), &HandleSecret::new([8; 32])));
    assert!(third.is_app_password(&row(), &secret));
    let own = third.cluster_keys().secret_check;
    tokio::time::timeout(Duration::from_secs(10), async {
        while row().secret_id != Some(own) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is hashed anew");
    assert!(third.is_app_password(&row(), &secret));
}
