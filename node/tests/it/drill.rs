//! The effect of a drill on its copy, and of a restore on a snapshot.

use conclave_base::runtime::{Runtime, testing::SeededEntropy};
use conclave_cluster::offline_state::OfflineState;
use conclave_crypto::{
    keys::ClusterKeys,
    secret::{ClusterSecret, SecretRing},
};
use conclave_dr::{
    drill::quieten,
    offline::{LogTime, Restore, restore},
};
use conclave_node::testing::TestNode;
use conclave_proto::command::v1::{
    CreateUpstream, Upstream, UpstreamAdmission, UpstreamClaims, UpstreamRule, command::Body,
};
use conclave_store::DataDir;

#[tokio::test]
async fn a_node_that_is_tried_out_asks_and_tells_nobody() {
    let node = TestNode::start().await;
    let provider = Upstream {
        name: "corp".into(),
        display_name: "Corp".into(),
        issuer: "https://corp.example.com".into(),
        client_id: "here".into(),
        scopes: vec!["openid".into()],
        claims: Some(UpstreamClaims { subject: "sub".into(), ..UpstreamClaims::default() }),
        rule: Some(UpstreamRule { admission: UpstreamAdmission::None.into(), ..UpstreamRule::default() }),
        ..Upstream::default()
    };
    node.propose(Body::CreateUpstream(CreateUpstream { upstream: Some(provider) })).await.unwrap();
    let saved = node.cluster().save_snapshot(node.cluster().view().index()).await.unwrap();
    let key = conclave_store::snapshot::SealingKey::ring(node.auth().cluster_keys());
    let mut known = OfflineState::of_file(saved.path(), &key, |_| {}).unwrap();
    assert!(known.state.upstreams().any(|upstream| !upstream.disabled));
    let runtime = Runtime { entropy: SeededEntropy::new(5), ..node.runtime().clone() };
    quieten(&mut known, &runtime).unwrap();
    assert!(known.state.upstreams().all(|upstream| upstream.disabled));
    assert_eq!(known.state.outbox().count(), 0);
}

#[tokio::test]
async fn two_lives_of_one_snapshot_in_the_same_second_are_two() {
    let node = TestNode::start().await;
    let saved = node.cluster().save_snapshot(node.cluster().view().index()).await.unwrap();
    let keys = node.auth().cluster_keys();
    let key = conclave_store::snapshot::SealingKey::ring(keys);
    let known = OfflineState::of_file(saved.path(), &key, |_| {}).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let founded = |dir: &str, dry_run| {
        let command = Restore {
            older: known.clone(),
            newest: known.clone(),
            data_dir: temp.path().join(dir),
            cluster_addr: "127.0.0.1:1".into(),
            api_url: "http://127.0.0.1:1".into(),
            keep_sessions: false,
            enable_returning: false,
            set_aside: true,
            dry_run,
            log_time: LogTime::Refuse,
        };
        restore(command, keys, node.runtime())
    };
    let (one, other) = (founded("one", true).unwrap(), founded("other", true).unwrap());
    assert_ne!(one.lineage.lineage, other.lineage.lineage);
    assert!(one.lineage.lineage.epoch > known.lineage.epoch);
    std::fs::create_dir(temp.path().join("photos")).unwrap();
    std::fs::write(temp.path().join("photos/of-a-cat"), "").unwrap();
    for dry_run in [true, false] {
        let refused = founded("photos", dry_run).unwrap_err().to_string();
        assert!(refused.contains("of-a-cat"), "{refused}");
    }
}

#[tokio::test]
async fn a_snapshot_from_before_the_secret_changed_is_restored_as_of_its_own_secret() {
    let node = TestNode::start().await;
    let saved = node.cluster().save_snapshot(node.cluster().view().index()).await.unwrap();
    let new = ClusterSecret::generate(&*SeededEntropy::new(78));
    let ring = ClusterKeys::ring(&SecretRing { current: new, accepted: vec![TestNode::secret()] });
    let key = conclave_store::snapshot::SealingKey::ring(&ring);
    let known = OfflineState::of_file(saved.path(), &key, |_| {}).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let command = Restore {
        older: known.clone(),
        newest: known,
        data_dir: temp.path().join("data"),
        cluster_addr: "127.0.0.1:1".into(),
        api_url: "http://127.0.0.1:1".into(),
        keep_sessions: false,
        enable_returning: false,
        set_aside: false,
        dry_run: false,
        log_time: LogTime::Refuse,
    };
    let dir = command.data_dir.clone();
    restore(command, &ring, node.runtime()).unwrap();
    let identity = DataDir::peek(&dir).unwrap().unwrap();
    // Pairwise subjects are made from the first secret, so the restored node must know which secret that is.
    assert_eq!(identity.secret_check, node.auth().cluster_keys().secret_check);
    assert_ne!(identity.secret_check, ring.secret_check);
}
