//! A breadth-first search over all worlds within bounds, each once; the shortest path to a broken promise is reported
//! step by step.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher as _,
};

use foldhash::quality::FixedState;

use super::{
    bugs::ModelBug,
    steps,
    world::{Bounds, ModelWorld},
};

/// The result of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchOutcome {
    /// Every world within the bounds was visited, and the promise holds in each.
    Holds {
        /// The number of worlds.
        worlds: u64,
    },
    /// There are more worlds than the search may visit; the promise holds in those that it visited.
    Unfinished {
        /// The number of worlds visited.
        worlds: u64,
    },
    /// The shortest path to a world in which the promise is broken.
    Broken {
        /// The names of the steps.
        steps: Vec<&'static str>,
    },
}

/// The identity of a world: 64 bits of a good hash. Among some ten million worlds, two share one with a probability of
/// three in a million.
type Name = u64;

/// Visits at most `limit` worlds.
#[must_use]
pub fn search(bounds: &Bounds, bug: ModelBug, limit: u64) -> SearchOutcome {
    match visit(bounds, bug, limit, &mut |_, _, _| ()) {
        Found::Broken(name) => SearchOutcome::Broken { steps: way_to(name, bounds, bug, limit) },
        Found::Holds(worlds) => SearchOutcome::Holds { worlds },
        Found::Unfinished(worlds) => SearchOutcome::Unfinished { worlds },
    }
}

enum Found {
    Holds(u64),
    Unfinished(u64),
    Broken(Name),
}

fn visit(
    bounds: &Bounds,
    bug: ModelBug,
    limit: u64,
    seen: &mut impl FnMut(Name, Name, &'static str),
) -> Found {
    let hasher = FixedState::default();
    let mut known: HashSet<Name, FixedState> = HashSet::default();
    let mut frontier: Vec<ModelWorld> = bounds.beginnings(bug);
    known.extend(frontier.iter().map(|world| hasher.hash_one(world)));
    let mut broken = None;
    while !frontier.is_empty() {
        let mut beyond = Vec::new();
        for world in &frontier {
            let from = hasher.hash_one(world);
            steps::next(world, bounds, bug, &mut |step, next| {
                let name = hasher.hash_one(&next);
                if known.insert(name) {
                    seen(from, name, step);
                    if !next.holds() {
                        broken.get_or_insert(name);
                    }
                    beyond.push(next);
                }
            });
            if let Some(name) = broken {
                return Found::Broken(name);
            }
            if known.len() as u64 >= limit {
                return Found::Unfinished(known.len() as u64);
            }
        }
        frontier = beyond;
    }
    Found::Holds(known.len() as u64)
}

/// Searches once more and remembers the predecessor of each world: only a broken promise is worth that memory.
fn way_to(end: Name, bounds: &Bounds, bug: ModelBug, limit: u64) -> Vec<&'static str> {
    let mut origin: HashMap<Name, (Name, &'static str), FixedState> = HashMap::default();
    let _ = visit(bounds, bug, limit, &mut |from, name, step| {
        origin.insert(name, (from, step));
    });
    let mut steps = Vec::new();
    let mut at = end;
    while let Some((from, step)) = origin.get(&at) {
        steps.push(*step);
        at = *from;
    }
    steps.reverse();
    steps
}
