//! A demo cluster of real processes, and a browser that follows no redirect by itself.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use conclave_base::runtime::SystemEntropy;
use conclave_node::demo::ports::Ports;
use reqwest::cookie::Jar;
use serde::Deserialize;

/// The longest wait before the test fails.
const LIMIT: Duration = Duration::from_mins(1);

#[derive(Deserialize)]
pub(super) struct Described {
    pub base_port: u16,
    pub front: String,
    pub issuer: String,
    pub nodes: Vec<Node>,
    pub admin: Admin,
    pub client: Client,
}

#[derive(Clone, Deserialize)]
pub(super) struct Node {
    pub id: u64,
    pub http: String,
    pub api: String,
    pub data_dir: PathBuf,
}

#[derive(Deserialize)]
pub(super) struct Admin {
    pub username: String,
    pub password: String,
    pub token: String,
}

#[derive(Deserialize)]
pub(super) struct Client {
    #[serde(rename = "client_id")]
    pub id: String,
    #[serde(rename = "client_secret")]
    pub secret: String,
    pub redirect_uri: String,
}

/// `conclave demo --json`, stopped when dropped.
pub(super) struct Demo {
    child: Child,
    pub cluster: Described,
    next: AtomicUsize,
    own_ports: Ports,
}

impl Demo {
    /// Starts a demo on free ports.
    pub(super) fn start(more: &[&str]) -> Self {
        Self::start_with(more, &[])
    }

    /// Like `start`, with these settings in the environment of every node.
    pub(super) fn start_with(more: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_conclave"))
            .args(["demo", "--json", "--base-port", "0"])
            .args(more)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the demo ended without its line of JSON");
        let own_ports = Ports::free(&SystemEntropy).unwrap();
        Self { child, cluster: serde_json::from_str(&line).unwrap(), next: AtomicUsize::new(0), own_ports }
    }

    /// A free port for a program that the test runs beside the demo. Offsets are below 99.
    pub(super) fn own_port(&self, offset: u16) -> u16 {
        self.own_ports.base() + offset
    }

    /// Kills every process of it, like a power cut.
    pub(super) fn kill(&mut self) {
        let pids: Vec<_> = self.cluster.nodes.iter().filter_map(|node| self.pid_of(node.id)).collect();
        // The nodes first: a node whose demo ends would stop in order.
        for pid in pids {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The output of the command line tool, with an administrator's token.
    pub(super) fn conclave(&self, args: &[&str]) -> serde_json::Value {
        let api: Vec<&str> = self.cluster.nodes.iter().map(|node| node.api.as_str()).collect();
        let output = Command::new(env!("CARGO_BIN_EXE_conclave"))
            .args(args)
            .args(["-o", "json"])
            .env("CONCLAVE_API", api.join(","))
            .env("CONCLAVE_TOKEN", &self.cluster.admin.token)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// That URL, at the next node instead of the front.
    pub(super) fn at_next_node(&self, url: &str) -> String {
        let path =
            url.strip_prefix(&self.cluster.front).unwrap_or_else(|| panic!("{url} is not of this cluster"));
        let nodes = &self.cluster.nodes;
        let node = &nodes[self.next.fetch_add(1, Ordering::Relaxed) % nodes.len()];
        format!("{}{path}", node.http)
    }

    /// The leader, as reported by the nodes that respond.
    pub(super) async fn leader(&self) -> Option<u64> {
        for node in &self.cluster.nodes {
            let url = format!("{}/healthz/ready", node.http);
            let Ok(reply) = browser().get(url).timeout(Duration::from_secs(1)).send().await else { continue };
            let Ok(text) = reply.text().await else { continue };
            let ready: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            if ready["ready"] == true {
                return ready["leader"].as_u64();
            }
        }
        None
    }

    /// The id of the process that runs this node now.
    pub(super) fn pid_of(&self, node: u64) -> Option<u32> {
        let config = format!("node-{node}.toml");
        let dir = self.cluster.nodes[0].data_dir.parent().unwrap().join(config);
        let output =
            Command::new("pgrep").args(["-f", &format!("serve .*{}", dir.display())]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().next().and_then(|pid| pid.parse().ok())
    }

    /// Waits until every node is ready.
    pub(super) async fn all_ready(&self) {
        let deadline = Instant::now() + LIMIT;
        for node in &self.cluster.nodes {
            let url = format!("{}/healthz/ready", node.http);
            loop {
                let reply = browser().get(&url).timeout(Duration::from_secs(1)).send().await;
                if reply.is_ok_and(|reply| reply.status().is_success()) {
                    break;
                }
                assert!(Instant::now() < deadline, "node {} is not ready", node.id);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Applied index and digest of every node, requested from one node, once all are at one index.
    pub(super) async fn digests(&self) -> Vec<(u64, String)> {
        use conclave_proto::admin::v1::{GetStatusRequest, cluster_service_client::ClusterServiceClient};
        let deadline = Instant::now() + LIMIT;
        loop {
            let api = self.cluster.nodes[0].api.clone();
            let channel = tonic::transport::Endpoint::from_shared(api).unwrap().connect().await.unwrap();
            let mut request = tonic::Request::new(GetStatusRequest {});
            let bearer = format!("Bearer {}", self.cluster.admin.token).parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
            let status = ClusterServiceClient::new(channel).get_status(request).await.unwrap().into_inner();
            let digests: Vec<_> = status.nodes.into_iter().map(|n| (n.applied_index, n.digest)).collect();
            let level = digests.len() == self.cluster.nodes.len()
                && digests.iter().all(|d| d.0 == digests[0].0 && d.0 > 0);
            if level {
                return digests;
            }
            assert!(Instant::now() < deadline, "the nodes do not come to the same index: {digests:?}");
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

pub(super) fn kill_9(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// Keeps cookies, follows no redirect.
pub(super) fn browser() -> reqwest::Client {
    browser_with(&Arc::default())
}

/// Like `browser`, with cookies that a test can read.
pub(super) fn browser_with(jar: &Arc<Jar>) -> reqwest::Client {
    let builder = reqwest::Client::builder().cookie_provider(Arc::clone(jar));
    let builder = builder.redirect(reqwest::redirect::Policy::none());
    builder.timeout(Duration::from_secs(15)).build().unwrap()
}

/// The value of a hidden field.
pub(crate) fn field(page: &str, name: &str) -> String {
    let marker = format!("name=\"{name}\" value=\"");
    let start = page.find(&marker).unwrap_or_else(|| panic!("no field {name} in: {page}")) + marker.len();
    page[start..].split('"').next().unwrap().to_owned()
}

pub(super) fn location(reply: &reqwest::Response) -> String {
    let location = reply.headers().get("location").unwrap_or_else(|| panic!("no Location: {reply:?}"));
    location.to_str().unwrap().to_owned()
}
