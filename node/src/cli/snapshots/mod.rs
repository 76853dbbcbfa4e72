//! `conclave snapshot …`: the whole cluster in one file.

mod offline;
mod restore;
mod save;

use std::path::PathBuf;

use conclave_client::v1::SaveSnapshotRequest;

use super::{archive, connection::ApiArgs, failure::Failure, output::Output};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Take a snapshot at any node, without interrupting it, and write it to a file here
    #[command(after_help = "\
Examples:
  conclave snapshot save
  conclave snapshot save --to /backup/conclave-2026-11-21.snapshot --linearizable
      includes everything acknowledged before, even if the node lags
  conclave snapshot save --min-index 48213
      includes at least this entry, as named in a response of the API
  conclave snapshot save --to s3://bucket/conclave/before-upgrade.snapshot --config conclave.toml
      to a bucket, with the keys of [archive] in these settings

The file is sealed under the cluster secret. Keep the secret in another, safe place: without it the file cannot be opened.")]
    Save {
        /// The destination: a file, or s3://BUCKET/NAME; an existing file is not changed [default:
        /// conclave-INDEX.snapshot]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// Include everything that was acknowledged before
        #[arg(long)]
        linearizable: bool,
        /// Include at least this log entry
        #[arg(
            long,
            value_name = "INDEX",
            default_value_t = 0,
            hide_default_value = true,
            conflicts_with = "linearizable"
        )]
        min_index: u64,
    },
    /// Show the header of a file: needs no cluster, and no secret
    #[command(
        after_help = "Examples:\n  conclave snapshot inspect conclave.snapshot\n  conclave snapshot inspect conclave.snapshot --config conclave.toml\n      also shows if this machine's secret opens it"
    )]
    Inspect {
        /// The file
        file: PathBuf,
    },
    /// Read a file to its last byte and verify all of it: needs the cluster secret, and no cluster
    #[command(
        after_help = "Examples:\n  conclave snapshot verify conclave.snapshot --config conclave.toml\n  conclave snapshot verify conclave.snapshot -o json"
    )]
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Restore a file into a scratch directory, start a node on it and sign a user in: a test of disaster recovery
    #[command(after_help = "\
Examples:
  conclave snapshot drill conclave.snapshot --config conclave.toml
  conclave snapshot drill --archive --config conclave.toml -o json
      the newest snapshot in the archive of these settings, with its log and journal

Needs the cluster secret, and no cluster. Nothing leaves this machine, and nothing is kept.")]
    Drill {
        /// The file
        #[arg(required_unless_present = "archive", conflicts_with = "archive")]
        file: Option<PathBuf>,
        /// Use the archive in place of a file
        #[arg(long)]
        archive: bool,
    },
    /// List the snapshots in the archive, as `conclave archive list`
    #[command(after_help = "Examples:\n  conclave snapshot list\n  conclave snapshot list -o json")]
    List,
    /// Remove objects that no kept object needs from the archive, as `conclave archive prune`
    #[command(after_help = "Examples:\n  conclave snapshot prune --dry-run\n  conclave snapshot prune")]
    Prune {
        /// Only show what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Replace everything in the running cluster by a snapshot; all users are signed out
    #[command(after_help = "\
Examples:
  conclave snapshot restore conclave.snapshot --dry-run
      shows what would change
  conclave snapshot restore conclave.snapshot --yes

Passwords, secrets and keys keep their current values, and users disabled or deleted since come back disabled. For a lost cluster:
conclave restore.")]
    Restore(Restoring),
}

#[derive(Debug, clap::Args)]
pub struct Restoring {
    /// The file
    file: PathBuf,
    /// Show the changes, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Confirm the replacement of the current contents; without it nothing is done
    #[arg(long)]
    yes: bool,
    /// Re-enable users deleted after the snapshot was taken
    #[arg(long)]
    enable_returning: bool,
}

pub(super) async fn run(api: &ApiArgs, command: Command) -> Result<Output, Failure> {
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
        Command::Restore(request) => restore::run(&api.connect()?, request).await,
    }
}
