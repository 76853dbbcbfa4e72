//! `conclave snapshot …`: the whole cluster in one file.

mod offline;
mod restore;
mod save;

use std::path::PathBuf;

use conclave_client::v1::SaveSnapshotRequest;

use super::{archive, connection::ApiArgs, failure::Failure, output::Output};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Take a snapshot at any node, while everything goes on, and write it to a file here
    #[command(after_help = "\
Examples:
  conclave snapshot save
  conclave snapshot save --to /backup/conclave-2026-11-21.snapshot --linearizable
      with everything acknowledged before, though the node that is asked lags
  conclave snapshot save --min-index 48213
      with this entry at least, as an answer of the API named it
  conclave snapshot save --to s3://bucket/conclave/before-upgrade.snapshot --config conclave.toml
      to a bucket, with the keys of [archive] in these settings

The file is sealed under the cluster secret. Keep that apart from it, and safe: without it nobody can open the file.")]
    Save {
        /// Where to: a file, or s3://BUCKET/NAME; what exists is left alone [default: conclave-INDEX.snapshot]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// With everything that was acknowledged before
        #[arg(long)]
        linearizable: bool,
        /// With at least this log entry
        #[arg(
            long,
            value_name = "INDEX",
            default_value_t = 0,
            hide_default_value = true,
            conflicts_with = "linearizable"
        )]
        min_index: u64,
    },
    /// What a file says it is: needs no cluster, and no secret
    #[command(
        after_help = "Examples:\n  conclave snapshot inspect conclave.snapshot\n  conclave snapshot inspect conclave.snapshot --config conclave.toml\n      says as well whether this machine's secret opens it"
    )]
    Inspect {
        /// The file
        file: PathBuf,
    },
    /// Read a file to its last byte and prove all of it: needs the cluster secret, and no cluster
    #[command(
        after_help = "Examples:\n  conclave snapshot verify conclave.snapshot --config conclave.toml\n  conclave snapshot verify conclave.snapshot -o json"
    )]
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Restore a file into a scratch directory, start a node on it and sign somebody in: whether it would help on the
    /// worst day
    #[command(after_help = "\
Examples:
  conclave snapshot drill conclave.snapshot --config conclave.toml
  conclave snapshot drill --archive --config conclave.toml -o json
      the newest that the archive of these settings holds, with its log and journal

Needs the cluster secret, and no cluster. Nothing leaves this machine, and nothing stays.")]
    Drill {
        /// The file
        #[arg(required_unless_present = "archive", conflicts_with = "archive")]
        file: Option<PathBuf>,
        /// What the archive holds
        #[arg(long)]
        archive: bool,
    },
    /// List what lies in the archive, as `conclave archive list`
    #[command(after_help = "Examples:\n  conclave snapshot list\n  conclave snapshot list -o json")]
    List,
    /// Remove what nothing kept needs any more from the archive, as `conclave archive prune`
    #[command(after_help = "Examples:\n  conclave snapshot prune --dry-run\n  conclave snapshot prune")]
    Prune {
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
    /// Put a snapshot in the place of everything in the cluster that runs; everybody is signed out
    #[command(after_help = "\
Examples:
  conclave snapshot restore conclave.snapshot --dry-run
      what would change
  conclave snapshot restore conclave.snapshot --yes

Passwords, secrets and keys stay as they are now, and whoever was disabled or deleted since comes back disabled. For a cluster
that is lost: conclave restore.")]
    Restore(Restoring),
}

#[derive(Debug, clap::Args)]
pub struct Restoring {
    /// The file
    file: PathBuf,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace what the cluster holds now; nothing is done without it
    #[arg(long)]
    yes: bool,
    /// Whoever was deleted since comes back as they were
    #[arg(long)]
    enable_returning: bool,
}

pub async fn run(api: &ApiArgs, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Save { to, linearizable, min_index } => {
            save::run(api, to, SaveSnapshotRequest { linearizable, min_index }).await
        }
        Command::Inspect { file } => offline::inspect(api, &file),
        Command::Verify { file } => offline::verify(api, &file),
        Command::Drill { file, archive: _ } => Box::pin(offline::drill(api, file)).await,
        Command::List => archive::run(&api.connect()?, archive::Command::List).await,
        Command::Prune { dry_run } => {
            archive::run(&api.connect()?, archive::Command::Prune { dry_run }).await
        }
        Command::Restore(order) => restore::run(&api.connect()?, order).await,
    }
}
