//! The HTTP side of one node, wired as `boot` does it, and a browser that keeps cookies by hand.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::body::{Body, to_bytes};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_atproto::Reverifier;
use conclave_http::{Dispatcher, Edge, EdgeConfig, HttpPeer, edge::REQUEST_TIMEOUT};
use conclave_node::{
    boot::{self, Slices},
    testing::TestNode,
};
use conclave_proto::command::v1::{
    Access, ClientAuthMethod, ConsentMode, CreateApplication, CreateClient, RaiseLevel, SigningAlgorithm,
    UpdateClient, command::Body as Command,
};
use conclave_web::Pages;
use http::{HeaderMap, Request, StatusCode};
use sha2::{Digest as _, Sha256};

pub(crate) const REDIRECT_URI: &str = "https://rp.test/cb?kept=1";
pub(crate) const SECRET: &str = "a client secret";
pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// A node with users `ada` (in `staff`) and `bob`, the client `web` (basic), `spa` (public), `asks` (consent) and the
/// application on `app.test` for `staff`.
pub(crate) struct Site {
    pub node: TestNode,
    front: Dispatcher,
    /// Runs only when a test calls it.
    pub reverifier: Reverifier,
}

pub(crate) struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Page {
    async fn read(reply: axum::response::Response) -> Self {
        let (parts, body) = reply.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        Self {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    pub(crate) fn location(&self) -> String {
        let location = self
            .headers
            .get("location")
            .unwrap_or_else(|| panic!("{}: no Location: {}", self.status, self.text));
        location.to_str().unwrap().to_owned()
    }

    /// A parameter of the Location's query.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let url = url::Url::parse("http://127.0.0.1:9000").unwrap().join(&self.location()).unwrap();
        url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(crate) fn field(&self, name: &str) -> String {
        crate::processes::field(&self.text, name)
    }

    /// The address to which a page redirects by itself.
    pub(crate) fn refresh(&self) -> Option<String> {
        let (_, rest) = self.text.split_once("http-equiv=\"refresh\" content=\"0;url=")?;
        let url = rest.split('"').next()?;
        Some(url.replace("&#x2f;", "/").replace("&amp;", "&").replace("&#x3d;", "="))
    }

    /// The address of the link with this id.
    pub(crate) fn link(&self, id: &str) -> String {
        let tag = self
            .text
            .split("<a ")
            .find(|tag| tag.contains(&format!("id=\"{id}\"")))
            .unwrap_or_else(|| panic!("no link {id} in: {}", self.text));
        let (_, rest) = tag.split_once("href=\"").unwrap();
        rest.split('"').next().unwrap().replace("&#x2f;", "/").replace("&amp;", "&")
    }

    /// The text of the element with this id.
    pub(crate) fn shown(&self, id: &str) -> String {
        let marker = format!("id=\"{id}\"");
        let start = self.text.find(&marker).unwrap_or_else(|| panic!("no element {id} in: {}", self.text));
        let rest = &self.text[start..];
        rest[rest.find('>').unwrap() + 1..].split('<').next().unwrap().trim().to_owned()
    }
}

#[derive(Default)]
pub(crate) struct Browser {
    pub cookies: BTreeMap<String, String>,
}

pub(crate) fn digest(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

pub(crate) fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(digest(VERIFIER.as_bytes()))
}

impl Site {
    pub(crate) async fn open() -> Self {
        let site = Self::of(TestNode::start().await);
        site.seed().await;
        site
    }

    /// Creates the contents of a site; at any node of a cluster, once.
    pub(crate) async fn seed(&self) {
        let node = &self.node;
        node.create_user("ada", PASSWORD, &["staff"]).await;
        node.create_user("bob", PASSWORD, &[]).await;
        let staff = node.group("staff").await;
        node.propose(Command::CreateApplication(CreateApplication {
            application_id: node.bytes::<16>().to_vec(),
            slug: "app".into(),
            name: "The App".into(),
            hosts: vec!["app.test".into()],
            access: Some(Access { everyone: false, group_ids: vec![staff.to_vec()] }),
            ..Default::default()
        }))
        .await
        .unwrap();
        let app = node.cluster().view().application_by_slug("app").unwrap().id;
        for (id, method, consent, application) in [
            ("web", ClientAuthMethod::SecretBasic, ConsentMode::Implicit, Vec::new()),
            ("post", ClientAuthMethod::SecretPost, ConsentMode::Implicit, Vec::new()),
            ("spa", ClientAuthMethod::None, ConsentMode::Implicit, Vec::new()),
            ("asks", ClientAuthMethod::SecretBasic, ConsentMode::Always, Vec::new()),
            ("staff-only", ClientAuthMethod::SecretBasic, ConsentMode::Implicit, app.to_vec()),
        ] {
            let secret_hash =
                if method == ClientAuthMethod::None { Vec::new() } else { digest(SECRET.as_bytes()) };
            let command = CreateClient {
                client_id: id.into(),
                name: format!("Client {id}"),
                auth_method: method.into(),
                secret_hash,
                redirect_uris: vec![REDIRECT_URI.into()],
                post_logout_redirect_uris: vec!["https://rp.test/bye".into()],
                scopes: ["openid", "profile", "email", "groups", "offline_access"]
                    .map(str::to_owned)
                    .to_vec(),
                signing_algorithm: SigningAlgorithm::Es256.into(),
                consent: consent.into(),
                application_id: application,
                ..Default::default()
            };
            node.propose(Command::CreateClient(command)).await.unwrap();
        }
        // No leader task creates keys here: they are created once, by hand.
        node.auth().clone().ensure_signing_keys(None).await;
        self.raise_level().await;
    }

    /// Raises the feature level to that of this build, as a leader does about a second after its start.
    pub(crate) async fn raise_level(&self) {
        let level = conclave_state::level::SUPPORTED;
        if self.node.cluster().view().meta().level >= level {
            return;
        }
        self.node.propose(Command::RaiseLevel(RaiseLevel { level })).await.unwrap();
    }

    /// The HTTP side of a node that is empty, or one of several.
    pub(crate) fn of(node: TestNode) -> Self {
        let (front, reverifier) = Self::wired(&node);
        Self { node, front, reverifier }
    }

    /// Like a restart: the memory of the HTTP side is lost.
    pub(crate) fn renew(&mut self) {
        (self.front, self.reverifier) = Self::wired(&self.node);
    }

    fn wired(node: &TestNode) -> (Dispatcher, Reverifier) {
        let edge = Edge::new(EdgeConfig {
            entropy: Arc::clone(&node.runtime().entropy),
            trusted_proxies: vec!["10.0.0.1".parse().unwrap()],
            max_body_bytes: 64 * 1024,
            request_timeout: REQUEST_TIMEOUT,
            error_page: Arc::new(|fault, id| Pages::new(None).fault(fault, id)),
        });
        let Slices { router, fast_path, reverifier } = boot::slices(node.auth(), Pages::new(None));
        let front = Dispatcher::new(edge.clone(), edge.around(router), Arc::new(fast_path));
        (front, reverifier)
    }

    /// The HTTP side for a listener.
    pub(crate) fn front(&self) -> Dispatcher {
        self.front.clone()
    }

    pub(crate) async fn send(&self, from: &str, request: Request<Body>) -> Page {
        match self.send_short(from, &request).await {
            Some(page) => page,
            None => self.send_long(from, request).await,
        }
    }

    /// The response without the router, if there is one.
    pub(crate) async fn send_short(&self, from: &str, request: &Request<Body>) -> Option<Page> {
        Some(Page::read(self.front.at_once(request, from.parse().unwrap())?).await)
    }

    /// The response of the router, skipping the fast path.
    pub(crate) async fn send_long(&self, from: &str, request: Request<Body>) -> Page {
        let peer: SocketAddr = format!("{from}:40000").parse().unwrap();
        Page::read(self.front().route(request, HttpPeer::plain(peer)).await).await
    }

    pub(crate) async fn get(&self, browser: &mut Browser, path: &str) -> Page {
        let path = path.strip_prefix("http://127.0.0.1:9000").unwrap_or(path);
        let request = Request::get(path).header("cookie", browser.header()).body(Body::empty()).unwrap();
        browser.keep(self.send("192.0.2.1", request).await)
    }

    pub(crate) async fn post(&self, browser: &mut Browser, path: &str, form: &[(&str, &str)]) -> Page {
        let request = Request::post(path)
            .header("cookie", browser.header())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(encoded(form)))
            .unwrap();
        browser.keep(self.send("192.0.2.1", request).await)
    }

    /// Requests a page as a browser does.
    pub(crate) async fn visit(&self, browser: &mut Browser, path: &str) -> Page {
        let path = path.strip_prefix("http://127.0.0.1:9000").unwrap_or(path);
        let request =
            Request::get(path).header("cookie", browser.header()).header("accept", "text/html,*/*;q=0.8");
        browser.keep(self.send("192.0.2.1", request.body(Body::empty()).unwrap()).await)
    }

    /// Sends a form as a browser does.
    pub(crate) async fn submit(&self, browser: &mut Browser, path: &str, form: &[(&str, &str)]) -> Page {
        let request = Request::post(path)
            .header("cookie", browser.header())
            .header("accept", "text/html,*/*;q=0.8")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(encoded(form)))
            .unwrap();
        browser.keep(self.send("192.0.2.1", request).await)
    }

    /// The final page on this site after redirects, which is the response to a GET.
    pub(crate) async fn walk(&self, browser: &mut Browser, path: &str) -> Page {
        let mut page = self.visit(browser, path).await;
        for _ in 0..8 {
            if !page.status.is_redirection() || page.location().starts_with("https://") {
                break;
            }
            let next = page.location();
            page = self.visit(browser, &next).await;
        }
        page
    }

    /// Fills in the login form at `path` and sends it as a browser does.
    pub(crate) async fn send_login(
        &self,
        browser: &mut Browser,
        path: &str,
        username: &str,
        password: &str,
    ) -> Page {
        let page = self.walk(browser, path).await;
        let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
        let form =
            [("ticket", ticket.as_str()), ("csrf", &csrf), ("username", username), ("password", password)];
        self.submit(browser, "/login", &form).await
    }

    /// Opens a URL that leads to the login page, fills it in and sends it.
    pub(crate) async fn sign_in_at(
        &self,
        browser: &mut Browser,
        path: &str,
        username: &str,
        password: &str,
    ) -> Page {
        let mut page = self.get(browser, path).await;
        while page.status.is_redirection() {
            let next = page.location();
            page = self.get(browser, &next).await;
        }
        assert_eq!(page.status, 200, "{}", page.text);
        let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
        let form =
            [("ticket", ticket.as_str()), ("csrf", &csrf), ("username", username), ("password", password)];
        self.post(browser, "/login", &form).await
    }

    pub(crate) fn authorize_url(client: &str, more: &[(&str, &str)]) -> String {
        let challenge = challenge();
        let mut pairs = vec![
            ("response_type", "code"),
            ("client_id", client),
            ("redirect_uri", REDIRECT_URI),
            ("scope", "openid profile email groups"),
            ("state", "s t"),
            ("nonce", "n"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        for (name, value) in more {
            pairs.retain(|(known, _)| known != name);
            if !value.is_empty() {
                pairs.push((name, value));
            }
        }
        format!("/oidc/authorize?{}", encoded(&pairs))
    }

    /// A code for this client, from a login of ada in a new browser.
    pub(crate) async fn code(&self, client: &str, more: &[(&str, &str)]) -> String {
        let page = self
            .sign_in_at(&mut Browser::default(), &Self::authorize_url(client, more), "ada", PASSWORD)
            .await;
        page.parameter("code").unwrap_or_else(|| panic!("{}: {}", page.status, page.location()))
    }

    pub(crate) async fn token(&self, basic: Option<(&str, &str)>, form: &[(&str, &str)]) -> Page {
        self.token_with(basic, form, None).await
    }

    pub(crate) async fn token_with(
        &self,
        basic: Option<(&str, &str)>,
        form: &[(&str, &str)],
        key: Option<&str>,
    ) -> Page {
        let mut request =
            Request::post("/oidc/token").header("content-type", "application/x-www-form-urlencoded");
        if let Some((id, secret)) = basic {
            let credentials =
                base64::engine::general_purpose::STANDARD.encode(format!("{id}:{}", encoded_one(secret)));
            request = request.header("authorization", format!("Basic {credentials}"));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send("192.0.2.1", request.body(Body::from(encoded(form))).unwrap()).await
    }

    /// A form that a client posts from its own machine.
    pub(crate) async fn client_post(&self, path: &str, basic: Option<&str>, form: &[(&str, &str)]) -> Page {
        let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        if let Some(id) = basic {
            let credentials =
                base64::engine::general_purpose::STANDARD.encode(format!("{id}:{}", encoded_one(SECRET)));
            request = request.header("authorization", format!("Basic {credentials}"));
        }
        self.send("192.0.2.1", request.body(Body::from(encoded(form))).unwrap()).await
    }

    /// A form to one of the endpoints of clients, with these additional headers.
    pub(crate) async fn call(&self, path: &str, headers: &[(&str, String)], form: &[(&str, &str)]) -> Page {
        let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.send("192.0.2.1", request.body(Body::from(encoded(form))).unwrap()).await
    }

    /// Changes a client.
    pub(crate) async fn change(&self, client_id: &str, change: impl FnOnce(&mut UpdateClient)) {
        let mut command = UpdateClient { client_id: client_id.into(), ..UpdateClient::default() };
        change(&mut command);
        self.node.propose(Command::UpdateClient(command)).await.unwrap();
    }

    pub(crate) async fn redeem(&self, client: &str, code: &str) -> Page {
        self.token(Some((client, SECRET)), &redemption(code)).await
    }

    pub(crate) async fn refresh(&self, token: &str) -> Page {
        self.token(Some(("web", SECRET)), &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    pub(crate) async fn userinfo(&self, token: &str) -> Page {
        let request = Request::get("/oidc/userinfo").header("authorization", format!("Bearer {token}"));
        self.send("192.0.2.1", request.body(Body::empty()).unwrap()).await
    }
}

pub(crate) fn redemption(code: &str) -> [(&str, &str); 4] {
    [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ]
}

/// HTTP Basic credentials.
pub(crate) fn basic(id: &str, secret: &str) -> (&'static str, String) {
    let credentials =
        base64::engine::general_purpose::STANDARD.encode(format!("{id}:{}", encoded_one(secret)));
    ("authorization", format!("Basic {credentials}"))
}

pub(crate) fn encoded(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn encoded_one(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

impl Browser {
    pub(crate) fn header(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn keep(&mut self, page: Page) -> Page {
        for cookie in page.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
            if cookie.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        page
    }
}
