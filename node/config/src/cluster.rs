//! `[node]`, `[cluster]` and `[api]`: this node, its peers, and their addresses.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};
use url::{Host, Url};

use super::parse::{self, ListenAddr, SecretText};

/// Maximum number of members in `cluster.peers`: beyond nine voters each write waits for more disks without a benefit.
pub const MAX_PEERS: usize = 9;

/// Maximum number of files in `cluster.accept_secret_files`. A rotation needs one other secret; the second place is for
/// a rotation that must be aborted in favour of a third secret. Each further file would be one more secret whose leak
/// compromises the cluster.
pub(crate) const MAX_ACCEPTED: usize = 2;

/// `[node]`: this node.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Number of this node, from 1. Never give a number to another machine or an emptied disk. Default 1.
    pub id: u64,
    /// Directory of the log and snapshots. Default `./conclave-data`.
    pub data_dir: PathBuf,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self { id: 1, data_dir: PathBuf::from("./conclave-data") }
    }
}

/// `[cluster]`: the connections between nodes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Address on which this node listens for the others. Default `127.0.0.1:9300`.
    pub listen: ListenAddr,
    /// All members of the first start, this node included: `["1@10.0.0.1:9300", "2@10.0.0.2:9300"]`. Default empty: a
    /// cluster of this node alone.
    #[serde(deserialize_with = "peers", serialize_with = "super::parse::write_texts")]
    pub peers: Vec<PeerConfig>,
    /// True if a running cluster gave this node its number (`conclave cluster join` writes it). The node then never
    /// founds a cluster, even with an empty disk. Default false.
    pub joined: bool,
    /// `host:port` at which the other nodes reach this one. Default: its entry in `peers`, else `listen`.
    #[serde(deserialize_with = "advertise")]
    pub advertise: Option<String>,
    /// File with the cluster secret. Default `cluster.secret` in `node.data_dir`; created there for a node without
    /// peers.
    pub secret_file: Option<PathBuf>,
    /// Files with secrets that are also accepted during a rotation of the cluster secret. Values made with them are
    /// valid, and so are nodes that use them; this node makes nothing with them. At most two: the incoming or outgoing
    /// secret, and one more for a rotation that has to be aborted in favour of another. Default empty.
    #[serde(deserialize_with = "files")]
    pub accept_secret_files: Vec<PathBuf>,
    /// Decision of checks: `lease` (default) under a serve lease, without a network hop; `quorum` contacts the leader
    /// and a quorum for each check and trusts no clock.
    pub checks: ChecksConfig,
    /// The cluster secret itself. Meant for `CONCLAVE_CLUSTER__SECRET`; a file is better.
    pub secret: Option<SecretText>,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            listen: ListenAddr(SocketAddr::from((Ipv4Addr::LOCALHOST, 9300))),
            peers: Vec::new(),
            joined: false,
            advertise: None,
            secret_file: None,
            accept_secret_files: Vec::new(),
            checks: ChecksConfig::default(),
            secret: None,
        }
    }
}

/// The way in which checks are decided (docs/design/serve-leases.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChecksConfig {
    #[default]
    Lease,
    Quorum,
}

/// A member named in `cluster.peers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    pub id: u64,
    /// `host:port` of its cluster listener.
    pub address: String,
}

/// Written as in `cluster.peers`: `2@10.0.0.2:9300`.
impl fmt::Display for PeerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.address)
    }
}

impl ClusterConfig {
    /// `host:port` at which the others reach node `id`, which is this one.
    pub fn address_of(&self, id: u64) -> String {
        let own = || self.peers.iter().find(|peer| peer.id == id).map(|peer| peer.address.clone());
        self.advertise.clone().or_else(own).unwrap_or_else(|| self.listen.0.to_string())
    }

