//! A program by other authors beside the cluster, and a user who opens an application in a browser and signs in when a
//! page asks for it.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::net::TcpStream;
use url::Url;

use super::world::{Demo, browser, field, kill_9};

/// Longest wait for a program to listen.
const LIMIT: Duration = Duration::from_secs(30);
/// Most responses during a sign-in: an application and this cluster need eight.
const MOST_STEPS: usize = 14;

/// A program in a separate directory, ended when dropped.
pub(super) struct Party {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Party {
    fn drop(&mut self) {
        // Stopped by SIGTERM, so that apache2 and dovecot end their own processes.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

impl Party {
    /// Starts the program and waits until it listens on the port.
    pub(super) async fn start(command: &mut Command, dir: tempfile::TempDir, port: u16) -> Self {
        let log = dir.path().join("output");
        let output = std::fs::File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; `make test` installs it"));
        let mut party = Self { child, _dir: dir };
        let deadline = Instant::now() + LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let ended = party.child.try_wait().unwrap();
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "{command:?} does not listen: {}", said());
            tokio::task::yield_now().await;
        }
        party
    }
}

/// A directory that the program's unprivileged user can read as well.
pub(super) fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

pub(super) fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A user at a browser, who signs in when a page asks for it.
pub(super) struct Person<'a> {
    demo: &'a Demo,
    browser: reqwest::Client,
    /// If true, the leader is killed while the user is at the sign-in page.
    pub kills_the_leader: bool,
    /// An address that is not opened but returned.
    pub stops_at: Option<&'a str>,
}

/// The end of a chain of redirects.
pub(super) struct End {
    pub url: Url,
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl<'a> Person<'a> {
    pub(super) fn new(demo: &'a Demo) -> Self {
        Self { demo, browser: browser(), kills_the_leader: false, stops_at: None }
    }

    /// Follows redirects from the address and fills in the sign-in form, until a page is neither.
    pub(super) async fn opens(&self, url: &str) -> End {
        let mut url = Url::parse(url).unwrap();
        let mut request = self.browser.get(url.clone());
        for _ in 0..MOST_STEPS {
            let reply = request.send().await.unwrap();
            let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
            if let Some(to) = headers.get("location") {
                url = url.join(to.to_str().unwrap()).unwrap();
                if self.stops_at.is_some_and(|stop| url.as_str().starts_with(stop)) {
                    return End { url, status, headers, text: String::new() };
                }
                request = self.browser.get(url.clone());
                continue;
            }
            let text = reply.text().await.unwrap();
            if !text.contains("id=\"login-form\"") {
                return End { url, status, headers, text };
            }
            if self.kills_the_leader {
                let leader = self.demo.leader().await.expect("a leader");
                kill_9(self.demo.pid_of(leader).expect("its process"));
            }
            request = self.sign_in(&text);
        }
        panic!("no end of redirects at {url}");
    }

    fn sign_in(&self, page: &str) -> reqwest::RequestBuilder {
        let admin = &self.demo.cluster.admin;
        let form = [
            ("ticket", field(page, "ticket")),
            ("csrf", field(page, "csrf")),
            ("username", admin.username.clone()),
            ("password", admin.password.clone()),
        ];
        self.browser.post(format!("{}/login", self.demo.cluster.front)).form(&form)
    }
}
