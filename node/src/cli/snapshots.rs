//! `conclave snapshot …`: the whole cluster in one file.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use conclave_client::{Client, v1};
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    archive,
    connection::ApiArgs,
    failure::Failure,
    output::{Output, with},
    progress::Progress,
};
use crate::{
    archive::{Target, read::Until},
    boot,
    cluster::known::Known,
    config::find_secret,
    crypto::{hex, keys::ClusterKeys},
    dr::archived,
    runtime::Runtime,
    store::snapshot::{Peeked, SealingKey, SnapshotReader},
};

/// Bytes of one message on the way to a node.
const PART_BYTES: usize = 256 * 1024;
/// Messages read ahead of the network.
const QUEUE: usize = 4;

const SAVED: &[&str] = &["file", "cluster_id", "epoch", "term", "index", "created_at_ms", "size_bytes"];
const INSPECTED: &[&str] =
    &["file", "cluster_id", "epoch", "term", "index", "created_at_ms", "size_bytes", "key_id", "opens_here"];
const VERIFIED: &[&str] = &[
    "file",
    "cluster_id",
    "epoch",
    "term",
    "index",
    "created_at_ms",
    "size_bytes",
    "plain_bytes",
    "users",
    "digest",
];
const REPORT: &[&str] = &["restored", "index", "users", "sessions_ended", "change_count", "snapshot_index"];
const DRILLED: &[&str] =
    &["file", "passed", "index", "users", "digest", "restored_ms", "ready_ms", "signed_in_ms"];
const TABLES: &[&str] = &["table", "root"];
const CHANGES: &[&str] = &["kind", "name", "what"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Take a snapshot at any node, while everything goes on, and write it to a file here
    #[command(after_help = "\
Examples:
  conclave snapshot save
  conclave snapshot save --to /backup/conclave-2026-11-21.snapshot --linearizable
      with everything acknowledged before, though the node that is asked lags
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
    /// Restore a file into a scratch directory, start a node on it and sign somebody in: whether it would help on the worst day
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
  conclave snapshot restore conclave.snapshot

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
    /// Whoever was deleted since comes back as they were
    #[arg(long)]
    enable_returning: bool,
}

pub async fn run(api: &ApiArgs, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Save { to, linearizable } => match to.as_deref().and_then(in_bucket) {
            Some((bucket, name)) => save_to_bucket(api, bucket, name, linearizable).await,
            None => save(&api.connect()?, to, linearizable).await,
        },
        Command::Inspect { file } => inspect(api, &file),
        Command::Verify { file } => verify(api, &file),
        Command::Drill { file, archive: _ } => drill(api, file).await,
        Command::List => archive::run(&api.connect()?, archive::Command::List).await,
        Command::Prune { dry_run } => {
            archive::run(&api.connect()?, archive::Command::Prune { dry_run }).await
        }
        Command::Restore(order) => restore(&api.connect()?, order).await,
    }
}

async fn save(client: &Client, to: Option<PathBuf>, linearizable: bool) -> Result<Output, Failure> {
    if let Some(to) = to.as_deref().filter(|to| to.exists()) {
        return Err(exists(to));
    }
    let mut saved = client.snapshots().save(v1::SaveSnapshotRequest { linearizable }).await?;
    let about = saved.description.clone();
    let to = to.unwrap_or_else(|| PathBuf::from(format!("conclave-{}.snapshot", about.index)));
    let aside = Aside::create(&to)?;
    let mut progress = Progress::new("saving", about.size_bytes);
    let mut done = 0;
    let failed = |e: std::io::Error| Failure::other(format!("cannot write {}: {e}", aside.path.display()));
    while let Some(bytes) = saved.next().await? {
        (&aside.file).write_all(&bytes).map_err(failed)?;
        done += bytes.len() as u64;
        progress.at(done);
    }
    drop(progress);
    if done != about.size_bytes {
        return Err(Failure::other(format!(
            "the node sent {done} of {} bytes; nothing was written: try again",
            about.size_bytes
        )));
    }
    aside.keep(&to)?;
    let value = described(&to, &about);
    Ok(Output::One { fields: SAVED, value })
}

/// The bucket and the name of what is not a file here.
fn in_bucket(to: &Path) -> Option<(String, String)> {
    let url = to.to_str().filter(|url| url.starts_with("s3://"))?;
    let (bucket, name) = url.rsplit_once('/')?;
    Some((bucket.to_owned(), name.to_owned()))
}

