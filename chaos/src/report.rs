//! The results of a run, for readers and for programs, with the command that reproduces them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    oracle::{Oracle, Violation},
    rules::{self, Counts, mutation::ReplicaMutation},
};

/// The results of a run.
#[derive(Debug)]
pub struct RulesReport {
    seeds: u64,
    mutation: ReplicaMutation,
    total: Counts,
    /// The seeds that broke a promise.
    pub failed: Vec<(u64, Violation)>,
}

/// Runs `seeds` histories, the first with seed `first`.
#[must_use]
pub fn run(first: u64, seeds: u64, mutation: ReplicaMutation) -> RulesReport {
    let mut report = RulesReport { seeds, mutation, total: Counts::default(), failed: Vec::new() };
    for seed in (0..seeds).map(|offset| first.wrapping_add(offset)) {
        match rules::run(seed, mutation, Oracle::default()) {
            Ok(counts) => report.total += counts,
            Err(violation) => report.failed.push((seed, violation)),
        }
    }
    report
}

impl RulesReport {
    fn rows(&self) -> [(&'static str, u64); 8] {
        [
            ("seeds", self.seeds),
            ("entries", self.total.entries),
            ("applied", self.total.applied),
            ("repeated requests", self.total.repeats),
            ("restarts", self.total.restarts),
            ("snapshots taken over", self.total.installs),
            ("leader changes", self.total.leaders),
            ("violations", self.failed.len() as u64),
        ]
    }

    /// A table, and each violation with its command.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (name, count) in self.rows() {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{name:<22}{count:>10}");
        }
        for (seed, violation) in &self.failed {
            let _ = writeln!(text, "\nseed {seed}: {violation}\n  {}", self.command(*seed));
        }
        text
    }

    /// The results as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let counts: serde_json::Map<String, Value> =
            self.rows().into_iter().map(|(name, count)| (name.replace(' ', "_"), count.into())).collect();
        let failed: Vec<Value> = self
            .failed
            .iter()
            .map(|(seed, violation)| {
                json!({
                    "seed": seed,
                    "invariant": violation.invariant,
                    "replica": violation.replica,
                    "index": violation.index,
                    "what": violation.what,
                    "command": self.command(*seed),
                })
            })
            .collect();
        json!({ "counts": counts, "failed": failed })
    }

    /// The command that reproduces this seed.
    fn command(&self, seed: u64) -> String {
        let plain = format!("--seed {seed} --seeds 1");
        match self.mutation {
            ReplicaMutation::None => format!("cargo run --release -p conclave-chaos -- rules {plain}"),
            #[cfg(feature = "mutations")]
            mutation => format!(
                "cargo run --release -p conclave-chaos --features mutations -- rules {plain} --mutate {}",
                mutation.name()
            ),
        }
    }
}
