//! Three processes and an archive in a directory: acknowledged writes are archived a moment later, whichever node
//! leads, and after the directory was missing.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use conclave_archive::read::{self, Until};
use conclave_client::{AdminClient, v1};
use conclave_cluster::command_entry;
use conclave_config::{self, Config, Environment};
use conclave_crypto::{keys::ClusterKeys, secret::ClusterSecret};
use conclave_proto::command::v1::{Command, LogEntry, command::Body};
use prost::Message as _;

use super::world::{Demo, kill_9};

/// The number of users in a round.
const USERS: usize = 40;
/// The longest wait.
const LIMIT: Duration = Duration::from_secs(30);
/// Acknowledged writes are in the archive within a second; a machine that runs many tests at once gets more time.
const LAG_LIMIT: Duration = Duration::from_secs(3);

struct World {
    demo: Demo,
    api: AdminClient,
    settings: conclave_config::ArchiveConfig,
    keys: ClusterKeys,
}

impl World {
    fn start(place: &Path) -> Self {
        let target = format!("file://{}", place.display());
        let demo = Demo::start_with(&["--restart"], &[("CONCLAVE_ARCHIVE__TARGET", &target)]);
        let data = demo.cluster.nodes[0].data_dir.parent().unwrap();
        let secret = std::fs::read_to_string(data.join("cluster.secret")).unwrap();
        let keys = ClusterKeys::derive(&ClusterSecret::parse(&secret).unwrap());
        let environment = Environment::of([("CONCLAVE_ARCHIVE__TARGET", target.as_str())]);
        let settings = Config::from_sources(None, &environment).unwrap().archive;
        let endpoints = demo.cluster.nodes.iter().map(|node| node.api.as_str());
        let api =
            AdminClient::builder().endpoints(endpoints).token(&demo.cluster.admin.token).build().unwrap();
        Self { demo, api, settings, keys }
    }

    /// Creates users; returns their names and the time of the last acknowledgement.
    async fn work(&self, round: &str) -> (BTreeSet<String>, Instant) {
        let mut names = BTreeSet::new();
        for n in 0..USERS {
            let username = format!("{round}-{n}");
            let command = v1::CreateUserRequest { username: username.clone(), ..Default::default() };
            self.api.users().create(command).await.unwrap();
            names.insert(username);
        }
        (names, Instant::now())
    }

    async fn status(&self) -> v1::ArchiveStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.api.archive().status(v1::GetArchiveStatusRequest {}).await {
                Ok(status) => return status,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    async fn until(&self, is_so: impl Fn(&v1::ArchiveStatus) -> bool) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = self.status().await;
            if is_so(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "{status:?}");
        }
    }

    /// The users that the log in the archive creates.
    async fn archived(&self) -> BTreeSet<String> {
        let into = tempfile::tempdir().unwrap();
        let reader = read::open(&self.settings, &self.keys).await.unwrap();
        let fetched = reader.restore(Until::Latest, into.path(), &mut |_| ()).await.unwrap();
        let made = fetched.records().filter_map(|record| {
            let record = record.unwrap();
            let entry = LogEntry::decode(command_entry(&record)?).unwrap();
            match Command::decode(entry.command.as_slice()).unwrap().body? {
                Body::CreateUser(command) => Some(command.username),
                _ => None,
            }
        });
        made.collect()
    }

    /// The time from `acknowledged` until the archive holds these users.
    async fn lag(&self, names: &BTreeSet<String>, acknowledged: Instant) -> Duration {
        loop {
            let looked = Instant::now();
            if self.archived().await.is_superset(names) {
                return looked.saturating_duration_since(acknowledged);
            }
            assert!(acknowledged.elapsed() < LIMIT, "the archive lacks acknowledged writes");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_archive_holds_what_was_acknowledged_whoever_leads_and_whatever_was_away() {
    let parent = tempfile::tempdir().unwrap();
    let place = parent.path().join("backups");
    std::fs::create_dir(&place).unwrap();
    let world = World::start(&place);
    world.until(|status| status.last_snapshot_index > 0).await;

    let (first, at) = world.work("first").await;
    let lag = world.lag(&first, at).await;
    println!("the archive had everything {} ms after the last acknowledgement", lag.as_millis());
    assert!(lag < LAG_LIMIT, "{lag:?}");

    let leader = world.demo.leader().await.unwrap();
    kill_9(world.demo.pid_of(leader).unwrap());
    let (second, at) = world.work("second").await;
    let lag = world.lag(&second, at).await;
    println!("after the leader was killed: {} ms", lag.as_millis());
    assert!(lag < LAG_LIMIT, "{lag:?}");

    let away = parent.path().join("unmounted");
    std::fs::rename(&place, &away).unwrap();
    let (third, _) = world.work("third").await;
    world.until(|status| status.last_error.contains("does not exist") && status.behind_entries > 0).await;
    assert!(!place.exists(), "a directory that is gone is not made anew");
    std::fs::rename(&away, &place).unwrap();
    world.until(|status| status.last_error.is_empty() && status.behind_entries == 0).await;
    let (fourth, at) = world.work("fourth").await;
    world.lag(&fourth, at).await;
    let archived = world.archived().await;
    for names in [first, second, third, fourth] {
        assert!(archived.is_superset(&names), "{:?} are missing", names.difference(&archived));
    }
}