    pub(super) fn check(&self, node: &NodeConfig, problems: &mut Vec<String>) {
        if node.id == 0 {
            problems.push("node.id: 0 is not a node number; count from 1".into());
        }
        if self.secret.is_some() && self.secret_file.is_some() {
            problems.push("cluster.secret: set either this or cluster.secret_file, not both".into());
        }
        if self.accept_secret_files.len() > MAX_ACCEPTED {
            problems.push(format!(
                "cluster.accept_secret_files: {} files are too many; at most {MAX_ACCEPTED}",
                self.accept_secret_files.len()
            ));
        }
        if self.peers.is_empty() {
            return;
        }
        if self.peers.len() > MAX_PEERS {
            problems.push(format!(
                "cluster.peers: {} members are too many; at most {MAX_PEERS}",
                self.peers.len()
            ));
        }
        let mut seen = (BTreeSet::new(), BTreeSet::new());
        for (position, peer) in self.peers.iter().enumerate() {
            let PeerConfig { id, address } = peer;
            if !seen.0.insert(*id) {
                problems.push(format!("cluster.peers[{position}]: node {id} is named twice"));
            }
            if !seen.1.insert(address) {
                problems.push(format!("cluster.peers[{position}]: address {address} is named twice"));
            }
        }
        if !seen.0.contains(&node.id) {
            problems.push(format!(
                "cluster.peers: this node (node.id = {id}) is missing; add \"{id}@host:port\"",
                id = node.id
            ));
        }
    }
}

fn files<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    parse::list(deserializer, |text| match text {
        "" => Err("a file name is empty".into()),
        name => Ok(PathBuf::from(name)),
    })
}

fn peers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PeerConfig>, D::Error> {
    parse::list(deserializer, peer)
}

fn peer(text: &str) -> Result<PeerConfig, String> {
    let hint = "write id@host:port";
    let (id, address) = text.split_once('@').ok_or_else(|| format!("{text:?} has no \"@\"; {hint}"))?;
    let id = id.parse().map_err(|_| format!("{text:?} does not begin with a node number; {hint}"))?;
    if id == 0 {
        return Err(format!("{text:?}: 0 is not a node number; count from 1"));
    }
    if address.is_empty() {
        return Err(format!("{text:?} has no address; {hint}"));
    }
    let address = host_port(address).ok_or_else(|| format!("{text:?} has no port or a wrong one; {hint}"))?;
    Ok(PeerConfig { id, address })
}

fn advertise<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let address =
        host_port(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not host:port")))?;
    Ok(Some(address))
}

/// Accepts `host:port` with a plausible host and a port other than 0.
fn host_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    (is_host && port.parse::<u16>().is_ok_and(|port| port != 0)).then(|| text.to_owned())
}

/// `[api]`: the admin gRPC API.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Address on which the admin API listens. Default `127.0.0.1:9200`.
    pub listen: ListenAddr,
    /// URL at which clients reach this node's API, for leader hints. Default `http://` + `listen`.
    pub advertise_url: Option<Url>,
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: ListenAddr(SocketAddr::from((Ipv4Addr::LOCALHOST, 9200))), advertise_url: None }
    }
}

impl Api {
    /// The URL for leader hints, without a trailing slash.
    pub fn url(&self) -> String {
        let default = || format!("http://{}", self.listen.0);
        self.advertise_url.as_ref().map_or_else(default, |url| url.as_str().trim_end_matches('/').to_owned())
    }

    /// The port at which other machines reach this API by plain http. `None` if it listens only on loopback, or is
    /// advertised by https, whose certificates are for names that peers do not have.
    pub(super) fn port_for_others(&self) -> Option<u16> {
        match &self.advertise_url {
            None => Some(self.listen.0.port()).filter(|_| !self.listen.0.ip().is_loopback()),
            Some(url) if url.scheme() == "http" => {
                let is_loopback = match url.host()? {
                    Host::Domain(name) => name == "localhost",
                    Host::Ipv4(ip) => ip.is_loopback(),
                    Host::Ipv6(ip) => ip.is_loopback(),
                };
                url.port_or_known_default().filter(|_| !is_loopback)
            }
            Some(_) => None,
        }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.advertise_url.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https")) {
            problems.push("api.advertise_url: write http://host:port or https://host:port".into());
        }
    }
}
