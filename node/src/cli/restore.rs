//! `conclave restore`: founds a cluster from a snapshot or from its archive, on a machine where no node runs.

use std::path::PathBuf;

use serde_json::{Value, json};

use conclave_archive::read::Until;
use conclave_base::runtime::Runtime;
use conclave_cluster::offline_state::OfflineState;
use conclave_config::{Config, find_secret};
use conclave_crypto::{hex, keys::ClusterKeys};
use conclave_dr::{
    archived,
    offline::{LogTime, Restore, Restored, restore},
    report::ChangeReport,
};
use conclave_store::snapshot::SealingKey;

use super::{
    failure::Failure,
    output::{Format, Output, with},
    progress::Progress,
};

const FIELDS: &[&str] = &[
    "restored",
    "node_id",
    "cluster_id",
    "epoch",
    "index",
    "data_dir",
    "aside",
    "users",
    "sessions_ended",
    "change_count",
    "next",
];
const ARCHIVE_FIELDS: &[&str] = &[
    "restored",
    "node_id",
    "cluster_id",
    "epoch",
    "index",
    "data_dir",
    "aside",
    "users",
    "sessions_ended",
    "change_count",
    "archive",
    "next",
];
const CHANGES: &[&str] = &["kind", "name", "what"];

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conclave restore conclave.snapshot --config conclave.toml --dry-run
  conclave restore conclave.snapshot --config conclave.toml
      then: conclave serve --config conclave.toml
      then, on each other machine, with an empty data directory:
            conclave cluster join THIS-MACHINE:9300 --secret-file cluster.secret
  conclave restore --archive --config conclave.toml
      the newest state in the archive of these settings
  conclave restore --archive --at 2026-11-21T14:30:00Z --config conclave.toml
      the state at that time; later revocations and disabled accounts remain
  conclave restore --archive --target s3://backups/conclave --config conclave.toml

The settings are those of the node that starts here: its data directory, its secret, its addresses. The cluster gets a new lineage,
this node a new number, and all users must sign in again; nodes of the old cluster are refused. To restore a snapshot into a running
cluster: conclave snapshot restore.")]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct RestoreArgs {
    /// A snapshot file
    #[arg(required_unless_present = "archive", conflicts_with = "archive")]
    file: Option<PathBuf>,
    /// Restore from the archive
    #[arg(long)]
    archive: bool,
    /// The URL of an archive other than that of the settings
    #[arg(long, value_name = "URL", requires = "archive")]
    target: Option<String>,
    /// Restore the state at this time, such as 2026-11-21T14:30:00Z
    #[arg(long, value_name = "TIME", requires = "archive", value_parser = super::policies::moment)]
    at: Option<u64>,
    /// Restore the state at this log index
    #[arg(long, value_name = "INDEX", requires = "archive", conflicts_with = "at")]
    index: Option<u64>,
    /// The lineage (epoch) of the cluster, if two lineages wrote to the archive in parallel
    #[arg(long = "life", value_name = "EPOCH", requires = "archive")]
    lineage: Option<u64>,
    /// Settings of the node that is to start here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show the result, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep existing contents of the data directory beside the restored data; otherwise the directory must be empty
    #[arg(long)]
    set_aside: bool,
    /// Re-enable users that were deleted after the restored point; otherwise they come back disabled
    #[arg(long)]
    enable_returning: bool,
    /// Set log time to this machine's clock: for a cluster whose clocks were ahead when the snapshot was written
    #[arg(long)]
    reset_log_time: bool,
    /// The output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: RestoreArgs) -> Result<(Output, Format), Failure> {
    let config = settings(args.config.as_deref())?;
    let keys = keys(&config)?;
    let (found, told_of_archive) = match args.file.clone() {
        Some(file) => (of_file(file, keys.clone()).await?, None),
        None => of_archive(&args, &config, &keys).await.map(|(found, about)| (found, Some(about)))?,
    };
    let format = args.output;
    let work = tokio::task::spawn_blocking(move || {
        let (then, newest) = found;
        let wanted = Restore {
            older: then,
            newest,
            data_dir: config.node.data_dir.clone(),
            cluster_addr: config.cluster.address_of(config.node.id),
            api_url: config.api.url(),
            keep_sessions: false,
            enable_returning: args.enable_returning,
            set_aside: args.set_aside,
            dry_run: args.dry_run,
            log_time: if args.reset_log_time { LogTime::Reset } else { LogTime::Refuse },
        };
        let done = restore(wanted, &keys, &Runtime::system()).map_err(|e| Failure::other(e.to_string()))?;
        Ok::<_, Failure>(told(&config, args.config.as_deref(), &done, args.dry_run))
    });
    let output = work.await.map_err(|error| Failure::other(error.to_string()))??;
    let output = match &told_of_archive {
        Some(about) => with_archive(output, about),
        None => output,
    };
    Ok((output, format))
}

