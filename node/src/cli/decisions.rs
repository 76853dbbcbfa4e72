//! `conclave policy explain` and `conclave policy decisions`: the reasons why users were allowed or denied.

use std::io::Write as _;

use conclave_client::{AdminClient, v1};
use serde_json::{Value, json};

use super::{
    failure::Failure,
    output::{Output, with},
    policies::{everywhere, members, verdict},
};
use conclave_auth::policy::node_of;

const DECISION: &[&str] = &[
    "id",
    "at_ms",
    "application",
    "user",
    "allowed",
    "row",
    "why",
    "saw",
    "version",
    "address",
    "method",
    "host",
    "path",
];
const COLUMNS: &[&str] = &["at_ms", "user", "application", "allowed", "why", "path", "id"];

#[derive(Debug, clap::Args)]
pub struct Listing {
    /// Only decisions about this user, by name or id
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only decisions about this application, by slug or id
    #[arg(long, value_name = "SLUG")]
    app: Option<String>,
    /// Only denials
    #[arg(long)]
    denied: bool,
}

pub(super) async fn list(client: &AdminClient, listing: Listing) -> Result<Output, Failure> {
    let (answers, missing) = everywhere(client, async |there| {
        let asked = v1::ListDecisionsRequest {
            application: listing.app.clone().unwrap_or_default(),
            user: listing.user.clone().unwrap_or_default(),
            denied: listing.denied,
        };
        there.policies().decisions(asked).await
    })
    .await?;
    if !missing.is_empty() {
        let nodes: Vec<String> = missing.iter().map(u64::to_string).collect();
        let _ = writeln!(
            std::io::stderr(),
            "warning: no answer from node {}; decisions made there are not listed",
            nodes.join(", ")
        );
    }
    let mut decisions: Vec<v1::Decision> = answers.into_iter().flat_map(|answer| answer.decisions).collect();
    decisions.sort_by_key(|decision| std::cmp::Reverse(decision.at_ms));
    Ok(Output::Many { columns: COLUMNS, rows: decisions.iter().map(told).collect() })
}

pub(super) async fn explain(client: &AdminClient, decision: String) -> Result<Output, Failure> {
    let node = node_of(&decision).ok_or_else(|| {
        Failure::usage(format!("{decision:?} is not a decision id; one looks like 1-9f86d081884c7d65"))
    })?;
    let member = members(client).await?.into_iter().find(|(id, _)| *id == node);
    let there = member.and_then(|(_, client)| client).ok_or_else(|| {
        Failure::other(format!("node {node} made the decision and does not answer; no other node knows it"))
    })?;
    let decision = there.policies().explain(v1::ExplainDecisionRequest { decision }).await?;
    Ok(Output::One { fields: DECISION, value: told(&decision) })
}

fn told(decision: &v1::Decision) -> Value {
    let mut value = verdict(&decision.verdict.clone().unwrap_or_default());
    for (name, content) in [
        ("id", json!(decision.id)),
        ("at_ms", json!(decision.at_ms)),
        ("application", json!(decision.application)),
        ("address", json!(decision.address)),
        ("method", json!(decision.method)),
        ("host", json!(decision.host)),
        ("path", json!(decision.path)),
    ] {
        value = with(value, name, content);
    }
    value
}
