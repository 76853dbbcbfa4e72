//! Runs many seeds, one process each, as many at once as there are processors.

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::Context as _;
use conclave_chaos::sim::{self, SimBug, SimPlan};
use serde_json::{Value, json};

/// The seeds of a batch, and its options.
pub(crate) struct Batch {
    pub first: u64,
    pub seeds: u64,
    pub jobs: Option<u64>,
    pub plan: SimPlan,
    pub bug: SimBug,
}

/// The worker process: runs one seed and prints a line with its result.
pub(crate) fn line(seed: u64, plan: SimPlan, bug: SimBug) -> ExitCode {
    let outcome = sim::run(seed, plan, bug);
    let violations: Vec<String> = outcome.violations.iter().map(ToString::to_string).collect();
    println!("{}", json!({ "seed": seed, "counts": outcome.counts, "violations": violations }));
    ExitCode::from(u8::from(!violations.is_empty()))
}

/// Runs all seeds. Returns true if every promise was kept. Each seed has its own process, because randomness is seeded
/// per process.
///
/// # Errors
/// A worker that cannot be started, or that ends early.
pub(crate) fn run(batch: &Batch, json: bool) -> anyhow::Result<bool> {
    let own = std::env::current_exe()?;
    let next = AtomicU64::new(0);
    let mut found = Found::default();
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..batch.workers() {
            let (sender, own, next) = (sender.clone(), &own, &next);
            scope.spawn(move || {
                while let Some(seed) = batch.seed(next.fetch_add(1, Ordering::Relaxed)) {
                    // The receiver is gone after an earlier seed could not be run.
                    if sender.send(worker(own, seed, batch)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for line in receiver {
            found.add(&line?);
            found.progress(batch.seeds);
        }
        anyhow::Ok(())
    })?;
    found.failed.sort();
    found.print(batch, json);
    Ok(found.failed.is_empty())
}

impl Batch {
    fn workers(&self) -> u64 {
        let processors = thread::available_parallelism().map_or(1, |count| count.get() as u64);
        self.jobs.unwrap_or(processors).clamp(1, self.seeds.max(1))
    }

    fn seed(&self, number: u64) -> Option<u64> {
        (number < self.seeds).then(|| self.first.wrapping_add(number))
    }
}

fn worker(own: &Path, seed: u64, batch: &Batch) -> anyhow::Result<Value> {
    let mut command = Command::new(own);
    command.args(["sim", "--line", "--seed", &seed.to_string(), "--mutate", batch.bug.name()]);
    command.args(["--plan", &batch.plan.to_string()]);
    let output = command.stderr(Stdio::null()).output().context("a worker cannot be started")?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("seed {seed} ended without output"))
}

#[derive(Default)]
struct Found {
    seeds: u64,
    counts: BTreeMap<String, u64>,
    failed: Vec<(u64, Vec<String>)>,
}

impl Found {
    fn add(&mut self, line: &Value) {
        self.seeds += 1;
        let counts = line.get("counts").and_then(Value::as_object);
        for (name, count) in counts.into_iter().flatten() {
            let (total, count) = (self.counts.entry(name.clone()).or_default(), count.as_u64().unwrap_or(0));
            // Times are not summed.
            *total = if name.contains(" ms") && !name.starts_with("virtual") {
                count.max(*total)
            } else {
                *total + count
            };
        }
        let violations: Vec<String> = line
            .get("violations")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|text| text.as_str().map(str::to_owned))
            .collect();
        if !violations.is_empty() {
            self.failed.push((line.get("seed").and_then(Value::as_u64).unwrap_or(0), violations));
        }
    }

    fn progress(&self, of: u64) {
        if std::io::stderr().is_terminal() {
            eprint!("\r{} of {of} seeds, {} failed ", self.seeds, self.failed.len());
        } else if self.seeds.is_multiple_of(100) {
            eprintln!("{} of {of} seeds, {} failed", self.seeds, self.failed.len());
        }
    }

    fn print(&self, batch: &Batch, json: bool) {
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
        if json {
            let failed: Vec<Value> = self
                .failed
                .iter()
                .map(|(seed, violations)| {
                    json!({ "seed": seed, "violations": violations, "command": command(*seed, batch) })
                })
                .collect();
            println!("{}", json!({ "seeds": self.seeds, "counts": self.counts, "failed": failed }));
            return;
        }
        println!("{:<40}{:>12}", "seeds", self.seeds);
        for (name, count) in &self.counts {
            println!("{name:<40}{count:>12}");
        }
        println!("{:<40}{:>12}", "seeds with a violation", self.failed.len());
        for (seed, violations) in &self.failed {
            println!("\nseed {seed}: {}", command(*seed, batch));
            violations.iter().for_each(|text| println!("  {text}"));
        }
    }
}

/// The command that reproduces this seed.
fn command(seed: u64, batch: &Batch) -> String {
    let plain = format!("sim --seed {seed} --seeds 1 --plan {}", batch.plan);
    match batch.bug {
        SimBug::None => format!("cargo run --release -p conclave-chaos -- {plain}"),
        #[cfg(feature = "mutations")]
        _ => format!(
            "cargo run --release -p conclave-chaos --features mutations -- {plain} --mutate {}",
            batch.bug.name()
        ),
    }
}
