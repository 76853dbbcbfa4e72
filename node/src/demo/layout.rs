//! The layout of a demo: ports counted from one base, a directory and a configuration file for each node.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tempfile::TempDir;

use conclave_base::runtime::Entropy;
use conclave_crypto::secret::ClusterSecret;

use super::{
    DemoOptions,
    ports::{IN_A_ROW, Ports},
};

/// Ports from the base: http 1.., admin API 11.., cluster plane 21.., Envoy over gRPC 31.., application 80, front 90.
const API_OFFSET: u16 = 10;
const CLUSTER_OFFSET: u16 = 20;
const ENVOY_OFFSET: u16 = 30;
const APP_OFFSET: u16 = 80;
const FRONT_OFFSET: u16 = 90;

/// The host name of the demo's application. Browsers resolve names below `localhost` to this machine by themselves.
pub(super) const APP_HOST: &str = "app.localhost";

pub(super) struct Layout {
    pub nodes: u64,
    ports: Ports,
    dir: PathBuf,
    pub secret: ClusterSecret,
    /// Held as long as the demo runs: another demo in this directory would change the configuration of running nodes.
    _lock: fs::File,
    /// Removed when the demo ends.
    _temporary: Option<TempDir>,
}

impl Layout {
    /// Creates the directory, the secret and the configuration files.
    ///
    /// # Errors
    /// An error if the directory cannot be written.
    pub(super) fn prepare(options: &DemoOptions, entropy: &dyn Entropy) -> anyhow::Result<Self> {
        let (dir, temporary) = match &options.data {
            Some(dir) => (dir.clone(), None),
            None => {
                let temporary = tempfile::Builder::new().prefix("conclave-demo-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let lock = fs::File::create(dir.join("demo.lock"))?;
        lock.try_lock().with_context(|| format!("{} is in use by another demo", dir.display()))?;
        let ports = ports(options.base_port, &dir.join("base-port"), entropy)?;
        let secret = secret(&dir.join("cluster.secret"), entropy)?;
        let layout = Self { nodes: options.nodes, ports, dir, secret, _lock: lock, _temporary: temporary };
        for node in layout.ids() {
            fs::write(layout.config_file(node), layout.config(node))?;
        }
        Ok(layout)
    }

    pub(super) fn ids(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.nodes
    }

    /// The port that the others are counted from.
    pub(super) const fn base_port(&self) -> u16 {
        self.ports.base()
    }

    fn port(&self, offset: u16, node: u64) -> u16 {
        // At most nine nodes, and a hundred ports of room: checked at the start.
        self.base_port() + offset + u16::try_from(node).unwrap_or_default()
    }

    pub(super) fn http_addr(&self, node: u64) -> SocketAddr {
        loopback(self.port(0, node))
    }

    pub(super) fn api_addr(&self, node: u64) -> SocketAddr {
        loopback(self.port(API_OFFSET, node))
    }

    pub(super) fn cluster_addr(&self, node: u64) -> SocketAddr {
        loopback(self.port(CLUSTER_OFFSET, node))
    }

    fn envoy_addr(&self, node: u64) -> SocketAddr {
        loopback(self.port(ENVOY_OFFSET, node))
    }

    pub(super) fn front_addr(&self) -> SocketAddr {
        loopback(self.base_port() + FRONT_OFFSET)
    }

    pub(super) fn app_addr(&self) -> SocketAddr {
        loopback(self.base_port() + APP_OFFSET)
    }

    /// The issuer: the URL that a user opens.
    pub(super) fn front_url(&self) -> String {
        format!("http://{}", self.front_addr())
    }

    pub(super) fn app_url(&self) -> String {
        format!("http://{APP_HOST}:{}/", self.front_addr().port())
    }

    pub(super) fn data_dir(&self, node: u64) -> PathBuf {
        self.dir.join(format!("node-{node}"))
    }

    pub(super) fn config_file(&self, node: u64) -> PathBuf {
        self.dir.join(format!("node-{node}.toml"))
    }

    pub(super) fn log_file(&self, node: u64) -> PathBuf {
        self.dir.join(format!("node-{node}.log"))
    }

    /// The configuration that the node is started with. It also serves as an example of how three nodes are set up.
    fn config(&self, node: u64) -> String {
        let peers: Vec<String> = self.ids().map(|id| format!("\"{id}@{}\"", self.cluster_addr(id))).collect();
        format!(
            "# Written by `conclave demo`.\n\
             [node]\nid = {node}\ndata_dir = \"{data}\"\n\n\
             [cluster]\nlisten = \"{cluster}\"\npeers = [{peers}]\nsecret_file = \"{secret}\"\n\n\
             [http]\nlisten = \"{http}\"\npublic_url = \"{front}\"\n\
             # The front goes on to the next node by itself.\ndrain_delay = \"0s\"\n\
             # The front runs on this machine and says who the visitor is.\ntrusted_proxies = [\"127.0.0.1\"]\n\n\
             [envoy]\nlisten = \"{envoy}\"\n\n\
             [api]\nlisten = \"{api}\"\n\n\
             [log]\nformat = \"json\"\n",
            data = self.data_dir(node).display(),
            cluster = self.cluster_addr(node),
            peers = peers.join(", "),
            secret = self.dir.join("cluster.secret").display(),
            http = self.http_addr(node),
            front = self.front_url(),
            api = self.api_addr(node),
            envoy = self.envoy_addr(node),
        )
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The ports from this base on. For base 0: those of an earlier demo in this directory, whose nodes know each other by
/// them, or a hundred free ones.
fn ports(base: u16, remembered: &Path, entropy: &dyn Entropy) -> anyhow::Result<Ports> {
    let ports = match fs::read_to_string(remembered) {
        _ if base != 0 => Ports::from(base)?,
        Ok(text) => {
            let base: u16 = text.trim().parse().with_context(|| format!("{}", remembered.display()))?;
            Ports::reserve(base).with_context(|| {
                format!("the ports {base} to {} of the earlier demo are in use", base + IN_A_ROW - 1)
            })?
        }
        Err(_) => Ports::free(entropy)?,
    };
    fs::write(remembered, format!("{}\n", ports.base()))?;
    Ok(ports)
}

/// The secret of an earlier demo in this directory, or a new one, readable only by its owner.
fn secret(path: &Path, entropy: &dyn Entropy) -> anyhow::Result<ClusterSecret> {
    if let Ok(text) = fs::read_to_string(path) {
        return Ok(ClusterSecret::parse(&text)?);
    }
    let secret = ClusterSecret::generate(entropy);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", secret.to_text().as_str())?;
    Ok(secret)
}
