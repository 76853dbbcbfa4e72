//! The dependencies of the node: its only HTTP client is ours, which checks addresses (`http::outbound`). `deny.toml`
//! keeps other clients out of the workspace where it can; this test covers the rest: tests may use one of them, the
//! node may not.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::{Value, json};

/// Crates that send requests by themselves, without the rules for addresses, sizes and times.
const CLIENTS: [&str; 17] = [
    "atrium-xrpc-client",
    "attohttpc",
    "awc",
    "curl",
    "ehttp",
    "http_req",
    "hyper-rustls",
    "hyper-tls",
    "isahc",
    "minreq",
    "nyquest",
    "reqwest",
    "reqwest-middleware",
    "surf",
    "ureq",
    "wreq",
    "xh",
];
/// The feature by which the crates of atrium add an HTTP client of their own, which panics and trusts every address.
const DEFAULT_CLIENT: &str = "default-client";

/// The forbidden dependencies of a workspace, as `cargo metadata` describes it.
fn wrong(metadata: &Value, root: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let names: BTreeMap<String, String> =
        list(&metadata["packages"]).iter().map(|of| (text(&of["id"]), text(&of["name"]))).collect();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|of| (text(&of["id"]), of)).collect();
    let mut problems: Vec<String> = nodes
        .iter()
        .filter(|(id, _)| names[*id].starts_with("atrium"))
        .filter(|(_, of)| list(&of["features"]).iter().any(|name| name == DEFAULT_CLIENT))
        .map(|(id, _)| format!("{} has its feature {DEFAULT_CLIENT}", names[id]))
        .collect();

    let begin = names.iter().find(|(_, name)| *name == root).map(|(id, _)| id.clone());
    let mut waiting = vec![begin.unwrap_or_else(|| panic!("{root} is not in the workspace"))];
    let mut seen: BTreeSet<String> = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        for dependency in list(&nodes[&id]["deps"]) {
            // Null: neither for tests nor for build scripts.
            let is_built_in = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let to = text(&dependency["pkg"]);
            if is_built_in && CLIENTS.contains(&names[&to].as_str()) {
                problems.push(format!("{} brings {}", names[&id], names[&to]));
            }
            waiting.extend(is_built_in.then_some(to));
        }
    }
    problems
}

#[test]
fn no_request_leaves_the_node_by_another_client_than_our_own() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    for root in ["conclave-node", "conclave-client"] {
        assert_eq!(wrong(&metadata, root), Vec::<String>::new(), "{root}");
    }
    // The search is complete: it finds the dependencies of the node, and not those that only tests have.
    let dependencies = wrong(&metadata, "conclave-chaos");
    let has_any = metadata["packages"].as_array().unwrap().iter().any(|of| of["name"] == "reqwest");
    assert_eq!((has_any, dependencies.is_empty()), (true, false), "{dependencies:?}");
}

#[test]
fn another_client_and_the_default_one_of_atrium_are_found_however_deep() {
    let package = |name: &str| json!({"id": format!("{name} 1"), "name": name});
    let node = |name: &str, features: &[&str], deps: &[(&str, Value)]| {
        let deps: Vec<Value> = deps
            .iter()
            .map(
                |(to, kind)| json!({"pkg": format!("{to} 1"), "dep_kinds": [{"kind": kind, "target": null}]}),
            )
            .collect();
        json!({"id": format!("{name} 1"), "features": features, "deps": deps})
    };
    let workspace = |kind: Value, features: &[&str]| {
        json!({
            "packages": [package("own"), package("atrium-oauth"), package("middle"), package("isahc")],
            "resolve": {"nodes": [
                node("own", &[], &[("atrium-oauth", Value::Null), ("middle", kind)]),
                node("atrium-oauth", features, &[]),
                node("middle", &[], &[("isahc", Value::Null)]),
                node("isahc", &[], &[]),
            ]},
        })
    };
    assert_eq!(wrong(&workspace(json!("dev"), &["default"]), "own"), Vec::<String>::new());
    assert_eq!(wrong(&workspace(Value::Null, &[]), "own"), ["middle brings isahc"]);
    let found = wrong(&workspace(json!("dev"), &[DEFAULT_CLIENT]), "own");
    assert_eq!(found, ["atrium-oauth has its feature default-client"]);
}