/// By way of a file here, which is gone afterwards.
async fn save_to_bucket(
    api: &ApiArgs,
    bucket: String,
    name: String,
    linearizable: bool,
) -> Result<Output, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::other(format!("cannot save to {bucket}/{name}: {e}"));
    let settings = crate::config::Archive { target: Some(bucket.clone()), ..api.settings()?.archive };
    let target = Target::open(&settings).map_err(|e| Failure::usage(e.to_string()))?;
    let scratch = tempfile::Builder::new().prefix("conclave-save-").tempdir().map_err(|e| failed(&e))?;
    let file = scratch.path().join("snapshot");
    let saved = save(&api.connect()?, Some(file.clone()), linearizable).await?;
    target.put_file(&name, &file).await.map_err(|e| failed(&e))?;
    match saved {
        Output::One { fields, value } => {
            Ok(Output::One { fields, value: with(value, "file", format!("{bucket}/{name}")) })
        }
        other => Ok(other),
    }
}

/// A file that has its name only once it is complete.
struct Aside {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Aside {
    fn create(to: &Path) -> Result<Self, Failure> {
        if to.exists() {
            return Err(exists(to));
        }
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = to.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|e| Failure::other(format!("cannot write {}: {e}", path.display())))?;
        Ok(Self { path, file, kept: false })
    }

    fn keep(mut self, to: &Path) -> Result<(), Failure> {
        let kept = self.file.sync_all().and_then(|()| fs::hard_link(&self.path, to));
        kept.map_err(|e| Failure::other(format!("cannot write {}: {e}", to.display())))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Kept: it has another name by now.
        let _ = fs::remove_file(&self.path);
    }
}

fn exists(to: &Path) -> Failure {
    Failure::usage(format!("{} exists; name another file with --to", to.display()))
}

fn inspect(api: &ApiArgs, file: &Path) -> Result<Output, Failure> {
    let key = sealing_key(api)?;
    let peeked = Peeked::read(file, key.as_ref()).map_err(|e| Failure::other(e.to_string()))?;
    let header = &peeked.header;
    let value = json!({
        "file": file,
        "cluster_id": hex::encode(&header.cluster),
        "epoch": header.lineage_epoch,
        "term": header.last.map(|last| last.term),
        "index": header.last.map(|last| last.index),
        "created_at_ms": header.created_at_ms,
        "size_bytes": peeked.size_bytes,
        "key_id": peeked.key_id,
        "opens_here": peeked.opens,
    });
    Ok(Output::One { fields: INSPECTED, value })
}

fn verify(api: &ApiArgs, file: &Path) -> Result<Output, Failure> {
    let key = sealing_key(api)?.ok_or_else(no_secret)?;
    let damaged = |e: &dyn std::fmt::Display| Failure::other(e.to_string());
    let summary =
        SnapshotReader::open(file, &key).and_then(SnapshotReader::verify).map_err(|e| damaged(&e))?;
    let mut progress = Progress::new("verifying", summary.plain_bytes);
    let known = Known::of_file(file, &key, |done| progress.at(done)).map_err(|e| damaged(&e))?;
    drop(progress);
    let header = &summary.file.header;
    let tables =
        summary.roots.iter().map(|(table, root)| json!({ "table": table, "root": hex::encode(root) }));
    let value = json!({
        "file": file,
        "cluster_id": hex::encode(&header.cluster),
        "epoch": header.lineage_epoch,
        "term": header.last.map(|last| last.term),
        "index": header.last.map(|last| last.index),
        "created_at_ms": header.created_at_ms,
        "size_bytes": summary.file.size_bytes,
        "plain_bytes": summary.plain_bytes,
        "users": known.state.users_after(None).count(),
        "digest": hex::encode(&conclave_state::snapshot::digest(&known.state)),
        "tables": tables.collect::<Vec<_>>(),
    });
    Ok(Output::Nested { fields: VERIFIED, value, list: "tables", columns: TABLES })
}

