//! A short run of three real processes under faults, judged like the long ones.

// `cfg(test)` is always true here; it makes clippy treat helpers outside `#[test]` as tests.
#![cfg(test)]

use std::{path::PathBuf, process::Command};

/// The node that `--workspace` builds beside the tests.
fn node() -> PathBuf {
    let chaos = PathBuf::from(env!("CARGO_BIN_EXE_conclave-chaos"));
    let node = chaos.with_file_name("conclave");
    assert!(node.exists(), "{} is not built: run the tests of the workspace", node.display());
    node
}

fn live(scenario: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave-chaos"));
    command.args(["live", "--scenario", scenario, "--duration", "8s", "--json", "--binary"]).arg(node());
    let output = command.output().unwrap();
    let found: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(output.status.success(), "{found}");
    for (what, at_least) in [
        ("faults", 1),
        ("logins", 5),
        ("forward-auth checks", 100),
        ("checks accepted", 100),
        ("sessions as they must be at the end", 15),
        ("users as they must be at the end", 15),
    ] {
        assert!(found["counts"][what].as_u64().unwrap_or(0) >= at_least, "{what}: {found}");
    }
}

#[test]
fn killed_nodes_lose_and_repeat_nothing() {
    live("kill");
}

#[test]
fn a_node_that_lost_its_disk_joins_as_another() {
    live("wipe");
}
