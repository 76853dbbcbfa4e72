//! A disaster with an archive: every disk is lost during work, and almost no write with them. Also restores to earlier
//! points in time.

use std::time::{Duration, Instant};

use conclave_archive::read::Until;
use conclave_client::v1;
use conclave_config::{Config, Environment};
use conclave_crypto::{hex, keys::ClusterKeys, secret::ClusterSecret};
use conclave_dr::archived;
use conclave_state::snapshot;

use super::{
    relying_party::{Way, refresh, sign_in},
    restore::{DemoDirectory, Serving, json},
};

/// The number of points in time that are restored.
const POINTS: usize = 20;
/// The promised bound of data loss: every write older than this at the end must be restored.
const DATA_LOSS: Duration = Duration::from_secs(5);
const WORK: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_disk_is_lost_amid_work_and_the_archive_brings_it_back() {
    let place = tempfile::tempdir().unwrap();
    let target = format!("file://{}", place.path().display());
    let mut house = DemoDirectory::start_with(&[("CONCLAVE_ARCHIVE__TARGET", &target)]);

    // Points to restore: the digest of a live node at each.
    let mut live = Vec::new();
    for n in 0..POINTS {
        house.create(&format!("early-{n}")).await;
        live.push(house.demo.digests().await[0].clone());
    }
    let kept = sign_in(&house.demo, Way::EachToTheNextNode).await.unwrap();
    let revoked = sign_in(&house.demo, Way::EachToTheNextNode).await.unwrap();
    let admin = house.demo.cluster.admin.username.clone();
    let command = v1::RevokeUserSessionsRequest { user: admin.clone(), ..Default::default() };
    house.api().sessions().revoke_of_user(command).await.unwrap();
    let disabled =
        v1::UpdateUserRequest { user: "early-3".into(), disabled: Some(true), ..Default::default() };
    house.api().users().update(disabled).await.unwrap();

    let (begun, mut acknowledged) = (Instant::now(), Vec::new());
    while begun.elapsed() < WORK {
        let name = format!("late-{}", acknowledged.len());
        house.create(&name).await;
        acknowledged.push((name, Instant::now()));
    }
    let end = Instant::now();
    house.demo.kill();
    for node in &house.demo.cluster.nodes {
        std::fs::remove_dir_all(&node.data_dir).unwrap();
    }

    let config = house.config(1);
    let from = ["restore", "--archive", "--target", &target, "--config", &config];
    let done = json(&from).unwrap();
    assert_eq!(done["archive"]["not_understood"], 0);
    let _serving = Serving::start(&config, &house.file("1.log"));
    house.ready(&[1]).await;
    let mut lost = Vec::new();
    for (name, at) in &acknowledged {
        if house.user(name).await.is_none() {
            lost.push(end - *at);
        }
    }
    let longest = lost.iter().max().copied().unwrap_or_default();
    println!(
        "{} of {} acknowledged writes lost, the oldest {longest:?} before the end",
        lost.len(),
        acknowledged.len()
    );
    assert!(longest <= DATA_LOSS, "a write of {longest:?} before the end is lost");
    assert!(house.user("early-3").await.unwrap().disabled);
    for person in [&kept, &revoked] {
        assert!(!house.knows(0, person).await, "a session of before is accepted");
        assert!(refresh(&house.demo, Way::Node(1), &person.refresh_token).await.is_err());
    }

    // Each of those points has that digest.
    let secret = std::fs::read_to_string(house.file("demo/cluster.secret")).unwrap();
    let keys = ClusterKeys::derive(&ClusterSecret::parse(secret.trim()).unwrap());
    let environment = Environment::of([("CONCLAVE_ARCHIVE__TARGET", target.as_str())]);
    let settings = Config::from_sources(None, &environment).unwrap().archive;
    for (index, digest) in live {
        let scratch = tempfile::tempdir().unwrap();
        let found = archived::read(&settings, &keys, Until::Index(index), None, scratch.path(), &mut |_| {})
            .await
            .unwrap();
        assert_eq!(hex::encode(&snapshot::digest(&found.older.state)), digest, "at entry {index}");
    }
    // An earlier point does not bring back sessions and credentials that were revoked since.
    let other = house.file("earlier.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let data = house.demo.cluster.nodes[0].data_dir.display().to_string();
    std::fs::write(&other, text.replace(&data, &house.file("earlier").display().to_string())).unwrap();
    let earlier = other.display().to_string();
    let back = ["restore", "--archive", "--target", &target, "--config", &earlier, "--index"];
    let refused = json(&[&back[..], &["1"]].concat()).unwrap_err();
    assert!(refused.contains("at or before entry 1"), "{refused}");
    let unwanted = json(&[&back[..], &["99999999"]].concat()).unwrap_err();
    assert!(!unwanted.is_empty());
}