async fn of_file(file: PathBuf, keys: ClusterKeys) -> Result<(OfflineState, OfflineState), Failure> {
    let read = move || {
        let key = SealingKey::ring(&keys);
        let mut progress = Progress::new("reading", 0);
        OfflineState::of_file(&file, &key, |done| progress.at(done))
    };
    let known = tokio::task::spawn_blocking(read).await.map_err(|error| Failure::other(error.to_string()))?;
    let known = known.map_err(|error| Failure::other(error.to_string()))?;
    Ok((known.clone(), known))
}

async fn of_archive(
    args: &RestoreArgs,
    config: &Config,
    keys: &ClusterKeys,
) -> Result<((OfflineState, OfflineState), Value), Failure> {
    let mut settings = config.archive.clone();
    settings.target = args.target.clone().or(settings.target);
    if settings.target.is_none() {
        return Err(Failure::usage("these settings name no archive.target; give one with --target"));
    }
    let point = match (args.at, args.index) {
        (Some(at), _) => Until::TimeMs(at),
        (None, Some(index)) => Until::Index(index),
        (None, None) => Until::Latest,
    };
    // Beside the data directory, where there is room for it.
    let beside = config.node.data_dir.parent().filter(|parent| parent.is_dir());
    let mut scratch = tempfile::Builder::new();
    scratch.prefix(".conclave-restore-");
    let scratch = match beside {
        Some(beside) => scratch.tempdir_in(beside),
        None => scratch.tempdir(),
    };
    let scratch = scratch
        .map_err(|error| Failure::other(format!("there is no room for the archive's files: {error}")))?;
    let mut progress = Progress::new("fetching", 0);
    let mut step = |done: conclave_archive::read::DownloadProgress| {
        progress.then("fetching", done.bytes_total);
        progress.at(done.bytes);
    };
    let found = archived::read(&settings, keys, point, args.lineage, scratch.path(), &mut step)
        .await
        .map_err(|error| Failure::other(error.to_string()))?;
    drop(progress);
    let about = json!({
        "restored_index": found.older.state.index(),
        "log_ends_at": found.log_ends_at,
        "journal_complete_to": found.journal_complete_to,
        "revoked_after_the_log": found.revocation_journal.applied,
        "not_understood": found.revocation_journal.not_understood,
    });
    Ok(((found.older, found.newest), about))
}

/// Adds the fields about the archive after those of every restore.
fn with_archive(output: Output, about: &Value) -> Output {
    let add = |value: Value| with(value, "archive", about.clone());
    match output {
        Output::One { value, .. } => Output::One { fields: ARCHIVE_FIELDS, value: add(value) },
        Output::Nested { value, list, columns, .. } => {
            Output::Nested { fields: ARCHIVE_FIELDS, value: add(value), list, columns }
        }
        other => other,
    }
}

pub(super) fn settings(file: Option<&std::path::Path>) -> Result<Config, Failure> {
    Config::load(file).map_err(|error| Failure::usage(error.to_string()))
}

pub(super) fn keys(config: &Config) -> Result<ClusterKeys, Failure> {
    let secret = find_secret(config).map_err(|error| Failure::usage(error.to_string()))?;
    let secret = secret.ok_or_else(|| {
        Failure::usage(
            "no cluster secret is found here: bring the one of the cluster that wrote the snapshot, and name it in \
             cluster.secret_file of --config, or in CONCLAVE_CLUSTER__SECRET",
        )
    })?;
    Ok(ClusterKeys::ring(&secret))
}

pub(super) fn told(
    config: &Config,
    file: Option<&std::path::Path>,
    done: &Restored,
    dry_run: bool,
) -> Output {
    let ChangeReport { changes, change_count, users, sessions_ended } = &done.report;
    let named = file.map_or_else(String::new, |file| format!(" --config {}", file.display()));
    let next = if dry_run {
        "nothing was written: run it again without --dry-run".to_owned()
    } else {
        format!(
            "conclave serve{named}; then on each other machine, with an empty data directory: conclave cluster join {} --secret-file FILE",
            config.cluster.address_of(config.node.id)
        )
    };
    let changes: Vec<Value> = changes
        .iter()
        .map(|change| json!({ "kind": change.kind, "name": change.name, "what": change.what }))
        .collect();
    let value = json!({
        "restored": !dry_run,
        "node_id": done.lineage.node,
        "cluster_id": hex::encode(&done.lineage.lineage.cluster),
        "epoch": done.lineage.lineage.epoch,
        "index": done.lineage.start.index,
        "data_dir": config.node.data_dir,
        "aside": done.aside,
        "users": users,
        "sessions_ended": sessions_ended,
        "change_count": change_count,
        "next": next,
        "changes": changes,
    });
    if changes.is_empty() {
        Output::One { fields: FIELDS, value }
    } else {
        Output::Nested { fields: FIELDS, value, list: "changes", columns: CHANGES }
    }
}
