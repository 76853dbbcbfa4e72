//! Sign-in with Atmosphere at an account server and a directory by the protocol's authors (npm: @atproto/pds,
//! @did-plc/server). `make test` installs them beside `tests/atproto/`. The nodes are in this process, the servers
//! beside it, and the user acts without a browser.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Lines, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use conclave_auth::Settings;
use conclave_base::runtime::Clock as _;
use conclave_node::testing::TestNode;
use conclave_proto::command::v1::{CreateUpstream, Upstream, UpstreamAdmission, UpstreamRule, command::Body};
use http::StatusCode;
use serde_json::Value;
use tokio::net::UdpSocket;

use crate::slices::{
    atmosphere::code_of,
    atmosphere_network::names,
    site::{Browser, Page, Site},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/atproto")
}

/// The password of every account there.
pub(super) const PASSWORD: &str = "the account password";

/// The real servers.
pub(super) struct Servers {
    child: Child,
    commands: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
    pub plc: String,
    pub pds: String,
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Servers {
    /// Starts the servers with these settings in their environment.
    pub(super) fn start(settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new("node")
            .arg(folder().join("server.cjs"))
            .envs(settings.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node; `make test` installs it");
        let (commands, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (said, empty) = (BufReader::new(said).lines(), String::new());
        let mut servers = Self { child, commands, said, plc: empty.clone(), pds: empty };
        let at = servers.heard();
        (servers.plc, servers.pds) = (text(&at, "plc"), text(&at, "pds"));
        servers
    }

    /// Stops the servers: no request is answered any more.
    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn heard(&mut self) -> Value {
        let line = self.said.next().expect("the servers ended; `make test` installs them").unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"))
    }

    pub(super) fn told(&mut self, command: &str) -> Value {
        writeln!(self.commands, "{command}").unwrap();
        self.heard()
    }
}

pub(super) fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

fn now_ms() -> u64 {
    u64::try_from(UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// The nameserver of the handles.
pub(super) struct Names {
    pub addr: SocketAddr,
    records: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
}

impl Names {
    pub(super) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let records: Arc<Mutex<BTreeMap<String, Vec<String>>>> = Arc::default();
        let known = Arc::clone(&records);
        tokio::spawn(names(socket, move |name| known.lock().unwrap().get(name).cloned().unwrap_or_default()));
        Self { addr, records }
    }

    pub(super) fn know(&self, handle: &str, did: &str) {
        self.records.lock().unwrap().insert(format!("_atproto.{handle}"), vec![format!("did={did}")]);
    }
}

/// Three nodes, the real servers, and the nameserver.
pub(super) struct World {
    pub nodes: Vec<Site>,
    pub servers: Servers,
    names: Names,
    /// The URL to which browsers return.
    home: String,
    /// The difference of all clocks to the machine's clock, in ms.
    ahead_ms: AtomicU64,
}

impl World {
    async fn start() -> Self {
        Self::start_with(Servers::start(&[]), |_| {}).await
    }

    pub(super) async fn start_with(servers: Servers, change: impl Fn(&mut Settings)) -> Self {
        let names = Names::start().await;
        let (plc, nameserver) = (servers.plc.clone(), names.addr);
        let settings = move |settings: &mut Settings| {
            settings.outbound.allow = vec!["127.0.0.1".parse().unwrap()];
            settings.atmosphere.unsafe_dev = true;
            settings.atmosphere.plc_directories = vec![plc.clone()];
            settings.atmosphere.nameservers = vec![nameserver];
            change(settings);
        };
        let nodes = TestNode::start_cluster_at(now_ms(), 3, settings).await;
        let nodes: Vec<Site> = nodes.into_iter().map(Site::of).collect();
        let home = nodes[0].node.auth().settings().public_url.join("/atproto/callback");
        let world = Self { nodes, servers, names, home, ahead_ms: AtomicU64::new(0) };
        world.leader().node.auth().clone().ensure_signing_keys(None).await;
        world
    }

    pub(super) fn leader(&self) -> &Site {
        self.nodes.iter().find(|site| site.node.cluster().is_leader()).expect("a leader")
    }

    pub(super) async fn takes(&self, rule: UpstreamRule) {
        let upstream = Upstream {
            name: "atmosphere".into(),
            display_name: "Atmosphere".into(),
            atmosphere: true,
            rule: Some(rule),
            ..Upstream::default()
        };
        let command = CreateUpstream { upstream: Some(upstream) };
        self.leader().node.propose(Body::CreateUpstream(command)).await.unwrap();
        for site in &self.nodes {
            let is_known = || site.node.cluster().view().upstream("atmosphere").is_some();
            conclave_node::testing::wait_until(is_known).await;
        }
    }

    /// A new account, whose handle the DNS resolves.
    pub(super) fn account(&mut self, handle: &str) -> String {
        let did = text(&self.servers.told(&format!("account {handle}")), "did");
        self.names.know(handle, &did);
        did
    }

    /// Sets the nodes' clock to the clock of the servers, because the servers check the times of proofs.
    pub(super) fn tick(&self) {
        // The nodes share one clock.
        let clock = self.nodes[0].node.clock();
        let now = now_ms() + self.ahead_ms.load(Ordering::SeqCst);
        clock.advance(Duration::from_millis(now.saturating_sub(clock.now_ms())));
    }

    /// Advances the clocks, including that of the servers.
    pub(super) fn passes(&mut self, time: Duration) {
        self.servers.told(&format!("pass {}", time.as_millis()));
        self.ahead_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
        self.tick();
    }

    /// Redirects to the user's server from one node, and returns to another.
    pub(super) async fn signs_in(
        &self,
        browser: &mut Browser,
        typed: &str,
        handle: &str,
        answer: &str,
    ) -> Page {
        self.tick();
        let away = self.nodes[0].start_login_as(browser, typed).await;
        assert_eq!(away.status, StatusCode::SEE_OTHER, "{}: {}", code_of(&away), away.text);
        let query = self.at_their_server(&away.location(), handle, answer).await;
        self.tick();
        self.nodes[1].open_callback(browser, &query).await
    }

    /// The query with which the user's server redirects the browser back.
    pub(super) async fn at_their_server(&self, address: &str, handle: &str, answer: &str) -> String {
        let output = tokio::process::Command::new("node")
            .arg(folder().join("person.mjs"))
            .args([address, handle, answer])
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let callback = text(&serde_json::from_slice(&output.stdout).unwrap(), "callback");
        let (at, query) = callback.split_once('?').unwrap();
        assert_eq!(at, self.home);
        query.to_owned()
    }

    pub(super) async fn who(&self, browser: &mut Browser) -> Option<String> {
        self.nodes[2].at_home(browser).await
    }
}

pub(super) fn anybody() -> UpstreamRule {
    UpstreamRule { admission: UpstreamAdmission::Any.into(), ..UpstreamRule::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_sign_in_at_a_real_account_server_by_whatever_they_are_called() {
    let mut world = World::start().await;
    world.takes(anybody()).await;
    let did = world.account("alice.test");
    for typed in
        ["alice.test".to_owned(), format!("@{}", "Alice.test"), did.clone(), world.servers.pds.clone()]
    {
        let mut browser = Browser::default();
        let page = world.signs_in(&mut browser, &typed, "alice.test", "accept").await;
        assert_eq!(
            (page.status, page.location().as_str()),
            (StatusCode::SEE_OTHER, "/"),
            "{typed}: {}",
            page.text
        );
        assert_eq!(world.who(&mut browser).await.as_deref(), Some("alice.test"), "{typed}");
    }
    let view = world.leader().node.cluster().view();
    assert_eq!(view.identities_at("atmosphere").count(), 1, "one person, however they are called");
    assert_eq!(world.who(&mut Browser::default()).await, None);
    assert_eq!(&*view.identities_at("atmosphere").next().unwrap().subject, did);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_real_account_shows_of_itself_is_taken_over() {
    let mut world = World::start().await;
    world.takes(anybody()).await;
    let did = world.account("alice.test");
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(200, 100, image::Rgb([0, 90, 0]))
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    let command = format!("profile {did} Alice {}", conclave_crypto::hex::encode(png.get_ref()));
    let cid = text(&world.servers.told(&command), "cid");
    let page = world.signs_in(&mut Browser::default(), "alice.test", "alice.test", "accept").await;
    assert_eq!(page.location(), "/", "{}", page.text);
    let user = {
        let view = world.leader().node.cluster().view();
        view.user(view.identity("atmosphere", &did).unwrap().user).unwrap().clone()
    };
    assert_eq!(user.display_name, "Alice");
    let source = format!("atproto:{cid}");
    let shown = || {
        let has_it =
            |site: &Site| site.node.cluster().view().picture_of(user.id).is_some_and(|p| p.source == source);
        world.nodes.iter().all(has_it)
    };
    conclave_node::testing::wait_until(shown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_moves_to_another_server_is_the_same_person_there_and_nobody_by_the_old_one() {
    let mut world = World::start().await;
    world.takes(anybody()).await;
    let did = world.account("alice.test");
    let page = world.signs_in(&mut Browser::default(), "alice.test", "alice.test", "accept").await;
    assert_eq!(page.location(), "/", "{}", page.text);

    // A move between the two halves of a sign-in: the old server may not identify the account any more.
    world.tick();
    let mut browser = Browser::default();
    let away = world.nodes[0].start_login_as(&mut browser, "alice.test").await;
    let query = world.at_their_server(&away.location(), "alice.test", "accept").await;
    let there = text(&world.servers.told(&format!("move {did}")), "pds");
    assert_ne!(there, world.servers.pds);
    world.tick();
    let page = world.nodes[1].open_callback(&mut browser, &query).await;
    assert_eq!(code_of(&page), "atproto_subject_mismatch", "{}", page.text);
    assert_eq!(world.who(&mut browser).await, None);

    // The next sign-in uses the new server, and is the known user.
    world.tick();
    let away = world.nodes[0].start_login_as(&mut browser, "alice.test").await;
    assert!(away.location().starts_with(&there), "{}", away.location());
    let query = world.at_their_server(&away.location(), "alice.test", "accept").await;
    world.tick();
    let page = world.nodes[1].open_callback(&mut browser, &query).await;
    assert_eq!(page.location(), "/", "{} {}", page.status, page.text);
    assert_eq!(world.who(&mut browser).await.as_deref(), Some("alice.test"));
    let view = world.leader().node.cluster().view();
    assert_eq!(view.identities_at("atmosphere").count(), 1, "one person");

    // If no server responds, the error says so, and the known user stays.
    world.tick();
    let mut other = Browser::default();
    let away = world.nodes[0].start_login_as(&mut other, "alice.test").await;
    let query = world.at_their_server(&away.location(), "alice.test", "accept").await;
    world.servers.end();
    let page = world.nodes[1].open_callback(&mut other, &query).await;
    assert_eq!(code_of(&page), "atproto_provider_unreachable", "{}", page.text);
    let page = world.nodes[0].start_login_as(&mut Browser::default(), &did).await;
    assert_eq!(code_of(&page), "atproto_provider_unreachable", "{}", page.text);
    assert_eq!(world.who(&mut browser).await.as_deref(), Some("alice.test"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_another_person_and_a_new_handle_are_what_they_are() {
    let mut world = World::start().await;
    let rule = UpstreamRule {
        admission: UpstreamAdmission::Listed.into(),
        handles: vec!["bob.test".into()],
        ..UpstreamRule::default()
    };
    world.takes(rule).await;
    let bob = world.account("bob.test");
    let eve = world.account("eve.test");

    let mut browser = Browser::default();
    let page = world.signs_in(&mut browser, "bob.test", "bob.test", "reject").await;
    assert_eq!(code_of(&page), "atproto_denied");
    let page = world.signs_in(&mut Browser::default(), "eve.test", "eve.test", "accept").await;
    assert_eq!(code_of(&page), "not_allowed");
    // A different account than the named one signs in.
    let page = world.signs_in(&mut Browser::default(), "bob.test", "eve.test", "accept").await;
    assert_eq!(code_of(&page), "atproto_subject_mismatch");
    let page = world.signs_in(&mut browser, "bob.test", "bob.test", "accept").await;
    assert_eq!(page.location(), "/", "{}", page.text);

    // An account with a new handle is the known user; the old handle leads nowhere, and later to the account that takes
    // it.
    world.servers.told(&format!("rename {bob} robert.test"));
    world.names.know("robert.test", &bob);
    let page = world.nodes[0].start_login_as(&mut Browser::default(), "bob.test").await;
    assert_eq!(code_of(&page), "atproto_handle_mismatch");
    let mut renamed = Browser::default();
    let page = world.signs_in(&mut renamed, "robert.test", "robert.test", "accept").await;
    assert_eq!(page.location(), "/", "who is here stays: {}", page.text);
    assert_eq!(world.who(&mut renamed).await, world.who(&mut browser).await);
    let handle = |world: &World, did: &str| {
        let view = world.leader().node.cluster().view();
        view.identity("atmosphere", did).map(|identity| identity.label.clone())
    };
    assert_eq!(handle(&world, &bob).as_deref(), Some("robert.test"));
    world.servers.told(&format!("rename {eve} bob.test"));
    world.names.know("bob.test", &eve);
    let mut browser = Browser::default();
    world.signs_in(&mut browser, "bob.test", "bob.test", "accept").await;
    assert_ne!(world.who(&mut browser).await, world.who(&mut renamed).await, "another person");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_is_answered_by_the_cluster_that_is_left_when_its_leader_is_gone() {
    let mut world = World::start().await;
    world.takes(anybody()).await;
    world.account("alice.test");
    world.tick();
    let leads = world.nodes.iter().position(|site| site.node.cluster().is_leader()).unwrap();
    let leader = world.nodes.remove(leads);
    let mut browser = Browser::default();
    let away = world.nodes[0].start_login_as(&mut browser, "alice.test").await;
    let query = world.at_their_server(&away.location(), "alice.test", "accept").await;
    leader.node.cluster().shutdown().await;
    let page = world.nodes[1].open_callback(&mut browser, &query).await;
    assert_eq!(page.location(), "/", "{} {}", page.status, page.text);
    assert_eq!(world.nodes[0].at_home(&mut browser).await.as_deref(), Some("alice.test"));
    // That response again, at the other node: it was spent.
    let again = world.nodes[0].open_callback(&mut browser, &query).await;
    assert_eq!(code_of(&again), "atproto_state_invalid");
}
