//! `TestCluster`: nodes that can be stopped, killed, wiped and started again, each over its own directory and port.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use conclave_base::runtime::Runtime;
use conclave_cluster::{
    BootstrapPeer, Cluster, ClusterOptions, CommittedWrite, Plane, ProposeError, StartError,
    join::{JoinError, JoinOptions, Joined, join},
};
use conclave_crypto::{keys::ClusterKeys, secret::ClusterSecret};
use conclave_proto::command::v1::{CreateUser, command::Body};
use conclave_state::{
    ids::{RequestId, UserId},
    snapshot,
};

use super::gate::{Gate, Gated};

/// Longest wait for anything that has to happen.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// The data of a join request.
pub(super) struct Asked {
    pub data_dir: PathBuf,
    pub advertise: String,
    pub api_url: String,
}

pub(super) struct TestCluster {
    dir: tempfile::TempDir,
    peers: Vec<BootstrapPeer>,
    keys: Arc<ClusterKeys>,
    nodes: BTreeMap<u64, Cluster>,
    gates: BTreeMap<u64, Gate>,
    joined: BTreeMap<u64, Asked>,
}

pub(super) fn keys(seed: u8) -> Arc<ClusterKeys> {
    let text = format!("{}{seed:02x}", "0123456789abcdef".repeat(4).split_at(62).0);
    Arc::new(ClusterKeys::derive(&ClusterSecret::parse(&text).unwrap()))
}

impl TestCluster {
    /// Directories and ports for `count` nodes; none runs.
    pub(super) fn prepare(count: u64) -> Self {
        // Bound together, so that no two get the same one.
        let ports: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addr = |port: &TcpListener| port.local_addr().unwrap().to_string();
        let peers =
            (1..=count).zip(&ports).map(|(node, port)| BootstrapPeer { node, addr: addr(port) }).collect();
        let gates = (1..=count).map(|node| (node, Gate::default())).collect();
        Self {
            dir: tempfile::tempdir().unwrap(),
            peers,
            keys: keys(1),
            nodes: BTreeMap::new(),
            gates,
            joined: BTreeMap::new(),
        }
    }

    /// A cluster that runs, is founded, and has a leader.
    pub(super) async fn start(count: u64) -> Self {
        let mut cluster = Self::prepare(count);
        cluster.start_all().await;
        cluster
    }

    pub(super) async fn start_all(&mut self) {
        let down: Vec<u64> = self.ids().into_iter().filter(|id| !self.nodes.contains_key(id)).collect();
        let starting = down.iter().map(|id| self.start_one(*id, self.options(*id)));
        for (id, started) in down.iter().zip(futures_util::future::join_all(starting).await) {
            self.nodes.insert(*id, started.unwrap());
        }
        self.leader().await;
    }

    pub(super) async fn start_node(&mut self, id: u64) -> Result<(), StartError> {
        let started = self.start_one(id, self.options(id)).await?;
        self.nodes.insert(id, started);
        Ok(())
    }

    pub(super) fn start_one(
        &self,
        id: u64,
        options: ClusterOptions,
    ) -> impl Future<Output = Result<Cluster, StartError>> + Send + use<> {
        let gate = self.gates[&id].clone();
        Cluster::start_with_log(options, move |log| Gated::writer(log, gate))
    }

    pub(super) fn options(&self, id: u64) -> ClusterOptions {
        self.options_at(id, self.addr(id))
    }

    pub(super) fn options_at(&self, id: u64, bind: &str) -> ClusterOptions {
        ClusterOptions {
            node: id,
            data_dir: self.data_dir(id),
            plane: Plane::Tcp(TcpListener::bind(bind).unwrap()),
            advertise: self.addr(id).to_owned(),
            api_url: format!("http://api-{id}.test"),
            peers: self.peers.clone(),
            joined: false,
            checks: conclave_cluster::CheckMode::default(),
            public_url: "http://127.0.0.1:9000".into(),
            settings: Vec::new(),
            hints: Vec::new(),
            pace: conclave_cluster::ElectionPace::default(),
            keys: Arc::clone(&self.keys),
            runtime: Runtime::system(),
        }
    }

    pub(super) fn keys(&self) -> &Arc<ClusterKeys> {
        &self.keys
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.peers.iter().map(|peer| peer.node).collect()
    }

    pub(super) fn addr(&self, id: u64) -> &str {
        &self.peers.iter().find(|peer| peer.node == id).unwrap().addr
    }

