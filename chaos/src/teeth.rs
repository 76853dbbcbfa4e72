//! Every known bug, put in on purpose, one after the other: each must be caught. A checker that has never caught anything proves
//! nothing.
//!
//! Only with the feature "mutations" are there any.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    model::{BOUNDS, Bug, Outcome, search},
    report,
    rules::mutation::Mutation,
    sim,
};

/// Histories in which a bug of the rules' replicas must show.
const SEEDS: u64 = 60;
/// Histories of whole nodes in which a bug of theirs must show.
const NODE_SEEDS: &str = "150";
/// More worlds than any of the model's bounds has.
const WORLDS: u64 = 5_000_000;

/// A bug, and what caught it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bite {
    /// Its name.
    pub bug: &'static str,
    /// Which checker it was shown to.
    pub checker: &'static str,
    /// How it was caught; none when it survived.
    pub caught: Option<String>,
}

/// Shows every known bug to its checker, and tells `done` of each. `own` is the path of `conclave-chaos`.
pub fn run(own: &Path, mut done: impl FnMut(&Bite)) -> Vec<Bite> {
    let leases = Bug::ALL.iter().map(|(bug, kind)| (*bug, "model", Kind::Lease(*kind)));
    let replicas = Mutation::ALL
        .iter()
        .filter(|(_, mutation)| *mutation != Mutation::None)
        .map(|(bug, mutation)| (*bug, "rules", Kind::Replica(*mutation)));
    let nodes = sim::Bug::ALL
        .iter()
        .filter(|(_, bug)| *bug != sim::Bug::None)
        .map(|(bug, _)| (*bug, "sim", Kind::Node(bug)));
    leases
        .chain(replicas)
        .chain(nodes)
        .map(|(bug, checker, kind)| {
            let bite = Bite { bug, checker, caught: kind.caught(own) };
            done(&bite);
            bite
        })
        .collect()
}

/// In processes of their own, for chance belongs to the process.
fn in_simulation(own: &Path, bug: &str) -> Option<String> {
    let mut command = Command::new(own);
    command.args(["sim", "--json", "--seeds", NODE_SEEDS, "--mutate", bug]).stderr(Stdio::null());
    let found: Value = serde_json::from_slice(&command.output().ok()?.stdout).ok()?;
    let failed = found.get("failed")?.as_array()?;
    let (first, count) = (failed.first()?, failed.len());
    let (seed, what) = (first.get("seed")?, first.get("violations")?.get(0)?.as_str()?);
    Some(format!("{count} of {NODE_SEEDS} seeds, first {seed}: {what}"))
}

enum Kind {
    Lease(Bug),
    Replica(Mutation),
    Node(&'static str),
}

impl Kind {
    fn caught(&self, own: &Path) -> Option<String> {
        match self {
            Self::Lease(bug) => BOUNDS.iter().find_map(|(name, bounds)| match search(bounds, *bug, WORLDS) {
                Outcome::Broken { steps } => Some(format!("{name}, in {} steps", steps.len())),
                Outcome::Holds { .. } | Outcome::Unfinished { .. } => None,
            }),
            Self::Replica(mutation) => {
                let report = report::run(1, SEEDS, *mutation);
                report.failed.first().map(|(seed, violation)| format!("seed {seed}: {}", violation.invariant))
            }
            Self::Node(bug) => in_simulation(own, bug),
        }
    }
}
