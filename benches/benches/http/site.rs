//! The HTTP side of one node, wired as `boot` does it, on a real socket, with a user whose password has the hashing
//! cost of production.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use axum::{Router, routing::get};
use conclave_cluster::Cluster;
use conclave_crypto::password::{Cost, PasswordCheck, PasswordPool, PlaintextPassword};
use conclave_http::{Dispatcher, Edge, EdgeConfig, HttpListener, edge::REQUEST_TIMEOUT};
use conclave_node::{boot, testing::TestNode};
use conclave_proto::command::v1::{Access, CreateApplication, CreateUser, command::Body as Order};
use conclave_web::Pages;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub(crate) const PASSWORD: &str = "correct horse battery";
const USER: &str = "ada";
const APP: &str = "app.test";

pub(crate) struct BenchSite {
    node: TestNode,
    address: std::net::SocketAddr,
    passwords: PasswordPool,
    phc: String,
    stop: CancellationToken,
}

/// One connection and its cookies.
pub(crate) struct BenchBrowser {
    sender: SendRequest<Full<Bytes>>,
    pub cookies: BTreeMap<String, String>,
}

pub(crate) struct BenchPage {
    pub status: u16,
    location: String,
    pub text: String,
}

impl BenchSite {
    /// The cluster handle of the node.
    pub(crate) fn cluster(&self) -> &Cluster {
        self.node.cluster()
    }

    /// A site with `ada` and an OWASP hash, an application for every user on `app.test`, and `/bare` outside the
    /// product.
    pub(crate) async fn open() -> Self {
        let node = TestNode::start().await;
        let passwords = PasswordPool::start(NonZeroUsize::MIN, Cost::OWASP).expect("a thread");
        let password = PlaintextPassword::new(PASSWORD).expect("a short password");
        let phc = passwords.hash(password, node.bytes()).await.expect("a hash");
        let orders = [
            Order::CreateUser(CreateUser {
                user_id: node.bytes::<16>().to_vec(),
                username: USER.into(),
                password_phc: phc.clone(),
                ..Default::default()
            }),
            Order::CreateApplication(CreateApplication {
                serve_known_for_ms: 0,
                application_id: node.bytes::<16>().to_vec(),
                slug: "app".into(),
                name: "The App".into(),
                hosts: vec![APP.into()],
                access: Some(Access { everyone: true, group_ids: Vec::new() }),
                ..Default::default()
            }),
        ];
        for command in orders {
            node.propose(command).await.expect("taken");
        }
        node.auth().clone().ensure_signing_keys(None).await;
        let edge = Edge::new(EdgeConfig {
            entropy: Arc::clone(&node.runtime().entropy),
            trusted_proxies: vec!["127.0.0.1".parse().expect("an address")],
            max_body_bytes: 64 * 1024,
            request_timeout: REQUEST_TIMEOUT,
            error_page: Arc::new(|fault, _| fault.detail.clone()),
        });
        let slices = boot::slices(node.auth(), Pages::new(None));
        // The bare handler is outside the edge, on this listener: the router is the only part in common.
        let router =
            Router::new().route("/bare", get(async || ())).fallback_service(edge.around(slices.router));
        let front = Dispatcher::new(edge, router, Arc::new(slices.fast_path));
        let listener = HttpListener::bind("bench", ([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        tokio::spawn(listener.serve(front, stop.clone()));
        Self { node, address, passwords, phc, stop }
    }

    pub(crate) async fn browser(&self) -> BenchBrowser {
        let stream = TcpStream::connect(self.address).await.expect("the listener");
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        BenchBrowser { sender, cookies: BTreeMap::new() }
    }

    /// One verification by the product's pool.
    pub(crate) async fn verify(&self, password: &str) {
        let password = PlaintextPassword::new(password).expect("a short password");
        let verdict = self.passwords.verify(password, Some(&self.phc)).await.expect("a verdict");
        assert!(matches!(verdict, PasswordCheck::Match { .. }));
    }

    /// The headers that a proxy sends for a visitor who has signed in.
    pub(crate) async fn check_headers(&self) -> Vec<(&'static str, String)> {
        let mut headers: Vec<(&str, String)> = vec![
            ("x-forwarded-method", "GET".into()),
            ("x-forwarded-proto", "https".into()),
            ("x-forwarded-host", APP.into()),
            ("x-forwarded-uri", "/page?q=1".into()),
            ("x-forwarded-for", "203.0.113.9".into()),
            ("accept", "text/html".into()),
        ];
        let (mut at_app, mut at_home) = (self.browser().await, self.browser().await);
        let denied = at_app.get("/auth/traefik", &headers).await;
        let start = at_app.get(&path_of(&denied.location), &[]).await;
        let login = at_home.get(&path_of(&start.location), &[]).await;
        let signed_in = at_home.fill_in(&login).await;
        at_app.get(&path_of(&signed_in.location), &[]).await;
        headers.push(("cookie", at_app.cookie_header()));
        headers
    }
}

impl Drop for BenchSite {
    fn drop(&mut self) {
        self.stop.cancel();
        // The node stops itself; named so that it lives as long as the listener.
        let _ = &self.node;
    }
}

impl BenchBrowser {
    pub(crate) async fn get(&mut self, path: &str, headers: &[(&'static str, String)]) -> BenchPage {
        let mut request = Request::get(path).header("host", "127.0.0.1:9000");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if !self.cookies.is_empty() {
            request = request.header("cookie", self.cookie_header());
        }
        self.send(request.body(Full::default()).expect("a request")).await
    }

    /// A complete sign-in in a fresh browser: the page, the form, the session.
    pub(crate) async fn sign_in(&mut self) {
        self.cookies.clear();
        let page = self.get("/login", &[]).await;
        let page = self.fill_in(&page).await;
        assert_eq!(page.status, 303, "{}", page.text);
    }

    async fn fill_in(&mut self, page: &BenchPage) -> BenchPage {
        let form = [
            ("ticket", page.field("ticket")),
            ("csrf", page.field("csrf")),
            ("username", USER),
            ("password", PASSWORD),
        ];
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = Request::post("/login")
            .header("host", "127.0.0.1:9000")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("cookie", self.cookie_header());
        self.send(request.body(Full::from(body)).expect("a request")).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> BenchPage {
        self.sender.ready().await.expect("a kept connection");
        let reply = self.sender.send_request(request).await.expect("an answer");
        for cookie in reply.headers().get_all("set-cookie") {
            let pair = cookie.to_str().ok().and_then(|text| text.split(';').next()?.split_once('='));
            let (name, value) = pair.expect("name=value");
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        let location = reply.headers().get("location").and_then(|value| value.to_str().ok());
        let (status, location) = (reply.status().as_u16(), location.unwrap_or_default().to_owned());
        let body = reply.into_body().collect().await.expect("a body").to_bytes();
        BenchPage { status, location, text: String::from_utf8_lossy(&body).into_owned() }
    }

    fn cookie_header(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }
}

impl BenchPage {
    fn field(&self, name: &str) -> &str {
        let rest = self.text.split_once(&format!("name=\"{name}\" value=\"")).map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split('"').next()).expect("the form's field")
    }
}

fn path_of(url: &str) -> String {
    let url = url::Url::parse(url).expect("an absolute URL");
    url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()))
}
