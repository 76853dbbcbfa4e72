//! The nodes' log lines. One subscriber for the whole test process; a test searches for lines that only it can cause.

use std::{
    fmt::{Debug, Write as _},
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use tracing::{Event, Subscriber, field::Field};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt as _};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Listener;

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= tracing::Level::INFO {
            let mut line = Line(String::new());
            event.record(&mut line);
            LINES.lock().unwrap().push(line.0);
        }
    }
}

/// Records lines from now on.
pub(crate) fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Listener)).unwrap();
    });
}

/// Waits until a line contains all of `parts`.
pub(crate) async fn heard(parts: &[&str]) {
    let began = Instant::now();
    loop {
        let lines = LINES.lock().unwrap().clone();
        if lines.iter().any(|line| parts.iter().all(|part| line.contains(part))) {
            return;
        }
        assert!(began.elapsed() < super::harness::LIMIT, "no line with {parts:?} in {lines:#?}");
        // A log has no signal to wait for: check again soon.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
