//! In-process nodes for tests: real clusters on loopback with ephemeral ports and temporary data directories, cheap
//! password hashing, and a clock that only tests move.
//!
//! ```ignore
//! let node = TestNode::start().await;
//! let ada = node.create_user("ada", "correct horse", &["staff"]).await;
//! node.clock().advance(Duration::from_secs(60));
//! let page = some_router(node.auth().clone()).oneshot(request).await;
//! ```

#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot set itself up has failed"
)]

use std::{net::TcpListener, num::NonZeroUsize, sync::Arc};

use conclave_proto::command::v1::{AddGroupMember, CreateApiToken, CreateGroup, CreateUser, command::Body};
use conclave_state::{
    ReplyBody,
    ids::{GroupId, RequestId, TokenId, UserId},
};
use futures_util::FutureExt as _;

pub use conclave_state::token::ApiRole;

use conclave_admin as admin;
use conclave_auth::{Auth, Settings, operator};
use conclave_base::runtime::{
    Runtime,
    testing::{FixedClock, SeededEntropy},
};
use conclave_cluster::{BootstrapPeer, Cluster, ClusterOptions, CommittedWrite, ProposeError};
use conclave_config::{Config, Environment};
use conclave_crypto::{
    handle::{HandleKind, HandleSecret},
    keys::ClusterKeys,
    mac,
    password::{Cost, PasswordPool, PlaintextPassword},
    secret::ClusterSecret,
};

/// The time at which tests begin: a Friday in January 2027.
pub const START_MS: u64 = 1_800_000_000_000;

/// Instant hashing: the tests do not depend on its strength.
pub const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

/// One node and its admin API. Dropping it stops Raft and removes its data.
pub struct TestNode {
    auth: Auth,
    keys: Arc<ClusterKeys>,
    runtime: Runtime,
    clock: Arc<FixedClock>,
    api_url: String,
    api: tokio::task::JoinHandle<()>,
    _data: tempfile::TempDir,
}

impl TestNode {
    /// Starts a cluster of one voter, which leads.
    pub async fn start() -> Self {
        let mut nodes = Self::start_cluster(1).await;
        nodes.pop().expect("one node")
    }

    /// Like [`Self::start`], with changed settings.
    pub async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let (clock, plane) =
            (FixedClock::at(START_MS), TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let runtime = Runtime { clock: clock.clone(), entropy: SeededEntropy::new(1) };
        let node = Self::start_one(1, plane, Vec::new(), runtime, clock, settings).await;
        wait_until(|| node.cluster().readiness().is_ok()).await;
        node
    }

    /// Starts a cluster of one voter that uses the machine's clock, for tests that compare times with another process
    /// or an outside library. [`clock`](Self::clock) moves nothing here.
    pub async fn start_on_the_machines_clock() -> Self {
        let runtime = Runtime { entropy: SeededEntropy::new(1), ..Runtime::system() };
        let plane = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let node = Self::start_one(1, plane, Vec::new(), runtime, FixedClock::at(START_MS), settings()).await;
        wait_until(|| node.cluster().readiness().is_ok()).await;
        node
    }

    /// Starts a cluster of `count` voters, one of which leads. They share a clock.
    pub async fn start_cluster(count: u64) -> Vec<Self> {
        Self::start_cluster_with(count, |_| {}).await
    }

    /// Like [`Self::start_cluster`], with changed settings on each node.
    pub async fn start_cluster_with(count: u64, change: impl Fn(&mut Settings)) -> Vec<Self> {
        Self::start_cluster_at(START_MS, count, change).await
    }

    /// Like [`Self::start_cluster_with`], at another time: for peers that use the machine's clock.
    pub async fn start_cluster_at(start_ms: u64, count: u64, change: impl Fn(&mut Settings)) -> Vec<Self> {
        let clock = FixedClock::at(start_ms);
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let planes: Vec<(u64, TcpListener)> = (1..=count).map(|node| (node, listen())).collect();
        let addr = |listener: &TcpListener| listener.local_addr().expect("a bound listener").to_string();
        let peers: Vec<BootstrapPeer> =
            planes.iter().map(|(node, plane)| BootstrapPeer { node: *node, addr: addr(plane) }).collect();
        let starting = planes.into_iter().map(|(node, plane)| {
            let runtime = Runtime { clock: clock.clone(), entropy: SeededEntropy::new(node) };
            let mut settings = settings();
            change(&mut settings);
            Self::start_one(node, plane, peers.clone(), runtime, clock.clone(), settings)
        });
        let nodes = futures_util::future::join_all(starting).await;
        for node in &nodes {
            wait_until(|| node.cluster().readiness().is_ok()).await;
        }
        nodes
    }

    /// The secret of every test cluster.
    pub fn secret() -> ClusterSecret {
        ClusterSecret::generate(&*SeededEntropy::new(0))
    }

