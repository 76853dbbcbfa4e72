//! nginx, Caddy and HAProxy as Debian ships them, and Envoy, each with the configuration of `deploy/proxies` in front
//! of an application: sign-in and return to the exact URL, the wrong group, forged identity headers, and nodes that
//! die.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    extract::Request,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use conclave_proto::admin::v1::{CreateUserRequest, user_service_client::UserServiceClient};

use super::world::{Demo, Node, field, kill_9, location};

pub(super) const HOST: &str = "app.localhost";
/// The cluster's own name at the proxy.
pub(super) const ID_HOST: &str = "id.localhost";
const PASSWORD: &str = "guest password 1";

pub(super) type Seen = Arc<Mutex<Option<(String, BTreeMap<String, Vec<String>>)>>>;

/// An application that remembers the last request that reached it.
pub(super) async fn application() -> (SocketAddr, Seen) {
    let seen: Seen = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let remember = Arc::clone(&seen);
    let router = axum::Router::new().fallback(
        async move |uri: axum::http::Uri, headers: HeaderMap, request: Request| {
            let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (name, value) in &headers {
                all.entry(name.to_string())
                    .or_default()
                    .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
            }
            *remember.lock().unwrap() = Some((uri.to_string(), all));
            if headers.contains_key("sec-websocket-key") {
                echo(request)
            } else {
                "the application".into_response()
            }
        },
    );
    tokio::spawn(async move { axum::serve(listener, router).await });
    (addr, seen)
}

