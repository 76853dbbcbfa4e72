//! `conclave cluster …`

use conclave_client::{AdminClient, v1};
use serde_json::{Value, json};

use super::{failure::Failure, output::Output};

const FIELDS: &[&str] = &["cluster_id", "epoch", "leader_id", "feature_level", "archive"];
const COLUMNS: &[&str] = &[
    "id",
    "role",
    "ready",
    "term",
    "applied_index",
    "lag",
    "clock_offset_ms",
    "lease_left_ms",
    "disk_free_bytes",
    "digest",
    "version",
    "api_url",
];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the members and their statuses
    #[command(after_help = "\
Examples:
  conclave cluster status
  conclave cluster status -o json | jq '[.nodes[].digest] | unique | length'
      1 when all nodes hold the same state")]
    Status,
    /// Make this machine a member of a running cluster: needs its secret and the address of one member
    #[command(after_help = "\
Examples:
  conclave cluster join 10.0.0.1:9300 --secret-file cluster.secret
      then: conclave serve --config node.toml
  conclave cluster join 10.0.0.1:9300 --config /etc/conclave/conclave.toml --set-aside
      with the existing settings of this machine; the contents of its data directory are kept aside
  conclave cluster join 10.0.0.1:9300 --secret-file cluster.secret --data-dir /var/lib/conclave --out /etc/conclave/node.toml")]
    Join(super::join::JoinArgs),
    /// Remove a node for good: its number is never used again
    #[command(after_help = "Examples:\n  conclave cluster remove 3\n  conclave cluster remove 3 --force")]
    Remove {
        /// The number of the node, as in `conclave cluster status`
        node: u64,
        /// Remove it even if most of the remaining voters do not answer
        #[arg(long)]
        force: bool,
    },
    /// Replace a node by one that has joined, in one change
    #[command(after_help = "Examples:\n  conclave cluster replace 3 4")]
    Replace {
        /// The node that is removed
        old: u64,
        /// The node that replaces it; it has joined and caught up
        new: u64,
    },
    /// Set log time back to the clocks after wrong clocks moved it ahead; ends what was created meanwhile
    #[command(after_help = "\
Examples:
  conclave cluster status
      shows how far log time is ahead, and if the clocks agree now
  conclave cluster reset-clock --yes")]
    ResetClock {
        /// Confirm: sessions, grants and tokens made while log time was ahead end
        #[arg(long)]
        yes: bool,
    },
    /// Transfer leadership to another node, before maintenance of the leader's machine
    #[command(
        after_help = "Examples:\n  conclave cluster transfer-leader\n  conclave cluster transfer-leader --to 2"
    )]
    TransferLeader {
        /// The number of the new leader [default: the most caught-up voter that answers]
        #[arg(long, value_name = "NODE", default_value_t = 0, hide_default_value = true)]
        to: u64,
    },
}

pub(super) async fn run(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Status => {
            let status = client.cluster().status(v1::GetStatusRequest {}).await?;
            let (warnings, value) = (status.problems.clone(), value(&status));
            Ok(Output::Warned { warnings, fields: FIELDS, value, list: "nodes", columns: COLUMNS })
        }
        Command::ResetClock { yes: false } => Err(Failure::usage(
            "this ends every sign-in, grant and token that was made while log time was ahead of the clocks; look at `conclave \
             cluster status` first, correct the clocks of all machines, and run it again with --yes",
        )),
        Command::ResetClock { yes: true } => {
            let done = client.cluster().reset_log_time(v1::ResetLogTimeRequest {}).await?;
            let value = json!({
                "from_ms": done.from_ms,
                "to_ms": done.to_ms,
                "ended_sessions": done.ended_sessions,
                "ended_grants": done.ended_grants,
                "ended_credentials": done.ended_credentials,
            });
            let text = format!(
                "log time was set back by {} s; {} sessions, {} grants and {} tokens, app passwords and invitations that were made \
                 while it was ahead have ended",
                done.from_ms.saturating_sub(done.to_ms) / 1_000,
                done.ended_sessions,
                done.ended_grants,
                done.ended_credentials
            );
            Ok(Output::done(text, value))
        }
        Command::Remove { node, force } => {
            client.cluster().remove(v1::RemoveNodeRequest { node_id: node, force }).await?;
            Ok(Output::done(format!("node {node} is removed"), json!({ "removed": node })))
        }
        Command::Replace { old, new } => {
            let request = v1::ReplaceNodeRequest { old_node_id: old, new_node_id: new };
            client.cluster().replace(request).await?;
            let text = format!("node {new} has replaced node {old} as a voter");
            Ok(Output::done(text, json!({ "removed": old, "added": new })))
        }
        Command::TransferLeader { to } => {
            let request = v1::TransferLeaderRequest { node_id: to };
            let leader = client.cluster().transfer_leader(request).await?.leader_id;
            Ok(Output::done(format!("node {leader} leads"), json!({ "leader_id": leader })))
        }
        // It needs no API, so it runs before a connection is made.
        Command::Join(args) => super::join::run(&args, None).await,
    }
}

fn value(status: &v1::ClusterStatus) -> Value {
    json!({
        "cluster_id": status.cluster_id,
        "epoch": status.epoch,
        "problems": status.problems,
        "leader_id": status.leader_id,
        "feature_level": status.feature_level,
        "archive": super::archive::summary(status.archive.as_ref()),
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
        "reasons": node.reasons,
        "clock_offset_ms": node.clock_offset_us / 1_000,
        "version": node.version,
        "term": node.term,
        "last_log_index": node.last_log_index,
        "applied_index": node.applied_index,
        "snapshot_index": node.snapshot_index,
        "lag": node.lag,
        "lease_left_ms": node.lease_left_ms,
        "disk_free_bytes": node.disk_free_bytes,
        "digest": node.digest,
        "log_bytes": node.log_bytes,
        "uptime_ms": node.uptime_ms,
        "cluster_addr": node.cluster_addr,
        "api_url": node.api_url,
    })
}
