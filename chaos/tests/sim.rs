//! Whole nodes keep every promise under simulated faults, reproducibly, and a node with a bug is detected.

// `cfg(test)` is always true here; it makes clippy treat helpers outside `#[test]` as tests.
#![cfg(test)]

use std::process::{Command, Output};

use conclave_chaos::sim::{SimBug, SimPlan};

/// Histories of one run of the tests; `make sim` runs many more.
const SEEDS: &str = "16";
/// Histories in which a bug must show, if it depends on chance.
const WAIT_LIMIT: &str = "24";
/// Histories of a staged situation.
const IN_A_PLAN: &str = "8";

fn sim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave-chaos"));
    command.arg("sim").args(arguments).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn no_promise_is_broken_and_enough_happens() {
    let output = sim(&["--seeds", SEEDS, "--json"]);
    let found = json(&output);
    assert!(output.status.success(), "{found}");
    for (what, at_least) in
        [("faults", 100), ("logins", 300), ("checks accepted", 800), ("revocations acknowledged", 100)]
    {
        assert!(found["counts"][what].as_u64().unwrap_or(0) > at_least, "{what}: {found}");
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    let (first, again) = (sim(&["--line", "--seed", "5"]), sim(&["--line", "--seed", "5"]));
    assert_eq!(json(&first), json(&again));
    assert_ne!(json(&first), json(&sim(&["--line", "--seed", "6"])));
}

#[test]
fn situations_brought_about_on_purpose_break_nothing() {
    for (plan, what) in [
        ("deposed", "revocations acknowledged"),
        ("returned", "revocations acknowledged"),
        ("reborn", "writes acknowledged"),
        ("power-lost", "writes acknowledged"),
    ] {
        let output = sim(&["--plan", plan, "--seeds", IN_A_PLAN, "--json"]);
        let found = json(&output);
        assert!(output.status.success(), "{plan}: {found}");
        // A plan whose situation does not arise proves nothing.
        let (done, seeds) = (found["counts"][what].as_u64().unwrap_or(0), found["seeds"].as_u64().unwrap());
        assert!(done >= seeds, "{plan}: {found}");
    }
}

#[test]
fn each_bug_that_chance_brings_to_light_breaks_the_promise_it_is_known_to_break() {
    assert_eq!(bite(|plan| plan == SimPlan::Storm), 1);
}

#[test]
fn each_bug_that_needs_a_situation_breaks_the_promise_it_is_known_to_break() {
    assert_eq!(bite(|plan| plan != SimPlan::Storm), 7);
}

/// The number of histories that a bug gets. At a power loss, all nodes at once must lose unsynced writes: one
/// history in four shows it.
fn seeds(plan: SimPlan) -> &'static str {
    if matches!(plan, SimPlan::Storm | SimPlan::PowerLost) { WAIT_LIMIT } else { IN_A_PLAN }
}

/// Runs the known bugs of these plans; each must be caught. Returns their number.
fn bite(planned: impl Fn(SimPlan) -> bool) -> usize {
    let mut caught = 0;
    for (name, bug) in SimBug::ALL.iter().filter(|(_, bug)| planned(bug.plan())) {
        let Some(promise) = bug.breaks() else { continue };
        let output = sim(&["--seeds", seeds(bug.plan()), "--json", "--mutate", name]);
        assert_eq!(output.status.code(), Some(1), "{name} was not caught");
        let found = json(&output);
        let runs = found["failed"].as_array().into_iter().flatten();
        let mut lines =
            runs.filter_map(|run| run["violations"].as_array()).flatten().filter_map(|l| l.as_str());
        assert!(lines.any(|line| promise.is_of(line)), "{name} broke something else: {found}");
        caught += 1;
    }
    caught
}
