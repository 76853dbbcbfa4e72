//! `conclave restore`: a cluster is founded from a snapshot, on a machine where no node runs.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{
    cluster::known::Known,
    config::{Config, find_secret},
    crypto::{hex, keys::ClusterKeys},
    dr::{
        offline::{Restore, Restored, restore},
        report::Report,
    },
    runtime::Runtime,
    store::snapshot::{Peeked, SealingKey},
};

use super::{
    failure::Failure,
    output::{Format, Output},
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
const CHANGES: &[&str] = &["kind", "name", "what"];

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conclave restore conclave.snapshot --config conclave.toml --dry-run
  conclave restore conclave.snapshot --config conclave.toml
      then: conclave serve --config conclave.toml
      then, on each other machine, with an empty data directory:
            conclave cluster join THIS-MACHINE:9300 --secret-file cluster.secret

The settings are those of the node that starts here: its data directory, its secret, its addresses. The cluster gets a new lineage,
this node a new number, and everybody signs in again; nodes of the old cluster are refused. To put a snapshot in the place of what a
cluster that runs holds: conclave snapshot restore.")]
pub struct RestoreArgs {
    /// The file
    file: PathBuf,
    /// Settings of the node that is to start here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say what would come of it, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep what is in the data directory beside the restored data; else the directory must be empty
    #[arg(long)]
    set_aside: bool,
    /// How to print the result
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub async fn run(args: RestoreArgs) -> Result<(Output, Format), Failure> {
    let format = args.output;
    let work = tokio::task::spawn_blocking(move || restored(&args));
    let output = work.await.map_err(|error| Failure::other(error.to_string()))??;
    Ok((output, format))
}

fn restored(args: &RestoreArgs) -> Result<Output, Failure> {
    let config = settings(args.config.as_deref())?;
    let keys = keys(&config)?;
    let key = SealingKey::new(*keys.sealing.expose());
    let unreadable = |e: &dyn std::fmt::Display| Failure::other(e.to_string());
    // The key before anything else: it is the commonest mistake, and costs nothing to see.
    let peeked = Peeked::read(&args.file, Some(&key)).map_err(|e| unreadable(&e))?;
    let mut progress = Progress::new("reading", 0);
    let known = Known::of_file(&args.file, &key, |done| progress.at(done)).map_err(|e| unreadable(&e))?;
    drop((progress, peeked));
    let order = Restore {
        older: known.clone(),
        newest: known,
        data_dir: config.node.data_dir.clone(),
        cluster_addr: config.cluster.address_of(config.node.id),
        api_url: config.api.url(),
        keep_sessions: false,
        enable_returning: false,
        set_aside: args.set_aside,
        dry_run: args.dry_run,
    };
    let done = restore(order, &keys, &Runtime::system()).map_err(|e| Failure::other(e.to_string()))?;
    Ok(told(&config, args.config.as_deref(), &done, args.dry_run))
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
    Ok(ClusterKeys::derive(&secret))
}

pub(super) fn told(
    config: &Config,
    file: Option<&std::path::Path>,
    done: &Restored,
    dry_run: bool,
) -> Output {
    let Report { changes, change_count, users, sessions_ended } = &done.report;
    let named = file.map_or_else(String::new, |file| format!(" --config {}", file.display()));
    let next = if dry_run {
        "nothing was written: say it again without --dry-run".to_owned()
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
        "node_id": done.life.node,
        "cluster_id": hex::encode(&done.life.lineage.cluster),
        "epoch": done.life.lineage.epoch,
        "index": done.life.start.index,
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
