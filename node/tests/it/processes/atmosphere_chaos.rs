//! A thousand users sign in with Atmosphere while one node after the other is killed; and no secret of it is stored or
//! logged in clear. The nodes are processes; the network is in this one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};

use reqwest::cookie::{CookieStore as _, Jar};

use super::{
    collector::Collector,
    world::{Demo, Node, browser, browser_with, field, kill_9, location},
};
use crate::slices::{atmosphere_network::Network, site::encoded};

/// The number of users, each with a separate DID.
const PEOPLE: u32 = 1_000;
/// Concurrent sign-ins: the load that two processors carry beside three nodes.
const AT_ONCE: usize = 6;
/// The number of attempts by a user who is asked to try again.
const TRIES: usize = 12;
/// The time between two kills.
const LIVES: Duration = Duration::from_secs(4);
/// The error codes after which a user has to start again: the cluster cannot write now, or the state was spent by a
/// node that died.
const AGAIN: [&str; 4] =
    ["temporarily_unavailable", "atproto_state_invalid", "ticket_spent", "atproto_provider_unreachable"];

/// One DID a number.
pub(super) fn did(n: u32) -> String {
    let digits: String =
        (0..5_u32).map(|at| char::from(b'a' + u8::try_from(n / 26_u32.pow(at) % 26).unwrap())).collect();
    format!("did:plc:{digits:z<24}")
}

/// Three processes as nodes, and the network in this process.
pub(super) struct Sky {
    pub demo: Demo,
    pub network: Arc<Network>,
    next: AtomicUsize,
    again: AtomicUsize,
    _dir: tempfile::TempDir,
    data: PathBuf,
}

