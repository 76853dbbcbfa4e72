//! A real browser, without JavaScript, through the demo's front: sign in, open the application, sign out.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::world::{Demo, browser};

/// The driver's process, ended when dropped.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Chromium driven over WebDriver, closed when dropped.
pub(super) struct Chromium {
    session: String,
    _driver: Driver,
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ =
            Command::new("curl").args(["-s", "-X", "DELETE", &self.session]).stdout(Stdio::null()).status();
    }
}

impl Chromium {
    pub(super) async fn start(port: u16) -> Self {
        // 2 = blocked.
        Self::start_with(port, &json!({ "profile.managed_default_content_settings.javascript": 2 })).await
    }

    /// Starts Chromium with these preferences.
    pub(super) async fn start_with(port: u16, preferences: &Value) -> Self {
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("chromedriver cannot be started ({e}); `make test` installs it"));
        let driver = Driver(driver);
        let options = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": {
            "args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync"],
            "prefs": preferences,
        },
        // A click returns before its page has loaded: wait for an element.
        "timeouts": { "implicit": 10_000 } } } });
        let url = format!("http://127.0.0.1:{port}/session");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let reply =
                browser().post(&url).body(options.to_string()).timeout(Duration::from_secs(30)).send().await;
            if let Ok(reply) = reply {
                let text = reply.text().await.unwrap();
                let value: Value = serde_json::from_str(&text).unwrap();
                let id = value["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {text}"));
                return Self { session: format!("{url}/{id}"), _driver: driver };
            }
            assert!(Instant::now() < deadline, "chromedriver does not listen");
            tokio::task::yield_now().await;
        }
    }

    async fn call(&self, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.session);
        let request = match body {
            Some(body) => browser().post(url).body(body.to_string()),
            None => browser().get(url),
        };
        let text = request.send().await.unwrap().text().await.unwrap();
        let reply: Value = serde_json::from_str(&text).unwrap();
        assert!(reply["value"]["error"].is_null(), "{path}: {text}");
        reply["value"].clone()
    }

    pub(super) async fn open(&self, url: &str) {
        self.call("/url", Some(json!({ "url": url }))).await;
    }

    /// By a CSS selector, or by an XPath if only the text of an element is known.
    pub(super) async fn element(&self, css: &str) -> String {
        let using = if css.starts_with("//") { "xpath" } else { "css selector" };
        let found = self.call("/element", Some(json!({ "using": using, "value": css }))).await;
        let id = found.as_object().and_then(|o| o.values().next()).and_then(Value::as_str);
        format!("/element/{}", id.unwrap())
    }

    pub(super) async fn text(&self, css: &str) -> String {
        let element = self.element(css).await;
        self.call(&format!("{element}/text"), None).await.as_str().unwrap().to_owned()
    }

    pub(super) async fn fill(&self, css: &str, text: &str) {
        let element = self.element(css).await;
        self.call(&format!("{element}/clear"), Some(json!({}))).await;
        self.call(&format!("{element}/value"), Some(json!({ "text": text }))).await;
    }

    pub(super) async fn click(&self, css: &str) {
        let element = self.element(css).await;
        self.call(&format!("{element}/click"), Some(json!({}))).await;
    }

    pub(super) async fn back(&self) {
        self.call("/back", Some(json!({}))).await;
    }

    pub(super) async fn reload(&self) {
        self.call("/refresh", Some(json!({}))).await;
    }

    pub(super) async fn url(&self) -> String {
        self.call("/url", None).await.as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_in_with_chromium_opens_the_application_and_signs_out() {
    let demo = Demo::start(&[]);
    let chromium = Chromium::start(demo.own_port(90)).await;
    let app = format!("http://app.localhost:{}/deep?x=1", demo.cluster.front.rsplit(':').next().unwrap());

    chromium.open(&app).await;
    assert!(chromium.url().await.starts_with(&format!("{}/login?", demo.cluster.front)));
    chromium.fill("#username", &demo.cluster.admin.username).await;
    chromium.fill("#password", "not the password").await;
    chromium.click("#submit").await;
    assert!(chromium.text("#error").await.contains("wrong"));
    chromium.fill("#password", &demo.cluster.admin.password).await;
    chromium.click("#submit").await;
    // The page's own policy allows the form's redirects through two hosts, and the chain ends at the exact URL.
    // Check the page first: a click returns before the browser has arrived.
    assert_eq!(chromium.text("#hello").await, "Hello, admin");
    assert_eq!(chromium.url().await, app);

    chromium.open(&format!("{}/", demo.cluster.front)).await;
    assert_eq!(chromium.text("#account").await, "admin");
    chromium.click("#sign-out").await;
    chromium.element("#signed-out").await;
    chromium.open(&app).await;
    assert!(
        chromium.url().await.starts_with(&format!("{}/login?", demo.cluster.front)),
        "still let in after signing out"
    );
}
