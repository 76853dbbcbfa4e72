//! `conclave cluster …`

use conclave_client::{Client, v1};
use serde_json::{Value, json};

use super::{failure::Failure, output::Output};

const FIELDS: &[&str] = &["cluster_id", "epoch", "leader_id", "feature_level"];
const COLUMNS: &[&str] = &[
    "id",
    "role",
    "ready",
    "term",
    "applied_index",
    "last_log_index",
    "digest",
    "version",
    "api_url",
    "error",
];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the members and what each says of itself
    #[command(after_help = "\
Examples:
  conclave cluster status
  conclave cluster status -o json | jq '[.nodes[].digest] | unique | length'
      1 when all nodes hold the same state")]
    Status,
}

pub async fn run(client: &Client, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Status => {
            let status = client.cluster().status(v1::GetStatusRequest {}).await?;
            Ok(Output::Nested { fields: FIELDS, value: value(&status), list: "nodes", columns: COLUMNS })
        }
    }
}

fn value(status: &v1::ClusterStatus) -> Value {
    json!({
        "cluster_id": status.cluster_id,
        "epoch": status.epoch,
        "leader_id": status.leader_id,
        "feature_level": status.feature_level,
        "nodes": status.nodes.iter().map(node).collect::<Vec<_>>(),
    })
}

fn node(node: &v1::NodeStatus) -> Value {
    json!({
        "id": node.id,
        "role": node.role,
        "reachable": node.reachable,
        "ready": node.ready,
        "error": node.error,
        "version": node.version,
        "term": node.term,
        "last_log_index": node.last_log_index,
        "applied_index": node.applied_index,
        "snapshot_index": node.snapshot_index,
        "digest": node.digest,
        "log_bytes": node.log_bytes,
        "uptime_ms": node.uptime_ms,
        "cluster_addr": node.cluster_addr,
        "api_url": node.api_url,
    })
}
