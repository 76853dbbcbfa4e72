//! Commands for a snapshot file without a cluster: inspect, verify, drill.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::{
    connection::ApiArgs,
    failure::Failure,
    output::{Output, with},
    progress::Progress,
};
use crate::boot;
use conclave_archive::read::Until;
use conclave_base::runtime::Runtime;
use conclave_cluster::offline_state::OfflineState;
use conclave_config::find_secret;
use conclave_crypto::{hex, keys::ClusterKeys};
use conclave_dr::archived;
use conclave_store::snapshot::{Peeked, SealingKey, SnapshotHeader, SnapshotReader};

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
const DRILLED: &[&str] =
    &["file", "passed", "index", "users", "digest", "restored_ms", "ready_ms", "signed_in_ms"];
const TABLES: &[&str] = &["table", "root"];

pub(super) fn inspect(api: &ApiArgs, file: &Path) -> Result<Output, Failure> {
    let key = sealing_key(api)?;
    let peeked = Peeked::read(file, key.as_ref()).map_err(|e| Failure::other(e.to_string()))?;
    let value = described(file, &peeked.header, peeked.size_bytes);
    let value = with(with(value, "key_id", peeked.key_id), "opens_here", peeked.opens);
    Ok(Output::One { fields: INSPECTED, value })
}

/// The contents of a file's header.
fn described(file: &Path, header: &SnapshotHeader, size_bytes: u64) -> Value {
    json!({
        "file": file,
        "cluster_id": hex::encode(&header.cluster),
        "epoch": header.lineage_epoch,
        "term": header.last.map(|last| last.term),
        "index": header.last.map(|last| last.index),
        "created_at_ms": header.created_at_ms,
        "size_bytes": size_bytes,
    })
}

pub(super) fn verify(api: &ApiArgs, file: &Path) -> Result<Output, Failure> {
    let key = sealing_key(api)?.ok_or_else(no_secret)?;
    let damaged = |e: &dyn std::fmt::Display| Failure::other(e.to_string());
    let summary =
        SnapshotReader::open(file, &key).and_then(SnapshotReader::verify).map_err(|e| damaged(&e))?;
    let mut progress = Progress::new("verifying", summary.plain_bytes);
    let known = OfflineState::of_file(file, &key, |done| progress.at(done)).map_err(|e| damaged(&e))?;
    drop(progress);
    let tables =
        summary.roots.iter().map(|(table, root)| json!({ "table": table, "root": hex::encode(root) }));
    let digest = hex::encode(&conclave_state::snapshot::digest(&known.state));
    let found: [(&str, Value); 4] = [
        ("plain_bytes", summary.plain_bytes.into()),
        ("users", known.state.user_count().into()),
        ("digest", digest.into()),
        ("tables", tables.collect()),
    ];
    let value = described(file, &summary.file.header, summary.file.size_bytes);
    let value = found.into_iter().fold(value, |value, (field, content)| with(value, field, content));
    Ok(Output::Nested { fields: VERIFIED, value, list: "tables", columns: TABLES })
}

pub(super) async fn drill(api: &ApiArgs, file: Option<PathBuf>) -> Result<Output, Failure> {
    let config = api.settings()?;
    let secret = find_secret(&config).map_err(|error| Failure::usage(error.to_string()))?;
    let secret = secret.ok_or_else(no_secret)?;
    let keys = ClusterKeys::ring(&secret);
    let failed = |e: &dyn std::fmt::Display| Failure::other(format!("the drill failed: {e}"));
    let mut progress = Progress::new("reading", 0);
    let known = if let Some(file) = &file {
        let key = SealingKey::ring(&keys);
        OfflineState::of_file(file, &key, |done| progress.at(done)).map_err(|e| failed(&e))?
    } else {
        let scratch = tempfile::Builder::new().prefix("conclave-drill-").tempdir().map_err(|e| failed(&e))?;
        let mut step = |done: conclave_archive::read::DownloadProgress| progress.at(done.bytes);
        let found =
            archived::read(&config.archive, &keys, Until::Latest, None, scratch.path(), &mut step).await;
        found.map_err(|e| failed(&e))?.newest
    };
    drop(progress);
    let runtime = Runtime::system();
    let serve = {
        let runtime = runtime.clone();
        move |config, stop| async move { boot::run(config, runtime, stop).await.map_err(|e| e.to_string()) }
    };
    // An interrupted drill still removes what it restored, and the secret with it.
    let outcome = tokio::select! {
        outcome = conclave_dr::drill::drill(known, &secret, &runtime, serve) => outcome.map_err(|e| failed(&e))?,
        _ = tokio::signal::ctrl_c() => return Err(Failure::other("the drill was cancelled")),
    };
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