impl Sky {
    /// Starts the cluster; `collector` receives the traces.
    pub(super) async fn start(restart: bool, collector: Option<&Collector>) -> Self {
        let network = Network::start().await;
        network.says(|script| script.asks_for_nonce = 1);
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("demo");
        let mut settings = vec![
            ("CONCLAVE_OUTBOUND__ALLOW", "127.0.0.1,::1".to_owned()),
            ("CONCLAVE_ATMOSPHERE__UNSAFE_DEV", "true".into()),
            ("CONCLAVE_ATMOSPHERE__PLC_DIRECTORIES", format!(r#"["{}/plc"]"#, network.url)),
            ("CONCLAVE_ATMOSPHERE__NAMESERVERS", format!(r#"["{}"]"#, network.nameserver)),
            ("CONCLAVE_LOGIN__THROTTLE__ADDRESS_FAILURES", "1000000".into()),
            ("CONCLAVE_LOG__LEVEL", "conclave=trace,info".into()),
        ];
        if let Some(collector) = collector {
            settings.push(("CONCLAVE_TELEMETRY__OTLP_ENDPOINT", collector.endpoint.clone()));
            // The delay in milliseconds.
            settings.push(("OTEL_BSP_SCHEDULE_DELAY", "100".into()));
        }
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut more = vec!["--data", data.to_str().unwrap()];
        more.extend(restart.then_some("--restart"));
        let demo = Demo::start_with(&more, &settings);
        Self { demo, network, next: AtomicUsize::new(0), again: AtomicUsize::new(0), _dir: dir, data }
    }

    /// Opens the page at the next node, like a load balancer without stickiness; at another one if that node does not
    /// respond.
    async fn at(
        &self,
        url: &str,
        with: impl Fn(String) -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, ()> {
        let path = url.strip_prefix(&self.demo.cluster.front).unwrap_or(url);
        let nodes = &self.demo.cluster.nodes;
        for _ in 0..nodes.len() * 4 {
            let node = &nodes[self.next.fetch_add(1, Ordering::Relaxed) % nodes.len()];
            match with(format!("{}{path}", node.http)).send().await {
                Ok(reply) if reply.status() != 503 => return Ok(reply),
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        Err(())
    }

    async fn get(&self, person: &reqwest::Client, url: &str) -> Result<reqwest::Response, ()> {
        self.at(url, |url| person.get(url)).await
    }

    /// One attempt: signed in, or asked to try again. Any other result fails the test.
    async fn attempt(&self, did: &str, first: &str) -> Result<reqwest::Client, ()> {
        let person = browser();
        self.attempts(&person, did, first).await.map(|()| person)
    }

    /// Like `attempt`, in this browser.
    pub(super) async fn attempts(&self, person: &reqwest::Client, did: &str, first: &str) -> Result<(), ()> {
        let query = self.departs(person, did, first).await?;
        let back = self.get(person, &format!("/atproto/callback?{query}")).await?;
        if back.status() != 303 {
            return self.told(back, "callback").await;
        }
        let home = self.get(person, "/").await?;
        assert_eq!(home.status(), 200, "a user who is signed in is signed in on every node");
        Ok(())
    }

    /// Redirects to the user's server and consents there; returns the query of the callback.
    pub(super) async fn departs(
        &self,
        person: &reqwest::Client,
        did: &str,
        first: &str,
    ) -> Result<String, ()> {
        let text = self.get(person, &format!("/atproto?first={first}")).await?.text().await.map_err(drop)?;
        let form = filled(&text, did, first).ok_or(())?;
        let post = |url: String| {
            let post = person.post(url).header("content-type", "application/x-www-form-urlencoded");
            post.body(form.clone())
        };
        let away = self.at("/atproto/start", post).await?;
        if away.status() != 303 {
            return self.told(away, "start").await;
        }
        Ok(self.network.allows_as(&location(&away), did))
    }

    /// Like `departs`, at this node alone.
    pub(super) async fn departs_at(&self, node: &Node, person: &reqwest::Client, did: &str) -> String {
        let page = person.get(format!("{}/atproto?first=nobody", node.http)).send().await.unwrap();
        let form = filled(&page.text().await.unwrap(), did, "nobody").expect("the page");
        let post = person.post(format!("{}/atproto/start", node.http)).body(form);
        let post = post.header("content-type", "application/x-www-form-urlencoded");
        self.network.allows_as(&location(&post.send().await.unwrap()), did)
    }

    async fn told<T>(&self, reply: reqwest::Response, at: &str) -> Result<T, ()> {
        let status = reply.status();
        let text = reply.text().await.map_err(drop)?;
        assert!(says_again(&text), "{at}: {status} {text}");
        Err(())
    }

    async fn signs_in(&self, did: &str) -> Duration {
        let begun = Instant::now();
        for _ in 0..TRIES {
            if self.attempt(did, "nobody").await.is_ok() {
                return begun.elapsed();
            }
            self.again.fetch_add(1, Ordering::Relaxed);
        }
        panic!("{did} was told to try again {TRIES} times");
    }

    /// The cookies that a browser sends to the nodes, by name.
    pub(super) fn cookies(&self, jar: &Jar) -> BTreeMap<String, String> {
        let url = self.demo.cluster.nodes[0].http.parse().unwrap();
        let header = jar.cookies(&url).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let pairs = header.split("; ").filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Every file of the nodes: log, snapshots, data, output.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(&self.data, &mut found);
        found.into_iter().filter_map(|path| Some((path.clone(), std::fs::read(path).ok()?))).collect()
    }
}

/// The form on this page with a DID in it; none if it is another page: a node that has just restarted does not show the
/// form.
fn filled(page: &str, did: &str, first: &str) -> Option<String> {
    let has_form = page.contains("name=\"ticket\"");
    has_form.then(|| {
        let (ticket, csrf) = (field(page, "ticket"), field(page, "csrf"));
        encoded(&[("ticket", &ticket), ("csrf", &csrf), ("handle", did), ("first", first)])
    })
}

/// True if a page asks the user to try again.
pub(super) fn says_again(page: &str) -> bool {
    AGAIN.iter().any(|code| page.contains(code))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    // Finds candidates by the first byte, because hundreds of MB are searched.
    let Some(first) = needle.first() else { return false };
    let mut at = 0;
    while let Some(found) = haystack[at..].iter().position(|byte| byte == first) {
        if haystack[at + found..].starts_with(needle) {
            return true;
        }
        at += found + 1;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sign_in_while_nodes_are_killed_each_once() {
    let sky = Sky::start(true, None).await;
    sky.demo.conclave(&["upstream", "add", "atmosphere", "--atmosphere", "--admit", "any"]);
    for n in 0..PEOPLE {
        sky.network.account(&did(n), &format!("p{n}.test"));
    }
    let over = AtomicBool::new(false);
    let killing = async {
        let mut killed = 0_usize;
        while !over.load(Ordering::Relaxed) {
            tokio::time::sleep(LIVES).await;
            let node = sky.demo.cluster.nodes[killed % 3].id;
            if over.load(Ordering::Relaxed) {
                break;
            }
            if let Some(pid) = sky.demo.pid_of(node) {
                kill_9(pid);
                killed += 1;
            }
        }
        killed
    };
    let signing_in = async {
        let people = stream::iter(0..PEOPLE).map(|n| {
            let sky = &sky;
            async move { sky.signs_in(&did(n)).await }
        });
        let mut took: Vec<Duration> = people.buffer_unordered(AT_ONCE).collect().await;
        over.store(true, Ordering::Relaxed);
        took.sort();
        took
    };
    let begun = Instant::now();
    let (took, killed) = tokio::join!(signing_in, killing);
    println!(
        "{PEOPLE} sign-ins in {:.1?}, {killed} nodes killed, {} told to try again; median {:.0?}, 99 % {:.0?}, longest {:.0?}",
        begun.elapsed(),
        sky.again.load(Ordering::Relaxed),
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        took[took.len() - 1],
    );
    assert!(killed >= 3, "each was killed: {killed}");
    sky.demo.all_ready().await;
    let upstream = sky.demo.conclave(&["upstream", "show", "atmosphere"]);
    assert_eq!(upstream["identity_count"], PEOPLE, "each is one person");
    let again = sky.network.codes_again.load(Ordering::SeqCst);
    assert_eq!(again, 0, "no code was ever brought a second time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_of_a_sign_in_is_in_any_file_in_clear() {
    let collector = Collector::start().await;
    let sky = Sky::start(false, Some(&collector)).await;
    let made = sky.demo.conclave(&[
        "upstream",
        "add",
        "atmosphere",
        "--atmosphere",
        "--admit",
        "none",
        "--first-into",
        "admins",
    ]);
    let link = made["first_url"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    let first = link.split("first=").nth(1).unwrap().to_owned();
    sky.network.account(&did(1), "alice.test");
    let jar = Arc::new(Jar::default());
    let person = browser_with(&jar);
    let query = sky.departs(&person, &did(1), &first).await.expect("a start");
    let on_the_way = sky.cookies(&jar);
    let back = sky.get(&person, &format!("/atproto/callback?{query}")).await.expect("an answer");
    assert_eq!(back.status(), 303);
    let told = sky.network.told.lock().unwrap().clone();
    // A failing callback, because errors are a likely place to print secrets.
    let page = sky.get(&person, "/atproto/callback?state=x&iss=y&code=code-that-fails").await.unwrap();
    assert_eq!(page.status(), 400);
    let snapshot = sky.data.join("all.snapshot");
    let config = sky.data.join("node-1.toml");
    sky.demo.conclave(&[
        "snapshot",
        "save",
        "--to",
        snapshot.to_str().unwrap(),
        "--linearizable",
        "--config",
        config.to_str().unwrap(),
    ]);
    let mut planted: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    planted.insert("the first token".into(), first.clone().into_bytes());
    planted.insert("the access token".into(), format!("token of {}", did(1)).into_bytes());
    planted.insert("a code that fails".into(), b"code-that-fails".to_vec());
    for name in ["code", "code_verifier"] {
        planted.insert(name.into(), told[name].clone().into_bytes());
    }
    let cookies: BTreeMap<String, String> = on_the_way.into_iter().chain(sky.cookies(&jar)).collect();
    for kind in ["atproto_", "session"] {
        assert!(cookies.keys().any(|name| name.contains(kind)), "{:?}", cookies.keys());
    }
    for (name, value) in cookies {
        planted.insert(format!("the cookie {name}"), value.into_bytes());
    }
    // The prefix of every private key of P-256 in PKCS#8: the cluster's own, and that of each sign-in.
    planted.insert(
        "a private key".into(),
        [
            &[0x30, 0x13, 0x06, 0x07][..],
            &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08],
            &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04],
        ]
        .concat(),
    );
    let files = sky.files();
    assert!(
        files.iter().any(|(path, _)| path.extension().is_some_and(|ext| ext == "log")),
        "what nodes print"
    );
    assert!(files.iter().any(|(path, _)| path == &snapshot));
    // The search itself works: the DID is not a secret, and is in the data of every node.
    let holding = files.iter().filter(|(_, bytes)| contains(bytes, did(1).as_bytes())).count();
    assert!(holding >= 3, "{holding}");
    for (path, bytes) in &files {
        // The secrets of the folder are readable by their owner alone.
        if path.extension().is_some_and(|ext| ext == "toml" || ext == "key") {
            continue;
        }
        for (what, secret) in &planted {
            assert!(!contains(bytes, secret), "{what} is in {}", path.display());
        }
    }
    // The data sent to the collector: names, attributes and events of every span, at the finest level.
    collector.has(|span| span.name == "atproto.callback").await;
    collector.has(|span| span.attribute("http.path").as_deref() == Some("/atproto/callback")).await;
    let exported = collector.bytes();
    assert!(contains(&exported, b"/atproto/callback"), "the search finds what is there");
    for (what, secret) in &planted {
        assert!(!contains(&exported, secret), "{what} is in a trace");
    }
}
