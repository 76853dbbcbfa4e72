//! The processes: start, kill, stop, pause, wait until ready; the node at each place; and an operator's client.
//!
//! Nodes are named by their place. A node id is different from a place: if a node is lost, its place is taken by a node
//! with a new id.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use conclave_client::{AdminClient, v1};

use super::{
    disk::SmallDisk,
    environment::{EnvironmentKind, LiveEnvironment, PLACES, nodes},
};

/// The polling interval.
const LOOK: Duration = Duration::from_millis(10);
/// Time limit for a node to become ready.
const READY: Duration = Duration::from_secs(30);
pub(super) const CLIENT_ID: &str = "chaos";
pub(super) const REDIRECT_URI: &str = "http://127.0.0.1:1/callback";
/// The host of the application that every user may open.
pub(super) const APP_HOST: &str = "app.chaos.test";

pub(super) struct LiveCluster {
    binary: PathBuf,
    dir: tempfile::TempDir,
    environment: LiveEnvironment,
    seats: Mutex<BTreeMap<u64, Seat>>,
    disks: BTreeMap<u64, SmallDisk>,
    token: String,
    http: reqwest::Client,
}

/// The node at a place.
struct Seat {
    /// Its node id.
    id: u64,
    child: Option<Child>,
}

impl LiveCluster {
    /// Starts three new nodes and waits until they are ready, with an operator's token, an OIDC client and an
    /// application behind forward-auth.
    pub(super) async fn start(
        binary: &Path,
        kind: EnvironmentKind,
        small_disks: u64,
    ) -> anyhow::Result<Self> {
        let environment = LiveEnvironment::prepare(kind)?;
        let dir = tempfile::tempdir()?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(1)).build()?;
        let seats = Mutex::new(nodes().map(|id| (id, Seat { id, child: None })).collect());
        let made = (1..=small_disks).map(|place| Ok((place, SmallDisk::make(dir.path(), place)?)));
        let disks = made.collect::<anyhow::Result<_>>()?;
        let mut cluster =
            Self { binary: binary.to_owned(), dir, environment, seats, disks, token: String::new(), http };
        let secret = cluster.dir.path().join("cluster.secret").display().to_string();
        cluster.tool(&["secret", "new", "--out", &secret])?;
        for node in nodes() {
            std::fs::write(cluster.config(node), cluster.settings(node))?;
            cluster.spawn(node)?;
        }
        for node in nodes() {
            cluster.ready(node).await?;
        }
        let config = cluster.config(1).display().to_string();
        let made = cluster.tool(&[
            "token", "new", "--name", "chaos", "--role", "admin", "-o", "json", "--config", &config,
        ])?;
        let made: serde_json::Value = serde_json::from_str(&made)?;
        cluster.token = text(&made, "token").or(text(&made, "secret")).context("no token")?.to_owned();
        let request = v1::CreateClientRequest {
            client_id: CLIENT_ID.into(),
            name: "Chaos".into(),
            auth_method: "none".into(),
            redirect_uris: vec![REDIRECT_URI.into()],
            scopes: ["openid", "offline_access"].map(str::to_owned).to_vec(),
            signing_algorithm: "ES256".into(),
            consent: "implicit".into(),
            ..Default::default()
        };
        let api = cluster.api(Duration::from_secs(10))?;
        api.clients().create(request).await?;
        let request = v1::CreateApplicationRequest {
            slug: "app".into(),
            name: "Chaos".into(),
            hosts: vec![APP_HOST.into()],
            everyone: true,
            ..Default::default()
        };
        api.applications().create(request).await?;
        Ok(cluster)
    }

    pub(super) const fn environment(&self) -> &LiveEnvironment {
        &self.environment
    }

    /// `http://host:port` of a node.
    pub(super) fn url(&self, node: u64) -> String {
        format!("http://{}", self.environment.addresses(node).http)
    }

    /// A client of all nodes that gives up after this long.
    pub(super) fn api(&self, deadline: Duration) -> anyhow::Result<AdminClient> {
        self.api_of(self.places().into_iter(), deadline)
    }

    pub(super) fn api_of(
        &self,
        nodes: impl Iterator<Item = u64>,
        deadline: Duration,
    ) -> anyhow::Result<AdminClient> {
        let endpoints = nodes.map(|node| format!("http://{}", self.environment.addresses(node).api));
        Ok(AdminClient::builder().endpoints(endpoints).token(&self.token).deadline(deadline).build()?)
    }

    pub(super) fn spawn(&self, node: u64) -> anyhow::Result<()> {
        let log =
            File::options().append(true).create(true).open(self.dir.path().join(format!("{node}.log")))?;
        let mut command = self.environment.command(node, &self.binary);
        command.args(["serve", "--config"]).arg(self.config(node));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("conclave cannot be started")?;
        if let Some(seat) = self.locked().get_mut(&node) {
            seat.child = Some(child);
        }
        Ok(())
    }

    /// Sends a signal to a node's process.
    pub(super) fn signal(&self, node: u64, signal: &str) -> anyhow::Result<()> {
        let pid = self.locked().get(&node).and_then(|seat| seat.child.as_ref()).map(Child::id);
        let pid = pid.with_context(|| format!("node {node} does not run"))?;
        let status = Command::new("kill").args([signal, &pid.to_string()]).status()?;
        anyhow::ensure!(status.success(), "kill {signal} {pid} failed");
        Ok(())
    }

    /// Waits until the process has ended.
    pub(super) async fn ended(&self, node: u64) -> anyhow::Result<()> {
        loop {
            if self.has_ended(node)? {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) fn has_ended(&self, node: u64) -> anyhow::Result<bool> {
        Ok(match self.locked().get_mut(&node).and_then(|seat| seat.child.as_mut()) {
            Some(child) => child.try_wait()?.is_some(),
            None => true,
        })
    }

    /// Places that have a node.
    pub(super) fn places(&self) -> Vec<u64> {
        self.locked().keys().copied().collect()
    }

    /// Places without a node.
    pub(super) fn free_places(&self) -> Vec<u64> {
        let taken = self.places();
        (1..=PLACES).filter(|place| !taken.contains(place)).collect()
    }

    /// The id of the node at a place.
    pub(super) fn id(&self, place: u64) -> u64 {
        self.locked().get(&place).map_or(0, |seat| seat.id)
    }

    pub(super) fn disk(&self, place: u64) -> Option<&SmallDisk> {
        self.disks.get(&place)
    }

    /// Kills the node at a place and deletes its disk. The cluster still has it as a member.
    pub(super) async fn lose(&self, place: u64) -> anyhow::Result<u64> {
        self.signal(place, "-KILL")?;
        self.ended(place).await?;
        let id = self.id(place);
        self.locked().remove(&place);
        let dir = self.data_dir(place);
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
        std::fs::remove_file(self.config(place))?;
        Ok(id)
    }

    /// Adds a new node at a free place: it requests an id from a member, and is started and ready.
    pub(super) async fn join(&self, place: u64) -> anyhow::Result<u64> {
        let member = self.places().into_iter().next().context("no running node")?;
        let (own, config) = (self.environment.addresses(place), self.config(place));
        let mut command = tokio::process::Command::from(self.environment.command(place, &self.binary));
        command.args(["cluster", "join", &self.environment.addresses(member).cluster, "-o", "json"]);
        command.args(["--cluster", &own.cluster, "--http", &own.http, "--admin-api", &own.api]);
        command.arg("--secret-file").arg(self.dir.path().join("cluster.secret"));
        command.arg("--data-dir").arg(self.data_dir(place)).arg("--out").arg(&config);
        let output = command.stdin(Stdio::null()).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "conclave cluster join: {said}");
        let joined: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let id = joined.get("node_id").and_then(serde_json::Value::as_u64).context("no node id")?;
        // Additional settings of an operator.
        let more = std::fs::read_to_string(&config)?.replace(
            "[http]\n",
            "[http]\ndrain_delay = \"200ms\"\ntrusted_proxies = [\"127.0.0.1\", \"10.77.0.1\"]\n",
        );
        let told = format!("[cluster]\nlisten = \"{}\"\n", own.cluster);
        let meant = format!("[cluster]\nlisten = \"{}\"\nadvertise = \"{}\"\n", own.listen, own.cluster);
        let more = more.replace(&told, &meant);
        std::fs::write(&config, more)?;
        self.locked().insert(place, Seat { id, child: None });
        self.spawn(place)?;
        self.ready(place).await?;
        Ok(id)
    }

    /// The cluster's status of its members.
    pub(super) async fn members(&self) -> anyhow::Result<Vec<v1::NodeStatus>> {
        Ok(self.api(Duration::from_secs(5))?.cluster().status(v1::GetStatusRequest {}).await?.nodes)
    }

    pub(super) async fn ready(&self, node: u64) -> anyhow::Result<()> {
        let ready = self.ready_within(node, READY).await;
        anyhow::ensure!(ready, "node {node} is not ready; its log: {}", self.tail(node));
        Ok(())
    }

    pub(super) async fn ready_within(&self, node: u64, limit: Duration) -> bool {
        let url = format!("{}/healthz/ready", self.url(node));
        let waiting = async {
            loop {
                let reply = self.http.get(&url).send().await;
                if reply.is_ok_and(|reply| reply.status().is_success()) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(limit, waiting).await.is_ok()
    }

    /// The leader, as reported by the first ready node.
    pub(super) async fn leader(&self) -> Option<u64> {
        for node in self.places() {
            let url = format!("{}/healthz/ready", self.url(node));
            let Ok(reply) = self.http.get(url).send().await else { continue };
            let Ok(text) = reply.text().await else { continue };
            let ready: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            if ready.get("ready") == Some(&true.into()) {
                let leader = ready.get("leader")?.as_u64()?;
                return self.places().into_iter().find(|place| self.id(*place) == leader);
            }
        }
        None
    }

    /// Returns once every node is ready and accepts a write and a revocation.
    pub(super) async fn works(&self) {
        for node in self.places() {
            loop {
                let client = self.api_of(node..=node, Duration::from_secs(5));
                let group = format!("works-{node}");
                let works = async {
                    self.ready(node).await?;
                    let client = client?;
                    let groups = client.groups();
                    let request = v1::CreateGroupRequest { name: group.clone(), description: String::new() };
                    match groups.create(request).await {
                        Ok(_) | Err(conclave_client::Error::Refused(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                    groups.delete(v1::DeleteGroupRequest { group: group.clone() }).await?;
                    anyhow::Ok(())
                };
                match works.await {
                    Ok(()) => break,
                    Err(_) => tokio::time::sleep(LOOK).await,
                }
            }
        }
    }

    /// The digest of every node, all at one index.
    pub(super) async fn digests(&self) -> anyhow::Result<Vec<String>> {
        let api = self.api(Duration::from_secs(10))?;
        for _ in 0..200 {
            let nodes = api.cluster().status(v1::GetStatusRequest {}).await?.nodes;
            let level = nodes
                .windows(2)
                .all(|pair| pair.first().map(|n| n.applied_index) == pair.last().map(|n| n.applied_index));
            if level && nodes.iter().all(|node| node.reachable) {
                return Ok(nodes.into_iter().map(|node| node.digest).collect());
            }
            tokio::time::sleep(LOOK).await;
        }
        anyhow::bail!("the nodes do not reach the same index")
    }

    fn settings(&self, node: u64) -> String {
        let own = self.environment.addresses(node);
        let peers: Vec<String> =
            nodes().map(|n| format!("\"{n}@{}\"", self.environment.addresses(n).cluster)).collect();
        let dir = self.dir.path().display();
        format!(
            "[node]\nid = {node}\ndata_dir = \"{data}\"\n[cluster]\nlisten = \"{}\"\npeers = [{}]\n\
             secret_file = \"{dir}/cluster.secret\"\n[http]\nlisten = \"{}\"\npublic_url = \"http://127.0.0.1:9000\"\ndrain_delay = \"200ms\"\n\
             trusted_proxies = [\"127.0.0.1\", \"10.77.0.1\"]\n[api]\nlisten = \"{}\"\n[log]\nformat = \"json\"\n",
            own.listen,
            peers.join(", "),
            own.http,
            own.api,
            data = self.data_dir(node).display(),
        )
    }

    fn data_dir(&self, place: u64) -> PathBuf {
        let own = self.dir.path().join(format!("node-{place}"));
        self.disks.get(&place).map_or(own, |disk| disk.path().join("data"))
    }

    fn config(&self, node: u64) -> PathBuf {
        self.dir.path().join(format!("node-{node}.toml"))
    }

    fn tool(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.binary).args(words).stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "conclave {}: {text}", words.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn tail(&self, node: u64) -> String {
        let log = std::fs::read_to_string(self.dir.path().join(format!("{node}.log"))).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.reverse();
        lines.join("\n")
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LiveCluster {
    fn drop(&mut self) {
        for child in self.locked().values_mut().filter_map(|seat| seat.child.as_mut()) {
            // The process may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A text field of a response.
fn text<'a>(answer: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    answer.get(name)?.as_str()
}
