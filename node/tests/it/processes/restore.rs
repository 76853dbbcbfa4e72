//! A disaster: every disk is lost, and a snapshot is left. Also a restore of that snapshot in a running cluster.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use conclave_client::{AdminClient, v1};
use conclave_cluster::offline_state::Survivor;
use conclave_crypto::{keys::ClusterKeys, secret::ClusterSecret};
use conclave_store::DataDir;
use serde_json::Value;

use super::{
    relying_party::{SignedIn, Way, refresh, sign_in},
    world::{Demo, browser},
};

const LIMIT: Duration = Duration::from_mins(1);

/// `conclave` with these arguments.
pub(super) fn conclave(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    command.args(args);
    command
}

/// Its result as JSON, or its standard error if it failed.
pub(super) fn json(args: &[&str]) -> Result<Value, String> {
    let output = conclave(args).args(["-o", "json"]).output().unwrap();
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).unwrap());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A separate node, killed when dropped.
pub(super) struct Serving(Child);

impl Serving {
    pub(super) fn start(config: &str, log: &Path) -> Self {
        Self::start_with(config, log, &[])
    }

    /// Like `start`, with this environment.
    pub(super) fn start_with(config: &str, log: &Path, environment: &[(&str, String)]) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let error = log.try_clone().unwrap();
        Self(
            conclave(&["serve", "--config", config])
                .envs(environment.iter().map(|(name, value)| (*name, value)))
                .stdout(log)
                .stderr(error)
                .stdin(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A demo whose data stays when it is killed, and the files around it.
pub(super) struct DemoDirectory {
    pub demo: Demo,
    dir: tempfile::TempDir,
}

impl DemoDirectory {
    pub(super) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Like `start`, with these settings in the environment of every node.
    pub(super) fn start_with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("demo");
        let demo = Demo::start_with(&["--data", data.to_str().unwrap()], settings);
        Self { demo, dir }
    }

    pub(super) fn config(&self, node: u64) -> String {
        self.dir.path().join(format!("demo/node-{node}.toml")).display().to_string()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The address of the first machine's cluster listener, from the demo's port scheme.
    pub(super) fn first_address(&self) -> String {
        let http = self.demo.cluster.nodes[0].http.rsplit(':').next().unwrap().parse::<u16>().unwrap();
        format!("127.0.0.1:{}", http + 20)
    }

    pub(super) fn api(&self) -> AdminClient {
        let endpoints = self.demo.cluster.nodes.iter().map(|node| node.api.as_str());
        AdminClient::builder()
            .endpoints(endpoints)
            .token(self.demo.cluster.admin.token.clone())
            .build()
            .unwrap()
    }

    pub(super) fn save(&self, name: &str) -> String {
        let file = self.file(name).display().to_string();
        let api = &self.demo.cluster.nodes[0].api;
        json(&[
            "snapshot",
            "save",
            "--to",
            &file,
            "--linearizable",
            "--config",
            &self.config(1),
            "--api",
            api,
        ])
        .unwrap();
        file
    }

    pub(super) async fn user(&self, name: &str) -> Option<v1::User> {
        self.api().users().get(v1::GetUserRequest { user: name.into() }).await.ok()
    }

    pub(super) async fn create(&self, name: &str) {
        let command = v1::CreateUserRequest { username: name.into(), ..Default::default() };
        self.api().users().create(command).await.unwrap();
    }

    pub(super) async fn ready(&self, nodes: &[u64]) {
        let deadline = Instant::now() + LIMIT;
        for node in self.demo.cluster.nodes.iter().filter(|node| nodes.contains(&node.id)) {
            loop {
                let reply = browser().get(format!("{}/healthz/ready", node.http)).send().await;
                if reply.is_ok_and(|reply| reply.status().is_success()) {
                    break;
                }
                assert!(Instant::now() < deadline, "node {} is not ready", node.id);
                tokio::task::yield_now().await;
            }
        }
    }

    /// True if the node at this index still accepts the browser's session.
    pub(super) async fn knows(&self, node: usize, person: &SignedIn) -> bool {
        let home = format!("{}/", self.demo.cluster.nodes[node].http);
        person.browser.get(home).send().await.unwrap().status() == 200
    }
}

fn saved_as_of_an_entry(house: &DemoDirectory) {
    let (config, api) = (house.config(2), &house.demo.cluster.nodes[1].api);
    let save = |name: &str, index: u64| {
        let (file, index) = (house.file(name).display().to_string(), index.to_string());
        json(&["snapshot", "save", "--to", &file, "--min-index", &index, "--config", &config, "--api", api])
    };
    let first = save("first.snapshot", 1).unwrap()["index"].as_u64().unwrap();
    assert!(save("first.snapshot", 1).unwrap_err().contains("exists"), "no file is written over");
    assert!(save("same.snapshot", first).unwrap()["index"].as_u64() >= Some(first));
    let refused = save("never.snapshot", first + 1_000_000).unwrap_err();
    assert!(refused.contains("nothing was saved"), "{refused}");
    assert!(!house.file("never.snapshot").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_disk_is_lost_and_a_snapshot_founds_the_cluster_anew() {
    let mut house = DemoDirectory::start();
    house.create("kept").await;
    let before = sign_in(&house.demo, Way::EachToTheNextNode).await.unwrap();
    assert!(house.knows(1, &before).await);
    saved_as_of_an_entry(&house);
    let file = house.save("cluster.snapshot");
    let inspected = json(&["snapshot", "inspect", &file, "--config", &house.config(1)]).unwrap();
    assert_eq!(inspected["opens_here"], true);
    let verified = json(&["snapshot", "verify", &file, "--config", &house.config(1)]).unwrap();
    assert_eq!(verified["users"], 2);
    house.create("made-since").await;

    // Every process dies. The old disks of two nodes still exist: their nodes must not come back with the old data.
    house.demo.kill();
    let refused = json(&["restore", &file, "--config", &house.config(1)]).unwrap_err();
    assert!(refused.contains("holds the data of node 1"), "{refused}");
    let tried = json(&["restore", &file, "--config", &house.config(1), "--set-aside", "--dry-run"]).unwrap();
    assert_eq!((tried["restored"].as_bool(), tried["node_id"].as_u64()), (Some(false), Some(4)));
    let done = json(&["restore", &file, "--config", &house.config(1), "--set-aside"]).unwrap();
    assert_eq!((done["node_id"].as_u64(), done["users"].as_u64()), (Some(4), Some(2)));
    assert!(Path::new(done["aside"].as_str().unwrap()).join("identity").exists(), "the old data is kept");

    let first = Serving::start(&house.config(1), &house.file("1.log"));
    house.ready(&[1]).await;
    // An old member reports why it cannot take part, and ends.
    let old = conclave(&["serve", "--config", &house.config(2)]).output().unwrap();
    let said = String::from_utf8_lossy(&old.stderr).into_owned();
    assert!(!old.status.success() && said.contains("foreign lineage"), "{said}");

    let address = format!("127.0.0.1:{}", house.demo.cluster.base_port + 21);
    for (node, number) in [(2, 5), (3, 6)] {
        let refused = json(&["cluster", "join", &address, "--config", &house.config(node)]).unwrap_err();
        assert!(refused.contains("--set-aside"), "{refused}");
        let nobody =
            json(&["cluster", "join", "127.0.0.1:9", "--config", &house.config(node), "--set-aside"])
                .unwrap_err();
        assert!(nobody.contains("does not answer"), "{nobody}");
        let still = json(&["cluster", "join", &address, "--config", &house.config(node)]).unwrap_err();
        assert!(still.contains("--set-aside"), "nothing was set aside in vain: {still}");
        let joined =
            json(&["cluster", "join", &address, "--config", &house.config(node), "--set-aside"]).unwrap();
        assert_eq!(joined["node_id"].as_u64(), Some(number), "numbers are never given twice");
    }
    let others = [2, 3].map(|node| Serving::start(&house.config(node), &house.file(&format!("{node}.log"))));
    house.ready(&[1, 2, 3]).await;

    assert!(house.user("kept").await.is_some(), "and the token from before is good");
    assert!(house.user("made-since").await.is_none());
    for node in 0..3 {
        assert!(
            !house.knows(node, &before).await,
            "a session from before the restore is accepted at node {node}"
        );
    }
    assert!(refresh(&house.demo, Way::EachToTheNextNode, &before.refresh_token).await.is_err());
    for _ in 0..3 {
        sign_in(&house.demo, Way::EachToTheNextNode).await.unwrap();
    }
    drop((first, others));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_disk_that_is_left_founds_the_cluster_anew() {
    let mut house = DemoDirectory::start();
    house.create("kept").await;
    house.demo.digests().await;
    let person = sign_in(&house.demo, Way::EachToTheNextNode).await.unwrap();
    house.demo.digests().await;
    house.demo.kill();

    let (left, config) = (house.demo.cluster.nodes[2].data_dir.display().to_string(), house.config(3));
    let base = ["recover", "from-survivor", &left, "--config", &config];
    let say = |more: &[&str]| json(&[&base[..], more].concat());
    assert!(say(&["--lost", "1"]).unwrap_err().contains("node 2 is a member"));
    assert!(say(&["--lost", "1,2,3"]).unwrap_err().contains("node 3 is given as lost"));
    assert!(say(&["--lost", "1,2,9"]).unwrap_err().contains("node 9 is not a member"));
    assert!(say(&["--lost", "1,2"]).unwrap_err().contains("confirm with the words: lost 1 2"));
    let kept = say(&["--lost", "1,2", "--keep-sessions", "--confirm", "lost 1 2"]).unwrap_err();
    assert!(kept.contains("1 of 3 nodes are read"), "{kept}");
    let tried = say(&["--lost", "1,2", "--dry-run"]).unwrap();
    assert_eq!((tried["restored"].as_bool(), tried["from_node"].as_u64()), (Some(false), Some(3)));

    let twice = ["recover", "from-survivor", &left, &left, "--config", &config, "--lost", "1,2"];
    let twice = json(&[&twice[..], &["--keep-sessions", "--confirm", "lost 1 2"]].concat()).unwrap_err();
    assert!(twice.contains("node 3 is given twice"), "one node passes for two: {twice}");

    // With two of three directories nothing can be missing, and users stay signed in.
    let second = house.demo.cluster.nodes[1].data_dir.display().to_string();
    let both = [
        "recover",
        "from-survivor",
        &left,
        &second,
        "--config",
        &config,
        "--lost",
        "1",
        "--confirm",
        "lost 1",
    ];
    let done = json(&[&both[..], &["--keep-sessions"]].concat()).unwrap();
    assert_eq!(done["sessions_ended"], 0);
    assert!(done["loss"].as_str().unwrap().contains("nothing that was acknowledged is lost"), "{done}");
    let _serving = Serving::start(&config, &house.file("3.log"));
    house.ready(&[3]).await;
    assert!(house.user("kept").await.is_some());
    assert!(house.knows(2, &person).await, "the session of before goes on in the new lineage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_cluster_is_restored_though_its_leader_is_killed() {
    let house = {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("demo");
        DemoDirectory { demo: Demo::start(&["--restart", "--data", data.to_str().unwrap()]), dir }
    };
    for n in 0..20 {
        house.create(&format!("old-{n}")).await;
    }
    let file = house.save("cluster.snapshot");
    // Half of the file, and a bad target: the error names the caller's file, and nothing is staged.
    let half = house.file("half.snapshot").display().to_string();
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let (config, api) = (house.config(1), house.demo.cluster.nodes[0].api.clone());
    let refused =
        json(&["snapshot", "restore", &half, "--yes", "--config", &config, "--api", &api]).unwrap_err();
    assert!(refused.contains("the file is damaged") && !refused.contains(".tmp"), "{refused}");
    for bucket in ["s3://bucket", "s3://bucket/", "s3://"] {
        let refused =
            json(&["snapshot", "save", "--to", bucket, "--config", &config, "--api", &api]).unwrap_err();
        assert!(refused.contains("s3://BUCKET/NAME"), "{refused}");
    }
    let mut restored = 0;
    for round in 0..6 {
        let person = sign_in(&house.demo, Way::EachToTheNextNode).await.unwrap();
        house.create(&format!("new-{round}")).await;
        let leader = house.demo.leader().await.unwrap();
        let through = house.demo.cluster.nodes.iter().find(|node| node.id != leader).unwrap();
        let (config, api) = (house.config(1), through.api.clone());
        let arguments = ["snapshot", "restore", &file, "--yes", "--config", &config, "--api", &api];
        let restoring = conclave(&arguments)
            .args(["-o", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // At a point in the middle: each round a little later.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(100 + 30 * round) {
            tokio::task::yield_now().await;
        }
        super::world::kill_9(house.demo.pid_of(leader).unwrap());
        let outcome = restoring.wait_with_output().unwrap();
        house.demo.all_ready().await;
        let digests = house.demo.digests().await;
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");

        println!("round {round}: {}", String::from_utf8_lossy(&outcome.stderr));
        let is_old = house.user(&format!("new-{round}")).await.is_none();
        assert!(house.user("old-19").await.is_some());
        if outcome.status.success() {
            assert!(is_old, "said to be restored, and it is not");
        }
        for node in 0..3 {
            assert_eq!(
                house.knows(node, &person).await,
                !is_old,
                "signed out with the restore, and not without it"
            );
        }
        restored += usize::from(is_old);
    }
    assert!(restored >= 3, "{restored} of 6 restores came through");
}

/// A number below `limit` from a fixed sequence, so that a run can be repeated.
fn next(seed: &mut u64, limit: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % limit
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_at_any_moment_leaves_the_old_data_or_the_new() {
    const ROUNDS: usize = 200;
    let mut house = DemoDirectory::start();
    house.create("kept").await;
    let file = house.save("cluster.snapshot");
    house.demo.kill();
    let (config, dir) = (house.config(1), house.demo.cluster.nodes[0].data_dir.clone());
    let secret = std::fs::read_to_string(house.file("demo/cluster.secret")).unwrap();
    let keys = ClusterKeys::derive(&ClusterSecret::parse(secret.trim()).unwrap());
    let read = || Survivor::read(&DataDir::open(&dir).unwrap(), &keys).unwrap();

    let whole = Instant::now();
    json(&["restore", &file, "--config", &config, "--set-aside"]).unwrap();
    let longest = u64::try_from(whole.elapsed().as_micros()).unwrap();
    let (mut seed, mut old, mut new) = (1, 0, 0);
    let mut before = read();
    for _ in 0..ROUNDS {
        let arguments = ["restore", &file, "--config", &config, "--set-aside"];
        let mut restoring = conclave(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (begun, delay) = (Instant::now(), Duration::from_micros(longest / 2 + next(&mut seed, longest)));
        while begun.elapsed() < delay {
            std::hint::spin_loop();
        }
        let _ = restoring.kill();
        restoring.wait().unwrap();
        // Log and snapshot are read completely, and both belong to the lineage that the identity names.
        let after = read();
        assert_eq!(after.known.state.users_after(None).count(), 2);
        let is_old = after.known.lineage == before.known.lineage;
        old += usize::from(is_old);
        new += usize::from(!is_old);
        before = after;
    }
    assert_eq!(old + new, ROUNDS);
    assert!(old > ROUNDS / 10, "{old} of {ROUNDS} were killed before they counted");
    println!("killed at random moments: {old} times the old data, {new} times the new");
    let kept = std::fs::read_dir(&dir).unwrap().filter_map(Result::ok).filter(|entry| {
        entry.file_name().to_string_lossy().starts_with("aside-") && entry.path().join("identity").exists()
    });
    assert!(kept.count() > new, "what a restore replaced is kept");
}