async fn drill(api: &ApiArgs, file: Option<PathBuf>) -> Result<Output, Failure> {
    let config = api.settings()?;
    let secret = find_secret(&config).map_err(|error| Failure::usage(error.to_string()))?;
    let secret = secret.ok_or_else(no_secret)?;
    let keys = ClusterKeys::ring(&secret);
    let failed = |e: &dyn std::fmt::Display| Failure::other(format!("the drill failed: {e}"));
    let mut progress = Progress::new("reading", 0);
    let known = if let Some(file) = &file {
        let key = SealingKey::ring(&keys);
        Known::of_file(file, &key, |done| progress.at(done)).map_err(|e| failed(&e))?
    } else {
        let scratch = tempfile::Builder::new().prefix("conclave-drill-").tempdir().map_err(|e| failed(&e))?;
        let mut step = |done: crate::archive::read::Progress| progress.at(done.bytes);
        let found = archived::read(&config.archive, &keys, Until::Latest, scratch.path(), &mut step).await;
        found.map_err(|e| failed(&e))?.newest
    };
    drop(progress);
    let runtime = Runtime::system();
    let serve = {
        let runtime = runtime.clone();
        move |config, stop| async move { boot::run(config, runtime, stop).await.map_err(|e| e.to_string()) }
    };
    let outcome = crate::dr::drill::drill(known, &secret, &runtime, serve).await.map_err(|e| failed(&e))?;
    let value = json!({
        "file": file,
        "passed": true,
        "index": outcome.index,
        "users": outcome.users,
        "digest": hex::encode(&outcome.digest),
        "restored_ms": outcome.restored_ms,
        "ready_ms": outcome.ready_ms,
        "signed_in_ms": outcome.signed_in_ms,
    });
    Ok(Output::One { fields: DRILLED, value })
}

fn no_secret() -> Failure {
    Failure::usage(
        "no cluster secret is found here; name a node's settings with --config, or set CONCLAVE_CLUSTER__SECRET",
    )
}

fn sealing_key(api: &ApiArgs) -> Result<Option<SealingKey>, Failure> {
    let secret = find_secret(&api.settings()?).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(secret.map(|secret| SealingKey::ring(&ClusterKeys::ring(&secret))))
}

async fn restore(client: &Client, order: Restoring) -> Result<Output, Failure> {
    let unreadable = |e: std::io::Error| Failure::usage(format!("{}: {e}", order.file.display()));
    let size_bytes = fs::metadata(&order.file).map_err(unreadable)?.len();
    let first = v1::RestoreOrder {
        source: order.file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        size_bytes,
        dry_run: order.dry_run,
        enable_returning: order.enable_returning,
    };
    let mut restoring = client.snapshots().restore(|| parts(&order.file, first.clone())).await?;
    let mut progress = Progress::new("sending", size_bytes);
    let mut report = None;
    while let Some(step) = restoring.next().await? {
        match step {
            v1::restore_progress::Step::ReceivedBytes(done) => progress.at(done),
            v1::restore_progress::Step::Staged(staged) => {
                progress.then("restoring", staged.of);
                progress.at(staged.done);
            }
            v1::restore_progress::Step::Report(done) => report = Some(done),
        }
    }
    drop(progress);
    let report =
        report.ok_or_else(|| Failure::other("the node did not say what came of it; nothing was restored"))?;
    Ok(told(&report))
}

/// The order and the bytes of the file, read on a thread of their own as the network takes them.
fn parts(file: &Path, order: v1::RestoreOrder) -> ReceiverStream<v1::RestorePart> {
    let (out, stream) = tokio::sync::mpsc::channel(QUEUE);
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || {
        let part = |part| v1::RestorePart { part: Some(part) };
        let _ = out.blocking_send(part(v1::restore_part::Part::Order(order)));
        let Ok(mut file) = File::open(file) else { return };
        loop {
            let mut data = Vec::with_capacity(PART_BYTES);
            let read = (&mut file).take(PART_BYTES as u64).read_to_end(&mut data);
            // A file that ends early is noticed by the node: its length was announced.
            if read.is_err() || data.is_empty() {
                return;
            }
            if out.blocking_send(part(v1::restore_part::Part::Data(data))).is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

fn told(report: &v1::RestoreReport) -> Output {
    let changes = report
        .changes
        .iter()
        .map(|change| json!({ "kind": change.kind, "name": change.name, "what": change.what }));
    let value = json!({
        "restored": report.restored,
        "index": report.index,
        "users": report.users,
        "sessions_ended": report.sessions_ended,
        "change_count": report.change_count,
        "snapshot_index": report.snapshot.as_ref().map(|snapshot| snapshot.index),
        "changes": changes.collect::<Vec<_>>(),
    });
    Output::Nested { fields: REPORT, value, list: "changes", columns: CHANGES }
}

fn described(file: &Path, about: &v1::SnapshotDescription) -> Value {
    json!({
        "file": file,
        "cluster_id": about.cluster_id,
        "epoch": about.epoch,
        "term": about.term,
        "index": about.index,
        "created_at_ms": about.created_at_ms,
        "size_bytes": about.size_bytes,
    })
}
