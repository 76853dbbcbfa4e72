//! Every known bug, put in on purpose, one after the other: each must be caught. A checker that has never caught anything proves
//! nothing.
//!
//! Only with the feature "mutations" are there any.

use crate::{
    model::{BOUNDS, Bug, Outcome, search},
    report,
    sim::mutation::Mutation,
};

/// Histories in which a bug of the rules' replicas must show.
const SEEDS: u64 = 60;
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

/// Shows every known bug to its checker, and tells `done` of each.
pub fn run(mut done: impl FnMut(&Bite)) -> Vec<Bite> {
    let leases = Bug::ALL.iter().map(|(bug, kind)| (*bug, "model", Kind::Lease(*kind)));
    let replicas = Mutation::ALL
        .iter()
        .filter(|(_, mutation)| *mutation != Mutation::None)
        .map(|(bug, mutation)| (*bug, "sim", Kind::Replica(*mutation)));
    leases
        .chain(replicas)
        .map(|(bug, checker, kind)| {
            let bite = Bite { bug, checker, caught: kind.caught() };
            done(&bite);
            bite
        })
        .collect()
}

enum Kind {
    Lease(Bug),
    Replica(Mutation),
}

impl Kind {
    fn caught(&self) -> Option<String> {
        match self {
            Self::Lease(bug) => BOUNDS.iter().find_map(|(name, bounds)| match search(bounds, *bug, WORLDS) {
                Outcome::Broken { steps } => Some(format!("{name}, in {} steps", steps.len())),
                Outcome::Holds { .. } | Outcome::Unfinished { .. } => None,
            }),
            Self::Replica(mutation) => {
                let report = report::run(1, SEEDS, *mutation);
                report.failed.first().map(|(seed, violation)| format!("seed {seed}: {}", violation.invariant))
            }
        }
    }
}
