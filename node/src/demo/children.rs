//! The nodes of a demo: real `conclave serve` processes. The demo holds the other end of each node's standard input. A
//! node stops when that closes, so that it ends with the demo, however the demo ends.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, Permissions},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::layout::Layout;

/// The time a node may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(12);
/// The time the nodes may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The interval at which readiness is polled.
const READY_POLL: Duration = Duration::from_millis(20);
/// The pause before a dead node is restarted automatically.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The mode of files that only their owner may read.
const OWNER_ONLY: u32 = 0o600;

/// An event of a node.
#[derive(Clone, Debug)]
pub(super) enum News {
    Died { node: u64, pid: u32, status: ExitStatus },
    Started { node: u64, pid: u32 },
}

struct Running {
    pid: u32,
    /// Sending to it stops the node; the reply arrives when the node has ended.
    stop: mpsc::Sender<oneshot::Sender<()>>,
}

/// All nodes.
pub(super) struct Children {
    layout: Arc<Layout>,
    news: mpsc::Sender<News>,
    running: Arc<Mutex<BTreeMap<u64, Running>>>,
    restart: bool,
}

impl Children {
    /// Starts every node.
    ///
    /// # Errors
    /// An error if a process cannot be started.
    pub(super) fn start(
        layout: Arc<Layout>,
        news: mpsc::Sender<News>,
        restart: bool,
    ) -> anyhow::Result<Self> {
        let children = Self { layout, news, running: Arc::default(), restart };
        for node in children.layout.ids() {
            children.spawn(node)?;
        }
        Ok(children)
    }

    /// The process ids of the nodes that run.
    pub(super) fn pids(&self) -> BTreeMap<u64, u32> {
        locked(&self.running).iter().map(|(node, running)| (*node, running.pid)).collect()
    }

    fn spawn(&self, node: u64) -> anyhow::Result<()> {
        spawn(&self.layout, &self.news, &self.running, node, self.restart)
    }

    /// Restarts the nodes that have died.
    pub(super) fn restart_dead(&self) {
        let alive: Vec<u64> = self.pids().into_keys().collect();
        for node in self.layout.ids().filter(|node| !alive.contains(node)) {
            start_again(&self.layout, &self.news, &self.running, node, self.restart);
        }
    }

    /// Waits until every node can serve.
    ///
    /// # Errors
    /// An error if a node takes too long.
    pub(super) async fn wait_ready(&self) -> anyhow::Result<()> {
        let client = super::front::client();
        for node in self.layout.ids() {
            let url = format!("http://{}/healthz/ready", self.layout.http_addr(node));
            let waiting = async {
                loop {
                    let request = hyper::Request::get(&url).body(axum::body::Body::empty())?;
                    if client.request(request).await.is_ok_and(|reply| reply.status().is_success()) {
                        return anyhow::Ok(());
                    }
                    tokio::time::sleep(READY_POLL).await;
                }
            };
            let log = self.layout.log_file(node);
            timeout(READY_LIMIT, waiting).await.with_context(|| {
                format!("node {node} was not ready in time; its log is {}", log.display())
            })??;
        }
        Ok(())
    }

    /// Stops every node and waits until it has ended.
    pub(super) async fn stop(&self) {
        let running = std::mem::take(&mut *locked(&self.running));
        let mut gone = Vec::new();
        for child in running.into_values() {
            let (sender, receiver) = oneshot::channel();
            if child.stop.send(sender).await.is_ok() {
                gone.push(receiver);
            }
        }
        for receiver in gone {
            // The watcher replies or has ended: in both cases the node has ended.
            let _ = receiver.await;
        }
    }
}

type Table = Arc<Mutex<BTreeMap<u64, Running>>>;

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(
    layout: &Arc<Layout>,
    news: &mpsc::Sender<News>,
    table: &Table,
    node: u64,
    restart: bool,
) -> anyhow::Result<()> {
    let log = open_log(&layout.log_file(node))?;
    let child = Command::new(std::env::current_exe()?)
        .args(["serve", "--exit-with-parent", "--config"])
        .arg(layout.config_file(node))
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().context("the process ended at once")?;
    let (stop, stopping) = mpsc::channel(1);
    locked(table).insert(node, Running { pid, stop });
    let watcher = Watcher {
        layout: Arc::clone(layout),
        news: news.clone(),
        table: Arc::clone(table),
        node,
        pid,
        restart,
    };
    tokio::spawn(watcher.watch(child, stopping));
    Ok(())
}

/// Opens a log to append to, readable only by its owner, even if an earlier demo left it open: it contains names and
/// addresses of users.
fn open_log(path: &Path) -> std::io::Result<File> {
    let log = OpenOptions::new().create(true).append(true).mode(OWNER_ONLY).open(path)?;
    log.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    Ok(log)
}

/// Restarts a dead node, and reports it.
fn start_again(layout: &Arc<Layout>, news: &mpsc::Sender<News>, table: &Table, node: u64, restart: bool) {
    if let Err(error) = spawn(layout, news, table, node, restart) {
        eprintln!("node {node} cannot be started: {error:#}");
        return;
    }
    if let Some(pid) = locked(table).get(&node).map(|running| running.pid) {
        let _ = news.try_send(News::Started { node, pid });
    }
}

struct Watcher {
    layout: Arc<Layout>,
    news: mpsc::Sender<News>,
    table: Table,
    node: u64,
    pid: u32,
    restart: bool,
}

impl Watcher {
    async fn watch(self, mut child: Child, mut stopping: mpsc::Receiver<oneshot::Sender<()>>) {
        // Taken out of the child, since waiting for a child closes its standard input, and the node would stop.
        let leash = child.stdin.take();
        tokio::select! {
            status = child.wait() => {
                locked(&self.table).remove(&self.node);
                if let Ok(status) = status {
                    // The receiver is gone when the demo is ending.
                    let _ = self.news.send(News::Died { node: self.node, pid: self.pid, status }).await;
                }
                if self.restart {
                    tokio::time::sleep(RESTART_PAUSE).await;
                    start_again(&self.layout, &self.news, &self.table, self.node, true);
                }
            }
            Some(done) = stopping.recv() => {
                drop(leash);
                if timeout(STOP_LIMIT, child.wait()).await.is_err() {
                    let _ = child.kill().await;
                }
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_its_owners_alone_and_goes_on_where_it_was() {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        for existing in [false, true] {
            let path = dir.path().join(format!("node-{existing}.log"));
            if existing {
                std::fs::write(&path, "before ").unwrap();
                std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            }
            open_log(&path).unwrap().write_all(b"after").unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, OWNER_ONLY);
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                if existing { "before after" } else { "after" }
            );
        }
    }
}