/// A WebSocket that returns each frame, for the key of RFC 6455 §1.3.
fn echo(request: Request) -> Response {
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let (mut from, mut to) = tokio::io::split(hyper_util::rt::TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    let switched = Response::builder()
        .status(101)
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    switched.body(axum::body::Body::empty()).unwrap()
}

/// A proxy process, ended when dropped.
pub(super) struct Proxy {
    child: Child,
    pub port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    async fn start(port: u16, program: &str, config: &str, args: impl Fn(&Path) -> Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, config.replace("@DIR@", &dir.path().display().to_string())).unwrap();
        let child = Command::new(program)
            .args(args(&file))
            .env("HOME", dir.path())
            .env("XDG_DATA_HOME", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{program} cannot be started ({e}); `make test` installs it"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < deadline, "{program} does not listen");
            tokio::task::yield_now().await;
        }
        Self { child, port, _dir: dir }
    }

    pub(super) async fn nginx(nodes: &[Node], port: u16, application: SocketAddr) -> Self {
        Self::start(port, "nginx", &nginx_config(nodes, port, application), |file| {
            vec![
                "-c".into(),
                file.display().to_string(),
                "-g".into(),
                "daemon off; master_process off;".into(),
            ]
        })
        .await
    }

    pub(super) async fn caddy(nodes: &[Node], port: u16, application: SocketAddr) -> Self {
        let nodes: Vec<&str> = nodes.iter().map(|n| authority(&n.http)).collect();
        let exchanges = [
            ("id.example.org {", format!("http://{ID_HOST}:{port} {{")),
            ("app.example.org {", format!("http://{HOST}:{port} {{")),
            ("10.0.0.1:9000 10.0.0.2:9000 10.0.0.3:9000", nodes.join(" ")),
            ("10.0.0.20:8080", application.to_string()),
        ];
        let config = CADDY_AROUND.replace("@SHIPPED@", &shipped("Caddyfile", &exchanges));
        Self::start(port, "caddy", &config, |file| {
            ["run", "--adapter", "caddyfile", "--config"]
                .map(str::to_owned)
                .into_iter()
                .chain([file.display().to_string()])
                .collect()
        })
        .await
    }

    pub(super) async fn haproxy(nodes: &[Node], port: u16, application: SocketAddr) -> Self {
        let script = deployed("conclave.lua").replace("127.0.0.1:9090", &format!("127.0.0.1:{}", port + 50));
        let script_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script_file.path(), script).unwrap();
        let mut exchanges = example(nodes, application);
        exchanges.extend([
            ("bind :443 ssl crt /etc/haproxy/certs/", format!("bind 127.0.0.1:{port}")),
            ("127.0.0.1:9090", format!("127.0.0.1:{}", port + 50)),
            ("/etc/haproxy/conclave.lua", script_file.path().display().to_string()),
        ]);
        let config = shipped("haproxy.cfg", &exchanges);
        Self::start(port, "haproxy", &config, |file| {
            vec!["-db".into(), "-f".into(), file.display().to_string()]
        })
        .await
    }

    pub(super) async fn envoy(nodes: &[Node], port: u16, application: SocketAddr) -> Self {
        Self::envoy_with("envoy.yaml", nodes, port, application).await
    }

    pub(super) async fn envoy_with(file: &str, nodes: &[Node], port: u16, application: SocketAddr) -> Self {
        let config = shipped_envoy(file, nodes, port, application);
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proxies/venv/bin/envoy");
        let base = u32::from(port).to_string();
        Self::start(port, &program.display().to_string(), &config, |file| {
            ["--disable-hot-restart", "--concurrency", "1", "--base-id", &base, "--config-path"]
                .map(str::to_owned)
                .into_iter()
                .chain([file.display().to_string()])
                .collect()
        })
        .await
    }

    pub(super) async fn traefik(nodes: &[Node], port: u16, application: SocketAddr) -> Self {
        let mut exchanges = example(nodes, application);
        exchanges.push(("127.0.0.1:9090", format!("127.0.0.1:{}", port + 50)));
        let text = shipped("traefik.yml", &exchanges);
        let text =
            text.lines().filter(|line| line.trim() != "tls: {}").fold(String::new(), |t, l| t + l + "\n");
        let dynamic = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
        std::fs::write(dynamic.path(), text).unwrap();
        let config = TRAEFIK_AROUND
            .replace("@PORT@", &port.to_string())
            .replace("@CHECKS@", &(port + 50).to_string())
            .replace("@SHIPPED@", &dynamic.path().display().to_string());
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proxies/venv/bin/traefik");
        let proxy = Self::start(port, &program.display().to_string(), &config, |file| {
            vec!["--configfile".into(), file.display().to_string()]
        })
        .await;
        // It listens before it has read its routes.
        let deadline = Instant::now() + Duration::from_secs(30);
        let live = format!("http://{ID_HOST}:{port}/healthz/live");
        while proxy.browser().get(&live).send().await.is_ok_and(|reply| reply.status() != 200) {
            assert!(Instant::now() < deadline, "traefik has no routes");
            tokio::task::yield_now().await;
        }
        proxy
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{HOST}:{}{path}", self.port)
    }

    /// A browser that resolves the application's host to this proxy.
    pub(super) fn browser(&self) -> reqwest::Client {
        self.browser_with(Arc::default())
    }

    /// Like `browser`, with these cookies.
    pub(super) fn browser_with(&self, cookies: Arc<reqwest::cookie::Jar>) -> reqwest::Client {
        reqwest::Client::builder()
            .cookie_provider(cookies)
            .redirect(reqwest::redirect::Policy::none())
            .resolve(HOST, ([127, 0, 0, 1], self.port).into())
            .resolve(ID_HOST, ([127, 0, 0, 1], self.port).into())
            .timeout(Duration::from_secs(15))
            .build()
            .unwrap()
    }
}

/// The output of nginx when it tests the shipped file.
pub(super) fn nginx_test(nodes: &[Node], port: u16, application: SocketAddr) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nginx.conf");
    let config = nginx_config(nodes, port, application).replace("@DIR@", &dir.path().display().to_string());
    std::fs::write(&file, config).unwrap();
    let output = Command::new("nginx").arg("-t").arg("-c").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn nginx_config(nodes: &[Node], port: u16, application: SocketAddr) -> String {
    let mut exchanges = example(nodes, application);
    exchanges.push(("listen 443 ssl;", format!("listen 127.0.0.1:{port};")));
    NGINX_AROUND.replace("@SHIPPED@", &shipped("nginx.conf", &exchanges))
}

