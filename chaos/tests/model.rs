//! The serve leases hold in every world within the bounds, and every known way to get them wrong is found.

// `cfg(test)` is always true here; it makes clippy treat helpers outside `#[test]` as tests.
#![cfg(test)]

use conclave_chaos::model::{BOUNDS, Bounds, ModelBug, SearchOutcome, search};

/// More worlds than any of the bounds has.
const LIMIT: u64 = 5_000_000;
/// The number of bounds that cover one kind of fault; the others combine an election with another. There are two tests
/// because of their duration.
const ONE_AT_A_TIME: usize = 8;

#[test]
fn no_order_of_events_within_the_bounds_breaks_the_promise() {
    hold(&BOUNDS[..ONE_AT_A_TIME]);
}

#[test]
fn neither_does_an_election_beside_whatever_else_may_happen() {
    hold(&BOUNDS[ONE_AT_A_TIME..]);
}

fn hold(within: &[(&str, Bounds)]) {
    for (name, bounds) in within {
        let outcome = search(bounds, ModelBug::None, LIMIT);
        let SearchOutcome::Holds { worlds } = outcome else { panic!("{name}: {outcome:?}") };
        assert!(worlds > 10_000, "{name}: only {worlds} worlds");
    }
}

#[test]
fn each_known_bug_is_found_with_the_shortest_way_to_it() {
    assert_eq!(ModelBug::ALL.len(), 13);
    for (bug_name, bug) in ModelBug::ALL {
        let found = BOUNDS.iter().find_map(|(_, bounds)| match search(bounds, *bug, LIMIT) {
            SearchOutcome::Broken { steps } => Some(steps),
            _ => None,
        });
        let steps = found.unwrap_or_else(|| panic!("{bug_name} was not caught"));
        assert!(steps.iter().any(|step| step.starts_with("acknowledge")), "{bug_name}: {steps:?}");
    }
}
