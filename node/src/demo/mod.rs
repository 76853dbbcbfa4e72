//! `conclave demo`: a whole cluster on this machine, to try out and to break.
//!
//! | file | owns |
//! |---|---|
//! | `ports`, `layout` | the ports, directories and configuration files |
//! | `children` | the nodes: real `conclave serve` processes, watched, stopped with the demo |
//! | `front` | one URL in front of all: each request goes to the next node |
//! | `app` | a small application behind forward-auth |
//! | `seed` | admin, client and application, created through the admin API |
//! | `guide` | the output: a guide for users, one line of JSON for programs |
//!
//! It is a tool on top of the product and not part of it: nothing in the product imports this room.

mod app;
mod children;
mod front;
mod guide;
mod layout;
pub mod ports;
mod seed;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use conclave_base::runtime::Runtime;
use conclave_http::HttpListener;

use children::{Children, News};
use layout::Layout;

/// The largest number of nodes: the ports of one kind begin ten above those of the kind before.
pub const MAX_NODES: u64 = 9;

/// The options of the command line.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    pub nodes: u64,
    /// The port that all others are counted from; 0 chooses a hundred free ones.
    pub base_port: u16,
    /// A directory that is kept, and used again by the next demo; `None` for a temporary one that is removed at the
    /// end.
    pub data: Option<PathBuf>,
    pub admin_password: Option<String>,
    pub json: bool,
    /// Restarts a node that has died.
    pub restart: bool,
}

/// The interval at which the demo checks that its own parent still exists.
const PARENT_POLL: Duration = Duration::from_millis(500);

/// Runs until interrupted, or until the process that started it has ended.
///
/// # Errors
/// The reason why it did not start.
pub async fn run(options: DemoOptions, runtime: Runtime) -> anyhow::Result<()> {
    anyhow::ensure!((1..=MAX_NODES).contains(&options.nodes), "--nodes must be between 1 and {MAX_NODES}");
    let started = runtime.clock.monotonic();
    let stop = CancellationToken::new();
    tokio::spawn(stop_when_told(stop.clone()));
    let layout = Arc::new(Layout::prepare(&options, &*runtime.entropy)?);
    // Bound before anything is started, so that a port in use is reported at once.
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
    if let Ok(Some(seeded)) = &result {
        let took = runtime.clock.monotonic().saturating_sub(started);
        guide::print(&options, &layout, &children, seeded, took);
        watch(&options, &children, &mut reports, &stop).await;
    }
    stop.cancel();
    children.stop().await;
    result.map(|_| ())
}

/// The queue of events; there are at most nine nodes.
const NEWS_QUEUE: usize = 64;

/// Opens the front and the application, and founds and seeds the nodes.
async fn open(
    options: &DemoOptions,
    layout: &Arc<Layout>,
    children: &Children,
    runtime: &Runtime,
    (front, application): (HttpListener, HttpListener),
    stop: CancellationToken,
) -> anyhow::Result<Option<seed::DemoSeed>> {
    tokio::spawn(front.serve(front::router(Arc::clone(layout), runtime.clone()), stop.clone()));
    tokio::spawn(application.serve(app::router(), stop));
    children.wait_ready().await?;
    seed::seed(options, layout, runtime).await.map(Some)
}

/// Prints the events of the nodes, and restarts dead ones on request.
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

/// Stops on SIGINT, SIGTERM, or the end of the process that started this one.
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
