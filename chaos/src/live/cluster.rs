//! The processes: start, kill, stop, pause, wait until ready; and an operator's client.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use conclave_client::{Client, v1};

use super::ground::{Ground, NODES, nodes};

/// How often something is looked at again.
const LOOK: Duration = Duration::from_millis(10);
/// How long a node may take to be ready.
const READY: Duration = Duration::from_secs(30);
pub const CLIENT_ID: &str = "chaos";
pub const REDIRECT_URI: &str = "http://127.0.0.1:1/callback";

pub struct Cluster {
    binary: PathBuf,
    dir: tempfile::TempDir,
    ground: Ground,
    children: Mutex<Vec<Option<Child>>>,
    token: String,
    http: reqwest::Client,
}

impl Cluster {
    /// Three new nodes, ready, with an operator's token and an OIDC client.
    pub async fn start(binary: &Path, spaces: bool) -> anyhow::Result<Self> {
        let ground = Ground::prepare(spaces)?;
        let dir = tempfile::tempdir()?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(1)).build()?;
        let children = Mutex::new((0..NODES).map(|_| None).collect());
        let mut cluster =
            Self { binary: binary.to_owned(), dir, ground, children, token: String::new(), http };
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
        let order = v1::CreateClientRequest {
            client_id: CLIENT_ID.into(),
            name: "Chaos".into(),
            auth_method: "none".into(),
            redirect_uris: vec![REDIRECT_URI.into()],
            scopes: ["openid", "offline_access"].map(str::to_owned).to_vec(),
            signing_algorithm: "ES256".into(),
            consent: "implicit".into(),
            ..Default::default()
        };
        cluster.api(Duration::from_secs(10))?.clients().create(order).await?;
        Ok(cluster)
    }

    pub const fn ground(&self) -> &Ground {
        &self.ground
    }

    /// `http://host:port` of a node.
    pub fn url(&self, node: u64) -> String {
        format!("http://{}", self.ground.addresses(node).http)
    }

    /// A client of all nodes that gives up after this long.
    pub fn api(&self, deadline: Duration) -> anyhow::Result<Client> {
        self.api_of(nodes(), deadline)
    }

    pub fn api_of(&self, nodes: impl Iterator<Item = u64>, deadline: Duration) -> anyhow::Result<Client> {
        let endpoints = nodes.map(|node| format!("http://{}", self.ground.addresses(node).api));
        Ok(Client::builder().endpoints(endpoints).token(&self.token).deadline(deadline).build()?)
    }

    pub fn spawn(&self, node: u64) -> anyhow::Result<()> {
        let log =
            File::options().append(true).create(true).open(self.dir.path().join(format!("{node}.log")))?;
        let mut command = self.ground.command(node, &self.binary);
        command.args(["serve", "--config"]).arg(self.config(node));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("conclave cannot be started")?;
        if let Some(place) = self.locked().get_mut(place(node)) {
            *place = Some(child);
        }
        Ok(())
    }

    /// Sends a signal to a node's process.
    pub fn signal(&self, node: u64, signal: &str) -> anyhow::Result<()> {
        let pid = self.locked().get(place(node)).and_then(Option::as_ref).map(Child::id);
        let pid = pid.with_context(|| format!("node {node} does not run"))?;
        let status = Command::new("kill").args([signal, &pid.to_string()]).status()?;
        anyhow::ensure!(status.success(), "kill {signal} {pid} failed");
        Ok(())
    }

    /// Waits until the process has ended.
    pub async fn ended(&self, node: u64) -> anyhow::Result<()> {
        loop {
            let over = match self.locked().get_mut(place(node)).and_then(Option::as_mut) {
                Some(child) => child.try_wait()?.is_some(),
                None => true,
            };
            if over {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub async fn ready(&self, node: u64) -> anyhow::Result<()> {
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
        let ready = tokio::time::timeout(READY, waiting).await;
        ready.with_context(|| format!("node {node} is not ready; its log: {}", self.tail(node)))
    }

    /// Who leads, as the first ready node says.
    pub async fn leader(&self) -> Option<u64> {
        for node in nodes() {
            let url = format!("{}/healthz/ready", self.url(node));
            let Ok(reply) = self.http.get(url).send().await else { continue };
            let Ok(text) = reply.text().await else { continue };
            let ready: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            if ready.get("ready") == Some(&true.into()) {
                return ready.get("leader")?.as_u64();
            }
        }
        None
    }

    /// Returns once every node is ready and takes a write and a revocation.
    pub async fn works(&self) {
        for node in nodes() {
            loop {
                let client = self.api_of(node..=node, Duration::from_secs(5));
                let group = format!("works-{node}");
                let works = async {
                    self.ready(node).await?;
                    let client = client?;
                    let groups = client.groups();
                    let order = v1::CreateGroupRequest { name: group.clone(), description: String::new() };
                    match groups.create(order).await {
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
    pub async fn digests(&self) -> anyhow::Result<Vec<String>> {
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
        anyhow::bail!("the nodes do not come to one index")
    }

    fn settings(&self, node: u64) -> String {
        let own = self.ground.addresses(node);
        let peers: Vec<String> =
            nodes().map(|n| format!("\"{n}@{}\"", self.ground.addresses(n).cluster)).collect();
        let dir = self.dir.path().display();
        format!(
            "[node]\nid = {node}\ndata_dir = \"{dir}/node-{node}\"\n[cluster]\nlisten = \"{}\"\npeers = [{}]\n\
             secret_file = \"{dir}/cluster.secret\"\n[http]\nlisten = \"{}\"\npublic_url = \"http://127.0.0.1:9000\"\ndrain_delay = \"200ms\"\n\
             trusted_proxies = [\"127.0.0.1\", \"10.77.0.1\"]\n[api]\nlisten = \"{}\"\n[log]\nformat = \"json\"\n",
            own.cluster,
            peers.join(", "),
            own.http,
            own.api,
        )
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

    fn locked(&self) -> MutexGuard<'_, Vec<Option<Child>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.locked().iter_mut().flatten() {
            // Gone already, or going now.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A text in an answer.
fn text<'a>(answer: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    answer.get(name)?.as_str()
}

fn place(node: u64) -> usize {
    usize::try_from(node.saturating_sub(1)).unwrap_or(usize::MAX)
}
