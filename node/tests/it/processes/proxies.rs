//! nginx and Caddy, as Debian ships them, in front of an application: sign-in and back to the exact URL, the wrong group, and
//! identity headers that a client made up.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::http::HeaderMap;
use conclave_proto::admin::v1::{CreateUserRequest, user_service_client::UserServiceClient};

use super::world::{Demo, field, location};

const HOST: &str = "app.localhost";
const PASSWORD: &str = "guest password 1";

type Seen = Arc<Mutex<Option<(String, BTreeMap<String, Vec<String>>)>>>;

/// An application that remembers the last request that reached it.
async fn application() -> (SocketAddr, Seen) {
    let seen: Seen = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let remember = Arc::clone(&seen);
    let router = axum::Router::new().fallback(async move |uri: axum::http::Uri, headers: HeaderMap| {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &headers {
            all.entry(name.to_string())
                .or_default()
                .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
        }
        *remember.lock().unwrap() = Some((uri.to_string(), all));
        "the application"
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (addr, seen)
}

/// A proxy process, ended when dropped.
struct Proxy {
    child: Child,
    port: u16,
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
        let file = dir.path().join("config");
        std::fs::write(&file, config.replace("@DIR@", &dir.path().display().to_string())).unwrap();
        let child = Command::new(program)
            .args(args(&file))
            .env("HOME", dir.path())
            .env("XDG_DATA_HOME", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{program} cannot be started ({e}); `make test` installs it"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < deadline, "{program} does not listen");
            tokio::task::yield_now().await;
        }
        Self { child, port, _dir: dir }
    }

    async fn nginx(demo: &Demo, port: u16, application: SocketAddr) -> Self {
        let servers: Vec<String> =
            demo.cluster.nodes.iter().map(|n| format!("server {};", authority(&n.http))).collect();
        let nodes = servers.concat();
        let config = NGINX
            .replace("@NODES@", &nodes)
            .replace("@PORT@", &port.to_string())
            .replace("@APP@", &application.to_string());
        Self::start(port, "nginx", &config, |file| {
            vec![
                "-c".into(),
                file.display().to_string(),
                "-g".into(),
                "daemon off; master_process off;".into(),
            ]
        })
        .await
    }

    async fn caddy(demo: &Demo, port: u16, application: SocketAddr) -> Self {
        let nodes: Vec<&str> = demo.cluster.nodes.iter().map(|n| authority(&n.http)).collect();
        let config = CADDY
            .replace("@NODES@", &nodes.join(" "))
            .replace("@PORT@", &port.to_string())
            .replace("@APP@", &application.to_string());
        Self::start(port, "caddy", &config, |file| {
            ["run", "--adapter", "caddyfile", "--config"]
                .map(str::to_owned)
                .into_iter()
                .chain([file.display().to_string()])
                .collect()
        })
        .await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{HOST}:{}{path}", self.port)
    }

    /// A browser that finds the application's host at this proxy.
    fn browser(&self) -> reqwest::Client {
        reqwest::Client::builder()
            .cookie_store(true)
            .redirect(reqwest::redirect::Policy::none())
            .resolve(HOST, ([127, 0, 0, 1], self.port).into())
            .timeout(Duration::from_secs(15))
            .build()
            .unwrap()
    }
}

fn authority(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

const NGINX: &str = r#"
pid @DIR@/pid; error_log @DIR@/error.log;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path @DIR@/b; proxy_temp_path @DIR@/p; fastcgi_temp_path @DIR@/f; uwsgi_temp_path @DIR@/u; scgi_temp_path @DIR@/s;
  upstream conclave { @NODES@ }
  server {
    listen 127.0.0.1:@PORT@;
    location / {
      auth_request /conclave-check;
      auth_request_set $login $upstream_http_location;
      error_page 401 =302 $login;
      auth_request_set $user $upstream_http_remote_user;     proxy_set_header Remote-User $user;
      auth_request_set $groups $upstream_http_remote_groups; proxy_set_header Remote-Groups $groups;
      auth_request_set $email $upstream_http_remote_email;   proxy_set_header Remote-Email $email;
      auth_request_set $name $upstream_http_remote_name;     proxy_set_header Remote-Name $name;
      proxy_pass http://@APP@;
    }
    location = /conclave-check {
      internal;
      proxy_pass http://conclave/auth/nginx;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
      proxy_set_header X-Original-Method $request_method;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
    }
    location /.conclave/ {
      proxy_pass http://conclave;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header Idempotency-Key $request_id;
    }
  }
}
"#;

const CADDY: &str = r"
{
  admin off
  auto_https off
}
http://:@PORT@ {
  handle /.conclave/* {
    reverse_proxy @NODES@
  }
  route {
    request_header -Remote-*
    request_header -Remote_*
    forward_auth @NODES@ {
      uri /auth/caddy
      copy_headers Remote-User Remote-Groups Remote-Email Remote-Name
    }
    reverse_proxy @APP@
  }
}
";

/// Follows redirects to a page and reads it; the last URL with it.
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

/// Opens a page of the application, signs in when asked, and ends where the proxy leads.
async fn open_and_sign_in(
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

async fn create_guest(demo: &Demo) {
    let channel = tonic::transport::Endpoint::from_shared(demo.cluster.nodes[0].api.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let order =
        CreateUserRequest { username: "guest".into(), password: PASSWORD.into(), ..Default::default() };
    let mut request = tonic::Request::new(order);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {}", demo.cluster.admin.token).parse().unwrap());
    UserServiceClient::new(channel).create_user(request).await.unwrap();
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

    // A signed-in person makes names up: the application sees the true ones, once.
    for spoofed in
        ["Remote-User", "remote-user", "REMOTE-USER", "Remote-Groups", "Remote-Email", "Remote-Name"]
    {
        let reply =
            person.get(proxy.url("/")).header(spoofed, "root").header(spoofed, "wheel").send().await.unwrap();
        assert_eq!(reply.status(), 200);
        let (_, headers) = seen.lock().unwrap().take().unwrap();
        let forged = headers
            .iter()
            .any(|(name, values)| name.contains("remote") && values.iter().any(|v| v != true_value(name)));
        assert!(!forged, "{spoofed} arrived: {headers:?}");
    }
    // A stranger who makes names up is a stranger.
    let stranger = proxy.browser();
    let reply = stranger
        .get(proxy.url("/"))
        .header("Remote-User", "admin")
        .header("accept", "text/html")
        .send()
        .await
        .unwrap();
    assert!(reply.status().is_redirection() && seen.lock().unwrap().is_none());
    // And a stranger who says where the request went does not choose the decision.
    let reply = stranger
        .get(proxy.url("/"))
        .header("X-Forwarded-Uri", "/public")
        .header("X-Original-URL", "http://x/")
        .send()
        .await
        .unwrap();
    assert!(!reply.status().is_success() && seen.lock().unwrap().is_none());

    let guest = proxy.browser();
    let (_, reply) = open_and_sign_in(demo, &guest, &url, "guest", PASSWORD).await;
    assert_eq!(reply.status(), 403);
    let page = reply.text().await.unwrap();
    assert!(
        page.contains("id=\"forbidden\"") && page.contains("guest") && page.contains("Demo application"),
        "{page}"
    );
    assert!(seen.lock().unwrap().is_none(), "nobody but members reached the application");

    // Sign-out anywhere is sign-out here: the next request goes to the login page.
    let reply = person.get(format!("{}/logout", demo.cluster.front)).send().await.unwrap();
    let form = [("csrf", field(&reply.text().await.unwrap(), "csrf"))];
    person.post(format!("{}/logout", demo.cluster.front)).form(&form).send().await.unwrap();
    let reply = person.get(&url).header("accept", "text/html").send().await.unwrap();
    assert!(reply.status().is_redirection(), "still let in after signing out: {}", reply.status());
}

fn true_value(name: &str) -> &'static str {
    match name {
        "remote-user" => "admin",
        "remote-groups" => "admins",
        "remote-email" => "admin@example.test",
        "remote-name" => "Ada Admin",
        _ => "a header that must not arrive at all",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_and_caddy_protect_an_application() {
    let demo = Demo::start(21_600, &[]);
    create_guest(&demo).await;
    let (addr, seen) = application().await;
    let nginx = Proxy::nginx(&demo, 21_750, addr).await;
    the_whole_story(&demo, &nginx, &seen).await;
    let caddy = Proxy::caddy(&demo, 21_751, addr).await;
    the_whole_story(&demo, &caddy, &seen).await;
}
