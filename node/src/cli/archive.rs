//! `conclave archive …`

use conclave_client::{AdminClient, v1};
use serde_json::{Value, json};

use super::{failure::Failure, output::Output};

const STATUS: &[&str] = &[
    "target",
    "node_id",
    "archived_index",
    "behind_entries",
    "behind_ms",
    "alarm",
    "last_error",
    "last_error_at_ms",
    "last_snapshot_at_ms",
    "last_snapshot_index",
    "gap_before_index",
    "last_verified_at_ms",
    "last_drill_error",
];
const CHAINS: &[&str] =
    &["kind", "epoch", "first_index", "last_index", "last_at_ms", "segments", "size_bytes"];
const SNAPSHOTS: &[&str] = &["index", "epoch", "at_ms", "size_bytes", "name"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show how far the archive is behind, and its errors
    #[command(after_help = "\
Examples:
  conclave archive status
  conclave archive status -o json | jq .alarm
      true when it is more than ten seconds behind, or has a gap")]
    Status,
    /// List the snapshots in the archive, and how far back its log is complete
    #[command(after_help = "Examples:\n  conclave archive list\n  conclave archive list -o json")]
    List,
    /// Remove objects that no kept object needs; the leader does so after each snapshot
    #[command(after_help = "Examples:\n  conclave archive prune --dry-run\n  conclave archive prune")]
    Prune {
        /// Only show what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) async fn run(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Status => {
            let status = client.archive().status(v1::GetArchiveStatusRequest {}).await?;
            Ok(Output::One { fields: STATUS, value: status_value(&status) })
        }
        Command::List => {
            let found = client.archive().list(v1::ListArchiveRequest {}).await?;
            Ok(Output::Two {
                value: json!({
                    "snapshots": found.snapshots.iter().map(snapshot).collect::<Vec<_>>(),
                    "chains": found.chains.iter().map(chain).collect::<Vec<_>>(),
                }),
                lists: [("snapshots", SNAPSHOTS), ("chains", CHAINS)],
            })
        }
        Command::Prune { dry_run } => {
            let gone = client.archive().prune(v1::PruneArchiveRequest { dry_run }).await?;
            let verb = if dry_run { "would be removed" } else { "were removed" };
            let left = match gone.left {
                0 => String::new(),
                left => format!("; {left} objects could not be removed now: are they locked?"),
            };
            let text = format!(
                "{} snapshots, {} segments and {} pieces of the journal {verb}, {} bytes{left}",
                gone.snapshots.len(),
                gone.segments,
                gone.journal,
                gone.size_bytes
            );
            let value = json!({
                "dry_run": dry_run,
                "snapshots": gone.snapshots,
                "segments": gone.segments,
                "journal": gone.journal,
                "size_bytes": gone.size_bytes,
                "left": gone.left,
            });
            Ok(Output::done(text, value))
        }
    }
}

/// The fields of an archive status, for this command and for the status of the cluster.
pub(super) fn status_value(status: &v1::ArchiveStatus) -> Value {
    json!({
        "target": status.target,
        "node_id": status.node_id,
        "archived_index": status.archived_index,
        "behind_entries": status.behind_entries,
        "behind_ms": status.behind_ms,
        "alarm": status.alarm,
        "last_error": status.last_error,
        "last_error_at_ms": status.last_error_at_ms,
        "last_snapshot_at_ms": status.last_snapshot_at_ms,
        "last_snapshot_index": status.last_snapshot_index,
        "gap_before_index": status.gap_before_index,
        "last_verified_at_ms": status.last_verified_at_ms,
        "last_drill_error": status.last_drill_error,
    })
}

/// A short summary for the status of the cluster: nothing, ok, or the problem.
pub(super) fn summary(status: Option<&v1::ArchiveStatus>) -> Value {
    let Some(status) = status else { return Value::Null };
    if !status.alarm {
        return json!("ok");
    }
    let why = if status.last_error.is_empty() { String::new() } else { format!(": {}", status.last_error) };
    if status.gap_before_index == 0 {
        json!(format!("{} s behind{why}", status.behind_ms / 1000))
    } else {
        json!(format!("a gap before entry {} until the next snapshot{why}", status.gap_before_index))
    }
}

fn snapshot(snapshot: &v1::ArchivedSnapshot) -> Value {
    json!({
        "name": snapshot.name,
        "epoch": snapshot.epoch,
        "index": snapshot.index,
        "at_ms": snapshot.at_ms,
        "size_bytes": snapshot.size_bytes,
    })
}

fn chain(chain: &v1::ArchivedChain) -> Value {
    json!({
        "kind": chain.kind,
        "epoch": chain.epoch,
        "first_index": chain.first_index,
        "last_index": chain.last_index,
        "last_at_ms": chain.last_at_ms,
        "segments": chain.segments,
        "size_bytes": chain.size_bytes,
    })
}
