//! Workers, the clock, percentiles.

use std::time::{Duration, Instant};

/// The duration of a run, and its number of concurrent workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub time: Duration,
    pub workers: usize,
}

/// Most durations kept by one worker: beyond it, further ones are only counted. Sixteen million are 64 MB.
const MAX_SAMPLES: usize = 1 << 24;

/// The results of one or all workers.
#[derive(Debug, Default)]
pub(crate) struct Measurement {
    /// Durations of successful requests, in microseconds.
    micros: Vec<u32>,
    done: u64,
    errors: u64,
    first_error: Option<String>,
    /// The time until the slowest worker ended: the last request counts with its time.
    took: Duration,
}

impl Measurement {
    /// Repeats `act` until the time has elapsed.
    pub(crate) async fn of<E: std::fmt::Display>(
        load: Load,
        mut act: impl AsyncFnMut() -> Result<(), E>,
    ) -> Self {
        let (started, mut outcome) = (Instant::now(), Self::default());
        while started.elapsed() < load.time {
            let began = Instant::now();
            outcome.note(began, act().await);
        }
        outcome.took = started.elapsed();
        outcome
    }

    /// Like `of`, for an `act` that does not wait.
    pub(crate) fn of_blocking<E: std::fmt::Display>(
        load: Load,
        mut act: impl FnMut() -> Result<(), E>,
    ) -> Self {
        let (started, mut outcome) = (Instant::now(), Self::default());
        while started.elapsed() < load.time {
            let began = Instant::now();
            outcome.note(began, act());
        }
        outcome.took = started.elapsed();
        outcome
    }

    fn note<E: std::fmt::Display>(&mut self, began: Instant, result: Result<(), E>) {
        match result {
            Ok(()) => {
                self.done += 1;
                if self.micros.len() < MAX_SAMPLES {
                    self.micros.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
            }
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.done += other.done;
        self.errors += other.errors;
        self.took = self.took.max(other.took);
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
    }

    /// One readable line.
    pub(crate) fn line(mut self, load: Load) -> String {
        self.micros.sort_unstable();
        let rate = u128::from(self.done) * 10_000_000 / self.took.as_micros().max(1);
        let mut line = format!(
            "{}.{}/s  p50 {}  p99 {}  done {}  errors {}  ({} at once, {} s)",
            rate / 10,
            rate % 10,
            self.percentile(50),
            self.percentile(99),
            self.done,
            self.errors,
            load.workers,
            load.time.as_secs()
        );
        if let Some(error) = self.first_error {
            line = format!("{line}\nfirst error: {error}");
        }
        line
    }

    fn percentile(&self, percent: usize) -> String {
        let at = self.micros.len().saturating_mul(percent) / 100;
        match self.micros.get(at) {
            Some(micros) => format!("{}.{:03} ms", micros / 1_000, micros % 1_000),
            None => "-".into(),
        }
    }
}