fn authority(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

/// The rest of an nginx that runs without root; the file we ship is for its `http` block.
const NGINX_AROUND: &str = "\
pid @DIR@/pid; error_log @DIR@/error.log;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path @DIR@/b; proxy_temp_path @DIR@/p; fastcgi_temp_path @DIR@/f;
  uwsgi_temp_path @DIR@/u; scgi_temp_path @DIR@/s;
  @SHIPPED@
}
";

const CADDY_AROUND: &str = "{\n  admin off\n  auto_https off\n}\n@SHIPPED@";

/// The static configuration, as the head of traefik.yml describes it.
const TRAEFIK_AROUND: &str = "\
entryPoints:
  websecure:
    address: \"127.0.0.1:@PORT@\"
    http: { aliasHeadersStrategy: delete }
  conclave:
    address: \"127.0.0.1:@CHECKS@\"
    forwardedHeaders: { trustedIPs: [\"127.0.0.1/32\"] }
providers: { file: { filename: \"@SHIPPED@\" } }
global: { checkNewVersion: false, sendAnonymousUsage: false }
";

/// The shipped file with the lines for a policy's extra header, which are comments in it.
fn deployed(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/proxies").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    // Over gRPC the response names all headers.
    assert!(text.contains(" extra: ") || file == "envoy-grpc.yaml", "{file} has no place for extra headers");
    text.replace("# extra: ", "").replace("-- extra: ", "")
}

/// The names and addresses of the example, with those of this test.
fn example(nodes: &[Node], application: SocketAddr) -> Vec<(&'static str, String)> {
    let mut exchanges = vec![
        ("id.example.org", ID_HOST.to_owned()),
        ("app.example.org", HOST.to_owned()),
        ("10.0.0.20:8080", application.to_string()),
    ];
    let nodes = nodes.iter().map(|n| authority(&n.http).to_owned());
    exchanges.extend(["10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.3:9000"].into_iter().zip(nodes));
    exchanges
}

/// Envoy's file has addresses and ports in separate fields, and TLS in separate lines.
fn shipped_envoy(file: &str, nodes: &[Node], port: u16, application: SocketAddr) -> String {
    let text = deployed(file);
    let (head, rest) = text.split_once("        - transport_socket:").unwrap();
    let (_, rest) = rest.split_once("          filters:").unwrap();
    let mut text = format!("{head}        - filters:{rest}");
    let one = |address: &str, port: u16| format!("address: {address}, port_value: {port} ");
    let mut exchanges = vec![
        (one("0.0.0.0", 443), one("127.0.0.1", port)),
        (one("10.0.0.20", 8080), one("127.0.0.1", application.port())),
        ("\"id.example.org\"".to_owned(), format!("\"{ID_HOST}:{port}\"")),
        ("\"app.example.org\"".to_owned(), format!("\"{HOST}:{port}\"")),
    ];
    for (n, node) in nodes.iter().enumerate() {
        let (example, port) =
            (format!("10.0.0.{}", n + 1), authority(&node.http).parse::<SocketAddr>().unwrap().port());
        exchanges.push((one(&example, 9000), one("127.0.0.1", port)));
        if file == "envoy-grpc.yaml" {
            // The demo's listeners for Envoy, and the listeners for readiness.
            let from = format!("{}}} }}, health_check_config: {{ port_value: 9000 }}", one(&example, 9002));
            let to = format!(
                "{}}} }}, health_check_config: {{ port_value: {port} }}",
                one("127.0.0.1", port + 30)
            );
            exchanges.push((from, to));
        }
    }
    if file == "envoy.yaml" {
        let proto = |scheme: &str| format!("key: x-forwarded-proto, value: {scheme}");
        exchanges.push((proto("https"), proto("http")));
    }
    for (from, to) in exchanges {
        assert!(text.contains(&from), "{file} has no {from} any more");
        text = text.replace(&from, &to);
    }
    text
}

/// A file of `deploy/proxies`, with this test's names and addresses in place of the example's.
fn shipped(file: &str, example_to_test: &[(&str, String)]) -> String {
    let text = deployed(file);
    let text: String =
        text.lines().filter(|l| !l.contains("ssl_certificate")).fold(String::new(), |t, l| t + l + "\n");
    let exchanged = example_to_test.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{file} has no {from} any more");
        text.replace(from, to)
    });
    assert!(!exchanged.contains("10.0.0.") && !exchanged.contains("example.org {"), "{exchanged}");
    exchanged
}

/// Follows redirects to a page and reads it; returns the last URL as well.
async fn follow(browser: &reqwest::Client, mut url: String) -> (String, reqwest::Response) {
    for _ in 0..10 {
        let reply = browser.get(&url).header("accept", "text/html").send().await.unwrap();
        if !reply.status().is_redirection() {
            return (url, reply);
        }
        url = url::Url::parse(&url).unwrap().join(&location(&reply)).unwrap().to_string();
    }
    panic!("a redirect loop at {url}");
}

/// Opens a page of the application, signs in when asked, and returns the end of the redirects.
pub(super) async fn open_and_sign_in(
    demo: &Demo,
    browser: &reqwest::Client,
    url: &str,
    user: &str,
    password: &str,
) -> (String, reqwest::Response) {
    let (at, reply) = follow(browser, url.to_owned()).await;
    assert!(
        at.starts_with(&format!("{}/login?", demo.cluster.front)),
        "not sent to sign in but to {at}: {}",
        reply.status()
    );
    let page = reply.text().await.unwrap();
    let form = [
        ("ticket", field(&page, "ticket")),
        ("csrf", field(&page, "csrf")),
        ("username", user.to_owned()),
        ("password", password.to_owned()),
    ];
    let reply = browser.post(format!("{}/login", demo.cluster.front)).form(&form).send().await.unwrap();
    if !reply.status().is_redirection() {
        return (at, reply);
    }
    follow(browser, location(&reply)).await
}

pub(super) async fn create_guest(demo: &Demo) {
    let channel = tonic::transport::Endpoint::from_shared(demo.cluster.nodes[0].api.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let command =
        CreateUserRequest { username: "guest".into(), password: PASSWORD.into(), ..Default::default() };
    let mut request = tonic::Request::new(command);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {}", demo.cluster.admin.token).parse().unwrap());
    UserServiceClient::new(channel).create_user(request).await.unwrap();
}

/// Sets a policy for members only, with a row of a group and an expression; a public path; and an extra header.
pub(super) fn set_policy(demo: &Demo) {
    let policy = r#"{"row": [{"effect": "allow", "group": "admins", "expression": "size(user.groups) > 0 && request.host.endsWith('localhost')"}],
                     "public": [{"path": ["/public/*"]}],
                     "header": [{"name": "x-webauth-role", "expression": "'admins' in user.groups ? 'Admin' : 'Viewer'"}]}"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), policy).unwrap();
    command(demo, &["policy", "set", "--force", "demo-app", file.path().to_str().unwrap()]);
}

/// Runs `conclave …` as the demo's administrator.
pub(super) fn command(demo: &Demo, args: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    command
        .args(args)
        .env("CONCLAVE_API", &demo.cluster.nodes[0].api)
        .env("CONCLAVE_TOKEN", &demo.cluster.admin.token);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A public path is open to every client, in its canonical form and for read methods only, and does not open any other
/// path.
async fn the_public_folder_is_open_and_no_way_in(proxy: &Proxy, seen: &Seen) {
    let stranger = proxy.browser();
    let reply =
        stranger.get(proxy.url("/public/page?x=1")).header("Remote-User", "root").send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let (uri, headers) = seen.lock().unwrap().take().expect("the request reached the application");
    assert_eq!(uri, "/public/page?x=1");
    let names = headers.get("remote-user").into_iter().flatten().filter(|name| !name.is_empty());
    assert_eq!(names.count(), 0, "no user is signed in: {headers:?}");
    for closed in [
        "/publicx",
        "/private?x=/public/page",
        "/public/..%2fprivate",
        "/public/%252e%252e/private",
        "/public//page",
        "/public/page;x=1",
        "/PUBLIC/page",
    ] {
        let reply = stranger.get(proxy.url(closed)).send().await.unwrap();
        if closed == "/public//page" && reply.status().is_success() {
            // Traefik merges two slashes into one, before it sends the check and before it passes the request on.
            let (uri, _) = seen.lock().unwrap().take().expect("the request reached the application");
            assert_eq!(uri, "/public/page", "decided on one path, and passed on another");
            continue;
        }
        assert!(!reply.status().is_success(), "{closed}: {}", reply.status());
        assert!(seen.lock().unwrap().take().is_none(), "{closed} reached the application");
    }
    let reply = stranger.post(proxy.url("/public/page")).send().await.unwrap();
    assert!(!reply.status().is_success(), "a POST: {}", reply.status());
    assert!(seen.lock().unwrap().take().is_none());
}

async fn the_whole_story(demo: &Demo, proxy: &Proxy, seen: &Seen) {
    let admin = &demo.cluster.admin;
    let url = proxy.url("/deep/page?q=1&r=a%20b");
    let person = proxy.browser();
    let (at, reply) = open_and_sign_in(demo, &person, &url, &admin.username, &admin.password).await;
    assert_eq!((at.as_str(), reply.status().as_u16()), (url.as_str(), 200), "back to the exact URL");
    let (uri, headers) = seen.lock().unwrap().take().expect("the request reached the application");
    assert_eq!(uri, "/deep/page?q=1&r=a%20b");
    assert_eq!(headers.get("remote-user"), Some(&vec!["admin".to_owned()]), "{headers:?}");
    assert_eq!(headers["remote-groups"], ["admins"]);

    made_up_names_never_arrive(&person, proxy, seen).await;
    the_check_is_for_the_proxy_alone(&person, proxy).await;
    strangers_stay_outside(proxy, seen).await;
    the_public_folder_is_open_and_no_way_in(proxy, seen).await;
    who_is_no_member_is_told_so(demo, proxy, seen).await;

    // Signing out on any node is effective here: the next request is redirected to the login page.
    let reply = person.get(format!("{}/logout", demo.cluster.front)).send().await.unwrap();
    let form = [("csrf", field(&reply.text().await.unwrap(), "csrf"))];
    person.post(format!("{}/logout", demo.cluster.front)).form(&form).send().await.unwrap();
    let reply = person.get(&url).header("accept", "text/html").send().await.unwrap();
    assert!(reply.status().is_redirection(), "still let in after signing out: {}", reply.status());
}

/// Spellings in which a client may forge an identity header.
const SPOOFED: [&str; 13] = [
    "Remote-User",
    "remote-user",
    "REMOTE-USER",
    "Remote_User",
    "Remote.User",
    "Remote-Groups",
    "Remote-Email",
    "X-authentik-username",
    "X_authentik_username",
    "X.authentik.username",
    "x-Authentik_username",
    "X-Auth-Request-User",
    "X-Auth-Request-Groups",
];

/// A signed-in user forges names: the application receives the true ones, once.
async fn made_up_names_never_arrive(person: &reqwest::Client, proxy: &Proxy, seen: &Seen) {
    for spoofed in SPOOFED {
        let request = person.get(proxy.url("/")).header(spoofed, "root").header(spoofed, "wheel");
        let reply = request.send().await.unwrap();
        if reply.status() == 400 && spoofed.contains('_') {
            // Refused on entry, as Envoy's file configures it.
            assert!(seen.lock().unwrap().is_none());
            continue;
        }
        assert_eq!(reply.status(), 200, "{spoofed}");
        let (_, headers) = seen.lock().unwrap().take().unwrap();
        let forged =
            headers.values().flatten().any(|value| value.contains("root") || value.contains("wheel"));
        assert!(!forged, "{spoofed} arrived: {headers:?}");
        for (name, value) in
            [("remote-user", "admin"), ("remote-groups", "admins"), ("x-authentik-username", "admin")]
        {
            assert_eq!(headers.get(name), Some(&vec![value.to_owned()]), "{headers:?}");
        }
    }
}

async fn the_check_is_for_the_proxy_alone(person: &reqwest::Client, proxy: &Proxy) {
    let at = |path: &str| format!("http://{ID_HOST}:{}{path}", proxy.port);
    for path in [
        "/auth/nginx",
        "/auth/caddy",
        "/auth/traefik",
        "/auth/haproxy",
        "/auth/envoy/",
        "/outpost.goauthentik.io/auth/nginx",
    ] {
        let request = person.get(at(path)).header("X-Original-URL", proxy.url("/"));
        let reply = request.header("X-Original-Method", "GET").send().await.unwrap();
        assert_eq!(reply.status(), 404, "{path} answers to the outside");
    }
    let reply = person.get(at("/healthz/live")).send().await.unwrap();
    assert_eq!(reply.status(), 200, "the cluster's own site is behind the same proxy");
}

/// A visitor who forges names stays a visitor, and a forged target of the request does not choose the decision.
async fn strangers_stay_outside(proxy: &Proxy, seen: &Seen) {
    let stranger = proxy.browser();
    let request = stranger.get(proxy.url("/")).header("Remote-User", "admin");
    let reply = request.header("accept", "text/html").send().await.unwrap();
    assert!(reply.status().is_redirection());
    let request = stranger.get(proxy.url("/")).header("X-Forwarded-Uri", "/public");
    let reply = request.header("X-Original-URL", "http://x/").send().await.unwrap();
    assert!(!reply.status().is_success());
    // Programs receive 401, not a redirect.
    for (name, value) in [("x-requested-with", "XMLHttpRequest"), ("sec-fetch-mode", "cors")] {
        let reply = stranger.get(proxy.url("/")).header(name, value).send().await.unwrap();
        assert_eq!(reply.status(), 401, "{name}");
    }
    assert!(seen.lock().unwrap().is_none());
}

async fn who_is_no_member_is_told_so(demo: &Demo, proxy: &Proxy, seen: &Seen) {
    let guest = proxy.browser();
    let (_, reply) = open_and_sign_in(demo, &guest, &proxy.url("/"), "guest", PASSWORD).await;
    assert_eq!(reply.status(), 403);
    let page = reply.text().await.unwrap();
    assert!(
        page.contains("id=\"forbidden\"") && page.contains("guest") && page.contains("Demo application"),
        "{page}"
    );
    assert!(seen.lock().unwrap().is_none(), "only members reached the application");
}

/// Sends checks through the proxy, one after another, until `over` is set; returns their number and the failures.
async fn checks_until(
    person: reqwest::Client,
    url: String,
    over: Arc<std::sync::atomic::AtomicBool>,
) -> (usize, Vec<String>) {
    let (mut asked, mut failed) = (0, Vec::new());
    while !over.load(std::sync::atomic::Ordering::Relaxed) {
        asked += 1;
        match person.get(&url).header("accept", "text/html").send().await {
            Ok(reply) if reply.status() == 200 => {}
            Ok(reply) => failed.push(reply.status().to_string()),
            Err(error) => failed.push(error.to_string()),
        }
    }
    (asked, failed)
}

/// A follower dies, then the leader, during checks. No signed-in user is affected.
async fn nodes_die_and_nobody_is_turned_away(demo: &Demo, proxy: &Proxy) {
    let (asked, failed) = nodes_die(demo, proxy).await;
    assert!(asked > 20 && failed.is_empty(), "{} of {asked} checks failed: {failed:?}", failed.len());
}

/// Returns the number of checks meanwhile, and the failures.
async fn nodes_die(demo: &Demo, proxy: &Proxy) -> (usize, Vec<String>) {
    let admin = &demo.cluster.admin;
    let person = proxy.browser();
    let url = proxy.url("/");
    let (_, reply) = open_and_sign_in(demo, &person, &url, &admin.username, &admin.password).await;
    assert_eq!(reply.status(), 200);
    let over = Arc::default();
    let checking = tokio::spawn(checks_until(person, url, Arc::clone(&over)));
    for leads in [false, true] {
        let leader = demo.leader().await.expect("a leader");
        let victim =
            demo.cluster.nodes.iter().map(|node| node.id).find(|id| (*id == leader) == leads).unwrap();
        let pid = demo.pid_of(victim).expect("it runs");
        kill_9(pid);
        while demo.pid_of(victim).is_none_or(|now| now == pid) {
            tokio::task::yield_now().await;
        }
        demo.all_ready().await;
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    let (asked, failed) = checking.await.unwrap();
    println!("{asked} checks while a follower and the leader were killed, {} failed", failed.len());
    (asked, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_and_caddy_protect_an_application() {
    let demo = Demo::start(&["--restart"]);
    create_guest(&demo).await;
    set_policy(&demo);
    let (addr, seen) = application().await;
    let nginx = Proxy::nginx(&demo.cluster.nodes, demo.own_port(0), addr).await;
    the_whole_story(&demo, &nginx, &seen).await;
    nodes_die_and_nobody_is_turned_away(&demo, &nginx).await;
    let caddy = Proxy::caddy(&demo.cluster.nodes, demo.own_port(1), addr).await;
    the_whole_story(&demo, &caddy, &seen).await;
    nodes_die_and_nobody_is_turned_away(&demo, &caddy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefik_protects_an_application() {
    let demo = Demo::start(&["--restart"]);
    create_guest(&demo).await;
    set_policy(&demo);
    let (addr, seen) = application().await;
    let traefik = Proxy::traefik(&demo.cluster.nodes, demo.own_port(0), addr).await;
    the_whole_story(&demo, &traefik, &seen).await;
    // Traefik sends no request twice: a request in progress at a dying node gets 502, and no later request fails.
    let (asked, failed) = nodes_die(&demo, &traefik).await;
    assert!(asked > 20 && failed.len() <= 2, "{} of {asked} checks failed: {failed:?}", failed.len());
    assert!(failed.iter().all(|status| status == "502 Bad Gateway"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_and_envoy_protect_an_application() {
    let demo = Demo::start(&["--restart"]);
    create_guest(&demo).await;
    set_policy(&demo);
    let (addr, seen) = application().await;
    let haproxy = Proxy::haproxy(&demo.cluster.nodes, demo.own_port(0), addr).await;
    the_whole_story(&demo, &haproxy, &seen).await;
    nodes_die_and_nobody_is_turned_away(&demo, &haproxy).await;
    let envoy = Proxy::envoy(&demo.cluster.nodes, demo.own_port(1), addr).await;
    the_whole_story(&demo, &envoy, &seen).await;
    nodes_die_and_nobody_is_turned_away(&demo, &envoy).await;
    let envoy = Proxy::envoy_with("envoy-grpc.yaml", &demo.cluster.nodes, demo.own_port(2), addr).await;
    the_whole_story(&demo, &envoy, &seen).await;
    nodes_die_and_nobody_is_turned_away(&demo, &envoy).await;
}