    pub(super) fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("node-{id}"))
    }

    pub(super) fn node(&self, id: u64) -> &Cluster {
        &self.nodes[&id]
    }

    pub(super) fn gate(&self, id: u64) -> &Gate {
        &self.gates[&id]
    }

    /// Joins a new node through `at`, and starts it.
    pub(super) async fn join(&mut self, at: u64) -> u64 {
        let (asked, joined) = self.ask_to_join(at).await;
        let id = joined.unwrap().node;
        self.gates.insert(id, Gate::default());
        self.joined.insert(id, asked);
        let node = self.start_one(id, self.joined_options(id)).await.unwrap();
        self.nodes.insert(id, node);
        id
    }

    /// The options of a node that has joined.
    pub(super) fn joined_options(&self, id: u64) -> ClusterOptions {
        let asked = &self.joined[&id];
        ClusterOptions {
            node: id,
            data_dir: asked.data_dir.clone(),
            plane: Plane::Tcp(TcpListener::bind(&asked.advertise).unwrap()),
            advertise: asked.advertise.clone(),
            api_url: asked.api_url.clone(),
            peers: Vec::new(),
            ..self.options_at(self.ids()[0], "127.0.0.1:0")
        }
    }

    /// Sends only the join request.
    pub(super) async fn ask_to_join(&self, at: u64) -> (Asked, Result<Joined, JoinError>) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let asked = Asked {
            data_dir: self.dir.path().join(format!("joining-{port}")),
            advertise: format!("127.0.0.1:{port}"),
            api_url: format!("http://api-{port}.test"),
        };
        let outcome = self.ask_again(at, &asked).await;
        (asked, outcome)
    }

    pub(super) async fn ask_again(&self, at: u64, asked: &Asked) -> Result<Joined, JoinError> {
        join(JoinOptions {
            set_aside: false,
            address: self.addr(at).to_owned(),
            data_dir: asked.data_dir.clone(),
            advertise: asked.advertise.clone(),
            api_url: asked.api_url.clone(),
            keys: Arc::clone(&self.keys),
            runtime: Runtime::system(),
        })
        .await
    }

    /// The running nodes.
    pub(super) fn running(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// Waits until exactly these nodes are voters.
    pub(super) async fn voters(&self, wanted: &[u64]) {
        let began = Instant::now();
        loop {
            let leader = self.leader().await;
            let voters = self.node(leader).voters();
            if voters == wanted {
                return;
            }
            assert!(began.elapsed() < LIMIT, "{voters:?} vote, not {wanted:?}");
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn stop(&mut self, id: u64) {
        self.nodes.remove(&id).unwrap().shutdown().await;
    }

    pub(super) async fn stop_all(&mut self) {
        for id in self.ids() {
            if self.nodes.contains_key(&id) {
                self.stop(id).await;
            }
        }
    }

    pub(super) async fn kill(&mut self, id: u64) {
        self.nodes.remove(&id).unwrap().halt().await;
    }

    /// The running node that all running nodes agree leads.
    pub(super) async fn leader(&self) -> u64 {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < LIMIT, "no leader that all agree on");
            let running = |leader: Option<u64>| leader.is_some_and(|id| self.nodes.contains_key(&id));
            let mut opinions = Vec::new();
            for node in self.nodes.values() {
                opinions.push(node.leader_when(running).await.expect("a leader"));
            }
            if opinions.iter().all(|id| *id == opinions[0]) && self.node(opinions[0]).is_leader() {
                return opinions[0];
            }
        }
    }

    /// Waits until the node reports that it is ready.
    pub(super) async fn ready(&self, id: u64) {
        let began = Instant::now();
        while let Err(why) = self.node(id).readiness() {
            assert!(began.elapsed() < LIMIT, "node {id} is not ready: {why}");
            tokio::task::yield_now().await;
        }
    }

    /// The running nodes that do not lead.
    pub(super) async fn followers(&self) -> Vec<u64> {
        let leader = self.leader().await;
        self.nodes.keys().copied().filter(|id| *id != leader).collect()
    }

    /// The position of each running node, as it knows it.
    fn places(&self) -> Vec<String> {
        let place = |(id, node): (&u64, &Cluster)| {
            let (index, leader, ready) = (node.view().index(), node.leader_id(), node.readiness());
            format!("node {id} at {index} under {leader:?}, {ready:?}")
        };
        self.nodes.iter().map(place).collect()
    }

    /// Waits until all running nodes have applied the same index, and checks that their states *are* equal. Returns the
    /// number of users.
    pub(super) async fn agree(&self) -> usize {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < LIMIT, "the nodes do not reach the same index: {:?}", self.places());
            let Some(node) = self.nodes.values().next() else { return 0 };
            // Everything that was acknowledged before this, whether or not any node here has applied it yet.
            let Some(confirmed) = node.confirmed_view().await else { continue };
            let seen = self.nodes.values().map(|node| node.view().index());
            let index = seen.fold(confirmed.index(), u64::max);
            let mut states = Vec::new();
            for node in self.nodes.values() {
                if let Ok(state) = node.view_at(index).await {
                    states.push(state);
                }
            }
            if states.len() == self.nodes.len()
                && states.iter().all(|state| state.index() == states[0].index())
            {
                let digest = snapshot::digest(&states[0]);
                assert!(states.iter().all(|state| snapshot::digest(state) == digest), "digests differ");
                return states[0].user_count();
            }
        }
    }
}

/// The request that creates user `n`; the same `n` is the same request.
pub(super) fn request(n: u32) -> RequestId {
    RequestId::new(id(n))
}

pub(super) fn user_id(n: u32) -> UserId {
    UserId::new(id(n))
}

fn id(n: u32) -> [u8; 16] {
    u128::from(n).to_be_bytes()
}

pub(super) fn body(n: u32) -> Body {
    Body::CreateUser(CreateUser {
        user_id: id(n).to_vec(),
        username: format!("user-{n}"),
        ..CreateUser::default()
    })
}

/// Behaves like a client that gets no response: retries under the same request id.
pub(super) async fn created(node: &Cluster, n: u32) -> CommittedWrite {
    let began = Instant::now();
    loop {
        match create(node, n).await {
            Ok(committed) => return committed,
            Err(error) => {
                assert!(
                    matches!(error, ProposeError::Unknown) && began.elapsed() < LIMIT,
                    "write {n}: {error}"
                );
            }
        }
    }
}

pub(super) async fn create(node: &Cluster, n: u32) -> Result<CommittedWrite, ProposeError> {
    node.propose(request(n), body(n)).await
}