    async fn start_one(
        node: u64,
        plane: TcpListener,
        peers: Vec<BootstrapPeer>,
        runtime: Runtime,
        clock: Arc<FixedClock>,
        settings: Settings,
    ) -> Self {
        let keys = Arc::new(ClusterKeys::derive(&Self::secret()));
        let data = tempfile::tempdir().expect("a temporary directory");
        let api = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let api_url = format!("http://{}", api.local_addr().expect("a bound listener"));
        let options = ClusterOptions {
            node,
            data_dir: data.path().join("node"),
            advertise: plane.local_addr().expect("a bound listener").to_string(),
            plane: conclave_cluster::Plane::Tcp(plane),
            api_url: api_url.clone(),
            peers,
            joined: false,
            checks: conclave_cluster::CheckMode::default(),
            public_url: "http://127.0.0.1:9000".into(),
            settings: Vec::new(),
            hints: Vec::new(),
            pace: conclave_cluster::ElectionPace::Patient,
            keys: Arc::clone(&keys),
            runtime: runtime.clone(),
        };
        log_if_requested();
        let cluster = Cluster::start(options).await.expect("the cluster starts");
        let passwords = PasswordPool::start(NonZeroUsize::MIN, CHEAP).expect("a thread");
        let judged = Runtime { clock: cluster.clock(), ..runtime.clone() };
        let auth = Auth::new(cluster, Arc::clone(&keys), passwords, settings, judged);
        let serving = admin::serve(api, auth.clone(), None, std::future::pending());
        let api = tokio::spawn(async move { serving.await.expect("the admin API serves") });
        Self { auth, keys, runtime, clock, api_url, api, _data: data }
    }

    pub const fn auth(&self) -> &Auth {
        &self.auth
    }

    pub fn cluster(&self) -> &Cluster {
        self.auth.cluster()
    }

    /// The clock of this node, and of the others of its cluster.
    pub fn clock(&self) -> &FixedClock {
        &self.clock
    }

    pub const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// `http://127.0.0.1:port` of the admin API.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// An operator assertion that is valid for two minutes of the node's clock.
    pub fn operator_token(&self) -> String {
        operator::make(&self.keys.operator, self.runtime.clock.now_ms(), &*self.runtime.entropy)
    }

    /// A bearer token of the admin API.
    pub async fn api_token(&self, role: ApiRole) -> (TokenId, String) {
        let (id, secret) = (TokenId::new(self.bytes()), HandleSecret::new(self.bytes()));
        let command = CreateApiToken {
            token_id: id.to_vec(),
            name: "test".into(),
            secret_hash: mac::sha256(secret.expose()).to_vec(),
            role: role.into(),
            ttl_ms: 0,
        };
        let committed = self.propose(Body::CreateApiToken(command)).await.expect("a token");
        let ReplyBody::ApiTokenCreated(created) = committed.body else { return (id, String::new()) };
        (id, self.auth.issue(HandleKind::Api, *id.bytes(), secret, 0, created.index))
    }

    /// Creates a user with this password (empty for none) in these groups. Missing groups are created.
    pub async fn create_user(&self, username: &str, password: &str, groups: &[&str]) -> UserId {
        let id = UserId::new(self.bytes());
        let password_phc = if password.is_empty() { String::new() } else { self.hash(password).await };
        let command = CreateUser {
            user_id: id.to_vec(),
            username: username.into(),
            display_name: username.into(),
            password_phc,
            ..CreateUser::default()
        };
        self.propose(Body::CreateUser(command)).await.expect("a user");
        for group in groups {
            let group_id = self.group(group).await.to_vec();
            let command = AddGroupMember { group_id, user_id: id.to_vec() };
            self.propose(Body::AddGroupMember(command)).await.expect("a member");
        }
        id
    }

    /// The group with this name. It is created if it is missing.
    pub async fn group(&self, name: &str) -> GroupId {
        if let Some(group) = self.cluster().view().group_by_name(name) {
            return group.id;
        }
        let id = GroupId::new(self.bytes());
        let command = CreateGroup { group_id: id.to_vec(), name: name.into(), description: String::new() };
        self.propose(Body::CreateGroup(command)).await.expect("a group");
        id
    }

    /// Proposes any command, under a request id of its own.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose(&self, body: Body) -> Result<CommittedWrite, ProposeError> {
        self.cluster().propose(RequestId::new(self.bytes()), body).await
    }

    /// Random bytes from the node's seed.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        self.runtime.entropy.bytes()
    }

    async fn hash(&self, password: &str) -> String {
        let password = PlaintextPassword::new(password).expect("a short password");
        self.auth.passwords().hash(password, self.bytes()).await.expect("a hash")
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.api.abort();
        // Polling the shutdown once starts it; it ends on the consensus threads.
        let _ = self.cluster().shutdown().now_or_never();
    }
}

/// The settings of a node without a configuration, at `http://127.0.0.1:9000`.
fn settings() -> Settings {
    let config = Config::from_sources(None, &Environment::of([])).expect("the defaults are good");
    let public_url = config.http.public_url().expect("loopback has a public URL");
    Settings {
        mtls: config.http.mtls(),
        public_url,
        login: config.login,
        authorization: config.authorization.clone(),
        tokens: config.tokens,
        cookie_domain: config.http.cookie_domain,
        app_domains: config.http.app_domains,
        outbound: config.outbound,
        atmosphere: config.atmosphere,
        policy: config.policy,
    }
}

/// Waits until `is_so` returns true, at most ten seconds: elections run on the machine's clock.
///
/// # Panics
/// Panics if it does not become true in time.
pub async fn wait_until(mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), looking).await.expect("it becomes so in time");
}

/// Prints the log of the nodes of this process, if `RUST_LOG` asks for it (`cargo nextest run --no-capture`).
fn log_if_requested() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_default_env() {
        // Fails if the test has a subscriber already; then that one is used.
        tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init().ok();
    }
}
