//! A line that says how far something is, on standard error and only where a person looks: nothing for scripts, and
//! nothing for what is over at once.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// Between two looks at the line.
const EVERY: Duration = Duration::from_millis(100);
/// What is over before this needs no line.
const PATIENCE: Duration = Duration::from_millis(500);
const CELLS: u64 = 24;

/// A bar, while it is held.
pub struct Progress {
    what: &'static str,
    of: u64,
    begun: Instant,
    shown: Option<Instant>,
    visible: bool,
}

impl Progress {
    /// `of` is what there is to do in bytes; 0 when nobody knows.
    pub fn new(what: &'static str, of: u64) -> Self {
        let visible = std::io::stderr().is_terminal();
        Self { what, of, begun: Instant::now(), shown: None, visible }
    }

    /// So many bytes are done.
    pub fn at(&mut self, done: u64) {
        let now = Instant::now();
        let young = now.duration_since(self.begun) < PATIENCE;
        let fresh = self.shown.is_some_and(|shown| now.duration_since(shown) < EVERY);
        if !self.visible || young || fresh {
            return;
        }
        self.shown = Some(now);
        // Nobody is left to be told when standard error is closed.
        let _ = write!(std::io::stderr(), "\r{}\x1b[K", line(self.what, done, self.of));
    }

    /// The same for something else.
    pub fn then(&mut self, what: &'static str, of: u64) {
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
