//! `conclave demo`: a whole cluster on this machine, to click through and to break.
//!
//! | file | owns |
//! |---|---|
//! | `layout` | ports, directories, configuration files |
//! | `children` | the nodes: real `conclave serve` processes, watched, stopped with the demo |
//! | `front` | one URL in front of all: each request goes to the next node |
//! | `app` | a small application behind forward-auth |
//! | `furnish` | admin, client and application, made through the admin API |
//! | `guide` | what is printed: a guide for people, one line of JSON for programs |
//!
//! It is a tool over the product and no part of it: nothing in the product imports this room.

mod app;
mod children;
mod front;
mod furnish;
mod guide;
mod layout;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use conclave_base::runtime::Runtime;
use conclave_http::HttpListener;

use children::{Children, News};
use layout::Layout;

/// Most nodes: the ports of one node lie ten apart from the next kind's.
pub const MAX_NODES: u64 = 9;

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    pub nodes: u64,
    pub base_port: u16,
    /// Kept, and used again by the next demo; none = a fresh directory that is removed at the end.
    pub data: Option<PathBuf>,
    pub admin_password: Option<String>,
    pub json: bool,
    /// Starts a node that has died again by itself.
    pub restart: bool,
}

/// How often the demo looks whether its own parent is still there.
const PARENT_POLL: Duration = Duration::from_millis(500);

/// Runs until interrupted, or until the process that started it is gone.
///
/// # Errors
/// What kept it from starting, in words.
pub async fn run(options: DemoOptions, runtime: Runtime) -> anyhow::Result<()> {
    anyhow::ensure!((1..=MAX_NODES).contains(&options.nodes), "--nodes must be between 1 and {MAX_NODES}");
    let started = runtime.clock.monotonic();
    let stop = CancellationToken::new();
    tokio::spawn(stop_when_told(stop.clone()));
    let layout = Arc::new(Layout::prepare(&options, &*runtime.entropy)?);
    // Bound before anything is started: a taken port is said at once.
    let front = HttpListener::bind("the front", layout.front_addr()).await?;
    let application = HttpListener::bind("the demo application", layout.app_addr()).await?;

    let (news, mut reports) = mpsc::channel(NEWS_QUEUE);
    let children = Children::start(Arc::clone(&layout), news, options.restart)?;
    let result = tokio::select! {
        result = open(&options, &layout, &children, &runtime, (front, application), stop.clone()) => result,
        () = stop.cancelled() => Ok(None),
        Some(News::Died { node, .. }) = reports.recv() => {
            Err(anyhow::anyhow!("node {node} ended while starting; its log is {}", layout.log_file(node).display()))
        }
    };
    if let Ok(Some(furnished)) = &result {
        let took = runtime.clock.monotonic().saturating_sub(started);
        guide::print(&options, &layout, &children, furnished, took);
        watch(&options, &children, &mut reports, &stop).await;
    }
    stop.cancel();
    children.stop().await;
    result.map(|_| ())
}

/// News of children waiting to be told; there are at most nine.
const NEWS_QUEUE: usize = 64;

/// Front and application open, the nodes founded and furnished.
async fn open(
    options: &DemoOptions,
    layout: &Arc<Layout>,
    children: &Children,
    runtime: &Runtime,
    (front, application): (HttpListener, HttpListener),
    stop: CancellationToken,
) -> anyhow::Result<Option<furnish::Furnished>> {
    tokio::spawn(front.serve(front::router(Arc::clone(layout), runtime.clone()), stop.clone()));
    tokio::spawn(application.serve(app::router(), stop));
    children.wait_ready().await?;
    furnish::furnish(options, layout, runtime).await.map(Some)
}

/// Tells what happens to the nodes, and starts dead ones again when asked.
async fn watch(
    options: &DemoOptions,
    children: &Children,
    reports: &mut mpsc::Receiver<News>,
    stop: &CancellationToken,
) {
    let mut enters = guide::enters();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(report) = reports.recv() => guide::tell(options, &report),
            Some(()) = enters.recv() => children.restart_dead(),
        }
    }
}

/// SIGINT, SIGTERM, or the end of the process that started this one.
async fn stop_when_told(stop: CancellationToken) {
    let parent = std::os::unix::process::parent_id();
    let mut poll = tokio::time::interval(PARENT_POLL);
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let Ok(mut terminate) = terminate else { return };
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = terminate.recv() => break,
            _ = poll.tick() => if std::os::unix::process::parent_id() != parent { break },
        }
    }
    stop.cancel();
}
