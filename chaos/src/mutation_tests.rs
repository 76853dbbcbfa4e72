//! Mutation tests: every known bug is injected on purpose, one after the other, and each must be caught. A checker that
//! has never caught anything proves nothing.
//!
//! There are bugs only with the feature "mutations".

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    model::{BOUNDS, ModelBug, SearchOutcome, search},
    report,
    rules::mutation::ReplicaMutation,
    sim,
};

/// Histories in which a bug of the rules' replicas must show.
const SEEDS: u64 = 60;
/// Histories of whole nodes in which a bug of the nodes must break its promise.
const NODE_SEEDS: &str = "40";
/// More worlds than any of the model's bounds has.
const WORLDS: u64 = 5_000_000;

/// A bug, and the way in which it was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its name.
    pub bug: &'static str,
    /// The checker.
    pub checker: &'static str,
    /// A description of how it was caught; none if it survived.
    pub caught: Option<String>,
}

/// Runs every known bug against its checker, and calls `done` with each. `own` is the path of `conclave-chaos`.
pub fn run(own: &Path, mut done: impl FnMut(&Mutant)) -> Vec<Mutant> {
    let leases = ModelBug::ALL.iter().map(|(bug, kind)| (*bug, "model", Kind::Lease(*kind)));
    let replicas = ReplicaMutation::ALL
        .iter()
        .filter(|(_, mutation)| *mutation != ReplicaMutation::None)
        .map(|(bug, mutation)| (*bug, "rules", Kind::Replica(*mutation)));
    let nodes = sim::SimBug::ALL
        .iter()
        .filter(|(_, bug)| *bug != sim::SimBug::None)
        .map(|(name, bug)| (*name, "sim", Kind::Node(*bug)));
    leases
        .chain(replicas)
        .chain(nodes)
        .map(|(bug, checker, kind)| {
            let mutant = Mutant { bug, checker, caught: kind.caught(own) };
            done(&mutant);
            mutant
        })
        .collect()
}

/// Runs a bug in separate processes, because randomness is seeded per process. Only the promise that the bug is known
/// to break is accepted: a panic, or a cluster that does not recover, would show that something is wrong, but not that
/// the judge detects it.
fn in_simulation(own: &Path, bug: sim::SimBug) -> Option<String> {
    let promise = bug.breaks()?;
    let mut command = Command::new(own);
    command.args(["sim", "--json", "--seeds", NODE_SEEDS, "--mutate", bug.name()]).stderr(Stdio::null());
    let found: Value = serde_json::from_slice(&command.output().ok()?.stdout).ok()?;
    let of_it = |run: &Value| {
        let mut seen = run.get("violations")?.as_array()?.iter().filter_map(Value::as_str);
        Some((run.get("seed")?.clone(), seen.find(|line| promise.is_of(line))?.to_owned()))
    };
    let mutants: Vec<_> = found.get("failed")?.as_array()?.iter().filter_map(of_it).collect();
    let (seed, what) = mutants.first()?;
    Some(format!("{} of {NODE_SEEDS} seeds ({}), first {seed}: {what}", mutants.len(), bug.plan()))
}

enum Kind {
    Lease(ModelBug),
    Replica(ReplicaMutation),
    Node(sim::SimBug),
}

impl Kind {
    fn caught(&self, own: &Path) -> Option<String> {
        match self {
            Self::Lease(bug) => BOUNDS.iter().find_map(|(name, bounds)| match search(bounds, *bug, WORLDS) {
                SearchOutcome::Broken { steps } => Some(format!("{name}, in {} steps", steps.len())),
                SearchOutcome::Holds { .. } | SearchOutcome::Unfinished { .. } => None,
            }),
            Self::Replica(mutation) => {
                let report = report::run(1, SEEDS, *mutation);
                report.failed.first().map(|(seed, violation)| format!("seed {seed}: {}", violation.invariant))
            }
            Self::Node(bug) => in_simulation(own, *bug),
        }
    }
}
