//! Forged headers of clients against each proxy with the configuration of `deploy/proxies`: they change neither a
//! user's identity nor the target of a request. The output is the tables of docs/forward-auth.md.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use conclave_crypto::{
    jwk::Alg,
    jwt::{Expect, VerifyingKey, unverified_kid},
};
use conclave_forward_auth::{ASSERTION_TYP, IDENTITY_HEADERS};
use reqwest::cookie::{CookieStore as _, Jar};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    proxies::{HOST, Proxy, Seen, application, command, create_guest, open_and_sign_in, set_policy},
    world::Demo,
};

/// The longest time that a proxy may hold a request.
const LIMIT: Duration = Duration::from_secs(15);
/// The header that the policy adds to the identity headers.
const EXTRA: &str = "x-webauth-role";
/// The headers that carry the signed assertion.
const ASSERTIONS: [&str; 2] = ["x-conclave-assertion", "x-authentik-jwt"];
/// Ways to forge a header.
const SPELLINGS: [&str; 6] = ["dash", "underscore", "dot", "case", "duplicate", "empty"];
/// Headers with which a client may forge the target of its request.
const FORGED: [(&str, &str); 12] = [
    ("X-Forwarded-Host", "open.localhost"),
    ("X-Forwarded-Uri", "/public"),
    ("X-Forwarded-Method", "OPTIONS"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Forwarded-Prefix", "/auth"),
    ("Forwarded", "for=127.0.0.1;host=open.localhost;proto=https"),
    ("X-Original-URL", "http://open.localhost/"),
    ("X-Original-Method", "OPTIONS"),
    ("X-Rewrite-URL", "/public"),
    ("X_Forwarded_Host", "open.localhost"),
    ("X.Forwarded.Host", "open.localhost"),
];

fn lines(spelling: &str, name: &str) -> String {
    match spelling {
        "dash" => format!("{name}: root\r\n"),
        "underscore" => format!("{}: root\r\n", name.replace('-', "_")),
        "dot" => format!("{}: root\r\n", name.replace('-', ".")),
        "case" => format!("{}: root\r\n", name.to_uppercase()),
        "duplicate" => format!("{name}: root\r\n{name}: wheel\r\n"),
        _ => format!("{name}:\r\n{name}: root\r\n"),
    }
}

/// Sends a request with these raw headers and returns the status.
pub(super) async fn status(proxy: &Proxy, cookie: &str, more: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}:{}\r\nAccept: text/html\r\nConnection: close\r\n{cookie}{more}\r\n",
        proxy.port
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[9..]).parse().unwrap()
}

/// Every header that only the check may set.
fn names() -> impl Iterator<Item = &'static str> {
    IDENTITY_HEADERS.into_iter().chain([EXTRA])
}

/// The cluster's keys, with which an application verifies assertions.
struct Keys(serde_json::Value);

impl Keys {
    async fn of(demo: &Demo) -> Self {
        let reply = super::world::browser().get(format!("{}/oidc/jwks", demo.cluster.front)).send().await;
        Self(serde_json::from_str(&reply.unwrap().text().await.unwrap()).unwrap())
    }

    /// The user in a valid assertion; each request has a different assertion.
    fn verified(&self, token: &str) -> Option<String> {
        let kid = unverified_kid(token).ok()??;
        let jwk = self.0["keys"].as_array()?.iter().find(|key| key["kid"] == kid.as_str())?;
        let key = VerifyingKey::from_jwk(jwk).ok()?;
        let json = key.verify(token, Expect { typ: Some(ASSERTION_TYP), algs: &[Alg::Es256] }).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&json).ok()?;
        Some(format!("proved: {}", claims["preferred_username"].as_str()?))
    }
}

