//! A progress line on standard error. It is shown only on a terminal, so scripts see nothing, and only for work that
//! takes a while.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// The interval between two updates of the line.
const EVERY: Duration = Duration::from_millis(100);
/// The time before the line appears: shorter work needs none.
const WAIT_LIMIT: Duration = Duration::from_millis(500);
const CELLS: u64 = 24;

/// A progress bar, shown until it is dropped.
pub(super) struct Progress {
    what: &'static str,
    of: u64,
    begun: Instant,
    shown: Option<Instant>,
    visible: bool,
}

impl Progress {
    /// Begins a task. `of` is the amount of work in bytes; 0 if it is not known.
    pub(super) fn new(what: &'static str, of: u64) -> Self {
        let visible = std::io::stderr().is_terminal();
        Self { what, of, begun: Instant::now(), shown: None, visible }
    }

    /// Shows that `done` bytes are done.
    pub(super) fn at(&mut self, done: u64) {
        let now = Instant::now();
        let young = now.duration_since(self.begun) < WAIT_LIMIT;
        let fresh = self.shown.is_some_and(|shown| now.duration_since(shown) < EVERY);
        if !self.visible || young || fresh {
            return;
        }
        self.shown = Some(now);
        // If standard error is closed, there is nothing left to do.
        let _ = write!(std::io::stderr(), "\r{}\x1b[K", line(self.what, done, self.of));
    }

    /// Continues with another task.
    pub(super) fn then(&mut self, what: &'static str, of: u64) {
        (self.what, self.of) = (what, of);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, of: u64) -> String {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    if of == 0 {
        return format!("{what}: {} MiB", mib(done));
    }
    let done = done.min(of);
    let full = usize::try_from(done * CELLS / of).unwrap_or(0);
    let empty = usize::try_from(CELLS).unwrap_or(0) - full;
    format!("{what} [{}{}] {} of {} MiB", "#".repeat(full), ".".repeat(empty), mib(done), mib(of))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_bar_never_goes_beyond_its_end() {
        let mib = 1024 * 1024;
        assert_eq!(line("sending", 0, 24 * mib), format!("sending [{}] 0 of 24 MiB", ".".repeat(24)));
        assert_eq!(line("sending", 99 * mib, 24 * mib), format!("sending [{}] 24 of 24 MiB", "#".repeat(24)));
        assert_eq!(line("saving", 3 * mib, 0), "saving: 3 MiB");
    }
}
