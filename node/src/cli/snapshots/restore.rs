//! `conclave snapshot restore`: sends a file to a running cluster.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use conclave_client::{AdminClient, v1};
use serde_json::json;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    super::{failure::Failure, output::Output, progress::Progress},
    Restoring,
};

/// Bytes of one message to a node.
const PART_BYTES: usize = 256 * 1024;
/// Messages read ahead of the network.
const QUEUE: usize = 4;

const REPORT: &[&str] = &["restored", "index", "users", "sessions_ended", "change_count", "snapshot_index"];
const CHANGES: &[&str] = &["kind", "name", "what"];

pub(super) async fn run(client: &AdminClient, request: Restoring) -> Result<Output, Failure> {
    if !request.yes && !request.dry_run {
        return Err(Failure::usage(
            "this replaces everything in the cluster and signs all users out; show the changes with --dry-run, and \
             confirm with --yes",
        ));
    }
    let unreadable = |e: std::io::Error| Failure::usage(format!("{}: {e}", request.file.display()));
    let size_bytes = fs::metadata(&request.file).map_err(unreadable)?.len();
    let first = v1::RestoreOrder {
        source: request.file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        size_bytes,
        dry_run: request.dry_run,
        enable_returning: request.enable_returning,
    };
    let mut restoring = client.snapshots().restore(|| parts(&request.file, first.clone())).await?;
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
        report.ok_or_else(|| Failure::other("the node did not report a result; nothing was restored"))?;
    Ok(told(&report))
}

/// The command and the bytes of the file, read on a thread of their own at the speed of the network.
fn parts(file: &Path, request: v1::RestoreOrder) -> ReceiverStream<v1::RestorePart> {
    let (out, stream) = tokio::sync::mpsc::channel(QUEUE);
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || {
        let part = |part| v1::RestorePart { part: Some(part) };
        let _ = out.blocking_send(part(v1::restore_part::Part::Order(request)));
        let Ok(mut file) = File::open(file) else { return };
        loop {
            let mut data = Vec::with_capacity(PART_BYTES);
            let read = (&mut file).take(PART_BYTES as u64).read_to_end(&mut data);
            // The node notices a file that ends early: its length was announced.
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