/// The identity headers that reached the application, by the name under which a lenient application would read them.
fn identity(seen: &Seen, keys: &Keys) -> Option<BTreeMap<String, Vec<String>>> {
    let (_, headers) = seen.lock().unwrap().take()?;
    let mut identity: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, values) in headers {
        let plain = name.to_lowercase().replace(['_', '.'], "-");
        if names().any(|name| name == plain) {
            identity.entry(plain).or_default().extend(values);
        }
    }
    // An absent header and an empty one are equal to an application.
    identity.retain(|_, values| values.iter().any(|value| !value.is_empty()));
    for name in ASSERTIONS {
        for value in identity.get_mut(name).into_iter().flatten() {
            *value = keys.verified(value).unwrap_or_else(|| format!("forged: {value}"));
        }
    }
    Some(identity)
}

/// The number of headers of a spelling that had no effect, were refused on entry, or were accepted.
#[derive(Default)]
struct Outcome {
    without_effect: usize,
    refused: usize,
    accepted: usize,
}

async fn spoof(proxy: &Proxy, seen: &Seen, keys: &Keys, cookie: &str, spelling: &str) -> Outcome {
    assert_eq!(status(proxy, cookie, "").await, 200);
    let truth = identity(seen, keys).unwrap();
    assert_eq!(truth["remote-user"], ["admin"]);
    assert_eq!(truth[EXTRA], ["Admin"]);
    for name in ASSERTIONS {
        assert_eq!(truth[name], ["proved: admin"], "{name}");
    }
    let mut outcome = Outcome::default();
    for name in names() {
        let status = status(proxy, cookie, &lines(spelling, name)).await;
        match identity(seen, keys) {
            Some(identity) if identity == truth => outcome.without_effect += 1,
            Some(identity) => {
                println!("{name} as {spelling}: {identity:?}");
                outcome.accepted += 1;
            }
            None => {
                assert!((400..500).contains(&status), "{name} as {spelling}: {status}");
                outcome.refused += 1;
            }
        }
    }
    outcome
}

/// The outcome as a table cell.
fn told(outcome: &Outcome) -> String {
    let Outcome { without_effect, refused, accepted } = outcome;
    let all = names().count();
    match (without_effect, refused, accepted) {
        (n, 0, 0) if *n == all => "no effect".into(),
        (0, n, 0) if *n == all => "refused".into(),
        _ => format!("{without_effect} no effect, {refused} refused, {accepted} accepted"),
    }
}

/// Signs in at the application behind this proxy and returns the cookies that the browser then sends.
pub(super) async fn cookie_at(demo: &Demo, proxy: &Proxy) -> String {
    let admin = &demo.cluster.admin;
    let jar = Arc::new(Jar::default());
    let browser = proxy.browser_with(Arc::clone(&jar));
    let (_, reply) =
        open_and_sign_in(demo, &browser, &proxy.url("/"), &admin.username, &admin.password).await;
    assert_eq!(reply.status(), 200);
    jar.cookies(&proxy.url("/").parse().unwrap()).unwrap().to_str().unwrap().to_owned()
}

/// Sends requests without a session and with forged targets; returns the statuses. None may reach the application.
async fn forge(proxy: &Proxy, seen: &Seen) -> Vec<u16> {
    seen.lock().unwrap().take();
    let mut statuses = Vec::new();
    for (name, value) in FORGED {
        statuses.push(status(proxy, "", &format!("{name}: {value}\r\n")).await);
        assert!(seen.lock().unwrap().is_none(), "a stranger got in with {name}");
    }
    statuses
}

const HANDSHAKE: &str =
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A handshake, and a frame in each direction.
async fn web_socket(proxy: &Proxy, cookie: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    let head = format!(
        "GET /socket HTTP/1.1\r\nHost: {HOST}:{}\r\nConnection: Upgrade\r\n{HANDSHAKE}{cookie}\r\n",
        proxy.port
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
    if status == 101 {
        // "Hello" of RFC 6455 §5.7, masked.
        let frame = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        stream.write_all(&frame).await.unwrap();
        let mut back = [0; 11];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, frame);
    }
    status
}

