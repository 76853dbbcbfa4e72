//! Whole nodes keep every promise under simulated faults, the same way each time, and a node that does wrong is found out.

// `cfg(test)` is always true here; it is what tells clippy that helpers outside of `#[test]` are tests too.
#![cfg(test)]

use std::process::{Command, Output};

/// Histories of one run of the tests; `make sim` lives through many more.
const SEEDS: &str = "16";
/// Histories in which a bug must show.
const PATIENCE: &str = "24";

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
fn a_disk_that_forgets_and_a_leader_that_believes_itself_are_found_out() {
    for bug in ["sync-forgotten", "ack-ignores-table"] {
        let output = sim(&["--seeds", PATIENCE, "--json", "--mutate", bug]);
        assert_eq!(output.status.code(), Some(1), "{bug} was not caught");
        let found = json(&output);
        let broken =
            found["failed"].as_array().into_iter().flatten().filter_map(|run| run["violations"].as_array());
        let mut promises =
            broken.flatten().filter(|seen| !seen.as_str().unwrap_or("").starts_with("a panic"));
        assert!(promises.next().is_some(), "{bug} only made something panic: {found}");
    }
}