/// Checks while a node stands still: their number, the number that failed, and the longest time.
async fn frozen(demo: &Demo, proxy: &Proxy, cookie: &str) -> (usize, usize, Duration) {
    let leader = demo.leader().await.expect("a leader");
    let victim = demo.cluster.nodes.iter().map(|node| node.id).find(|id| *id != leader).unwrap();
    let pid = demo.pid_of(victim).unwrap().to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    let over = AtomicBool::new(false);
    let checking = async {
        let (mut asked, mut failed, mut longest) = (0, 0, Duration::ZERO);
        while !over.load(Ordering::Relaxed) {
            let began = Instant::now();
            let answer = tokio::time::timeout(LIMIT, status(proxy, cookie, "")).await;
            failed += usize::from(answer != Ok(200));
            asked += 1;
            longest = longest.max(began.elapsed());
        }
        (asked, failed, longest)
    };
    signal("-STOP");
    let standing = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        over.store(true, Ordering::Relaxed);
    };
    let (outcome, ()) = tokio::join!(checking, standing);
    signal("-CONT");
    demo.all_ready().await;
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_header_that_a_client_writes_gets_past_a_proxy() {
    let demo = Demo::start(&["--restart"]);
    create_guest(&demo).await;
    set_policy(&demo);
    command(&demo, &["app", "update", "demo-app", "--assertion", "on"]);
    let keys = Keys::of(&demo).await;
    let (addr, seen) = application().await;
    let mut spoofs =
        format!("| proxy | {} | accepted |\n|---|{}---|\n", SPELLINGS.join(" | "), "---|".repeat(6));
    let names: Vec<&str> = FORGED.iter().map(|(name, _)| *name).collect();
    let mut forged = format!("| proxy | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(FORGED.len()));
    let mut still = String::new();
    for (n, name) in
        ["nginx", "Caddy", "HAProxy", "Envoy over HTTP", "Envoy over gRPC", "Traefik"].into_iter().enumerate()
    {
        let port = demo.own_port(0) + u16::try_from(n).unwrap();
        let proxy = match n {
            0 => Proxy::nginx(&demo.cluster.nodes, port, addr).await,
            1 => Proxy::caddy(&demo.cluster.nodes, port, addr).await,
            2 => Proxy::haproxy(&demo.cluster.nodes, port, addr).await,
            3 => Proxy::envoy(&demo.cluster.nodes, port, addr).await,
            4 => Proxy::envoy_with("envoy-grpc.yaml", &demo.cluster.nodes, port, addr).await,
            _ => Proxy::traefik(&demo.cluster.nodes, port, addr).await,
        };
        let cookie = cookie_at(&demo, &proxy).await;
        let (mut row, mut accepted) = (format!("| {name} "), 0);
        for spelling in SPELLINGS {
            let outcome = spoof(&proxy, &seen, &keys, &cookie, spelling).await;
            accepted += outcome.accepted;
            write!(row, "| {} ", told(&outcome)).unwrap();
        }
        writeln!(spoofs, "{row}| {accepted} |").unwrap();
        let statuses = forge(&proxy, &seen).await.iter().map(u16::to_string).collect::<Vec<_>>().join(" | ");
        writeln!(forged, "| {name} | {statuses} |").unwrap();
        assert_eq!(web_socket(&proxy, &cookie).await, 101, "{name}");
        assert_eq!(web_socket(&proxy, "").await, 401, "{name}: sockets are told, not sent away");
        let (asked, failed, longest) = frozen(&demo, &proxy, &cookie).await;
        writeln!(still, "{name}: {failed} of {asked} failed, longest {} ms", longest.as_millis()).unwrap();
        assert!(asked > failed, "{name} never went on to another node");
    }
    println!("{spoofs}\n{forged}\n{still}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/forward-auth.md");
    let page = std::fs::read_to_string(page).unwrap();
    for table in [&spoofs, &forged] {
        assert!(page.contains(table.as_str()), "docs/forward-auth.md says something else than:\n{table}");
    }
    assert!(spoofs.lines().skip(2).all(|row| row.ends_with("| 0 |")), "{spoofs}");
}
