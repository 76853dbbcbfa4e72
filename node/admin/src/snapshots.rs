//! Download and restore of snapshots. Both take longer than a call may. The work runs in a task of its own, which the
//! caller's stream feeds and watches, and which ends when the caller disconnects.

use std::{
    io::{self, Read as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use conclave_proto::admin::v1::{self as pb, snapshot_service_server::SnapshotService};
use conclave_state::State;
use tokio::{
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use conclave_auth::write_key::WriteKey;
use conclave_cluster::{Cluster, SaveError, offline_state::OfflineState};
use conclave_crypto::hex;
use conclave_dr::{report::ChangeReport, running};
use conclave_store::snapshot::{MAX_SNAPSHOT_BYTES, SnapshotHeader};

use super::{Api, errors};

/// Bytes of one message.
const PART_BYTES: usize = 256 * 1024;
/// Messages that are queued for a slow caller.
const QUEUE: usize = 4;
/// Snapshots and restores at once on one node: each may hold a second copy of the state.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// The number of attempts to find a leader, and the pause between them: longer than an ordinary election takes.
const CONFIRM_TRIES: u32 = 40;
/// The longest silence of a caller.
const SILENCE: Duration = Duration::from_secs(30);
const CONFIRM_PAUSE: Duration = Duration::from_millis(100);

type Parts<T> = Response<ReceiverStream<Result<T, Status>>>;
type Out<T> = mpsc::Sender<Result<T, Status>>;

#[tonic::async_trait]
impl SnapshotService for Api {
    type SaveSnapshotStream = ReceiverStream<Result<pb::SavedPart, Status>>;
    type RestoreSnapshotStream = ReceiverStream<Result<pb::RestoreProgress, Status>>;

    async fn save_snapshot(
        &self,
        request: Request<pb::SaveSnapshotRequest>,
    ) -> Result<Parts<pb::SavedPart>, Status> {
        let (_, message) = self.write(request, "SaveSnapshot").await?;
        let cluster = self.auth.cluster().clone();
        Ok(streamed(|out| async move { save(&cluster, &message, &out).await }))
    }

    async fn restore_snapshot(
        &self,
        request: Request<Streaming<pb::RestorePart>>,
    ) -> Result<Parts<pb::RestoreProgress>, Status> {
        // Checked before anything is read: a caller without permission must not hold the stream open.
        self.may_write(request.metadata()).await?;
        // The stream carries no request id, so its write gets a random name.
        let (metadata, extensions, mut parts) = request.into_parts();
        let authority = Authority { api: self.clone(), metadata: metadata.clone() };
        let Some(pb::restore_part::Part::Order(message)) = next(&mut parts).await? else {
            return Err(errors::invalid("the first message of a restore must be its order"));
        };
        let named = Request::from_parts(metadata, extensions, message);
        let (writing, message) = self.write(named, "RestoreSnapshot").await?;
        let cluster = self.auth.cluster().clone();
        let write_key = writing.write_key;
        Ok(streamed(
            |out| async move { restore(&cluster, &write_key, &message, parts, authority, &out).await },
        ))
    }
}

/// The caller's authority, to be checked again once the file has arrived.
struct Authority {
    api: Api,
    metadata: MetadataMap,
}

/// A response that is fed by a task, which ends when the caller disconnects.
fn streamed<T: Send + 'static, F>(work: impl FnOnce(Out<T>) -> F) -> Parts<T>
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (out, answers) = mpsc::channel(QUEUE);
    let working = work(out.clone());
    tokio::spawn(async move {
        let Ok(_place) = AT_ONCE.try_acquire() else {
            let _ = out
                .send(Err(Status::resource_exhausted(
                    "two snapshot operations are in progress on this node; try again later",
                )))
                .await;
            return;
        };
        if let Err(status) = working.await {
            // A caller that has disconnected needs no response.
            let _ = out.send(Err(status)).await;
        }
    });
    Response::new(ReceiverStream::new(answers))
}

async fn save(
    cluster: &Cluster,
    message: &pb::SaveSnapshotRequest,
    out: &Out<pb::SavedPart>,
) -> Result<(), Status> {
    let confirmed = if message.linearizable { confirmed(cluster).await?.index() } else { 0 };
    if cluster.view_at(message.min_index).await.is_err() {
        let (wanted, here) = (message.min_index, cluster.view().index());
        return Err(Status::failed_precondition(format!(
            "this node has the log up to entry {here}, not to {wanted}; nothing was saved: try again, or ask for an entry that exists"
        )));
    }
    let at_least = confirmed.max(message.min_index);
    let saved = cluster.save_snapshot(at_least).await.map_err(|e| internal(&e))?;
    let description = describe(&saved.file.header, saved.file.size_bytes);
    let part = |part| pb::SavedPart { part: Some(part) };
    if out.send(Ok(part(pb::saved_part::Part::Description(description)))).await.is_err() {
        return Ok(());
    }
    let (path, out) = (saved.path().to_owned(), out.clone());
    let sent = spawn_blocking(move || {
        send_file(&path, |data| out.blocking_send(Ok(part(pb::saved_part::Part::Data(data)))).is_ok())
    });
    let sent = sent.await.map_err(|e| internal(&e))?;
    // Held until its last byte has been read.
    drop(saved);
    sent.map_err(|e| internal(&e))
}

/// The state with everything acknowledged until now, even during an election.
async fn confirmed(cluster: &Cluster) -> Result<Arc<State>, Status> {
    for _ in 0..CONFIRM_TRIES {
        if let Some(state) = cluster.confirmed_view().await {
            return Ok(state);
        }
        tokio::time::sleep(CONFIRM_PAUSE).await;
    }
    Err(Status::unavailable("no leader confirms what was acknowledged; nothing has changed: try again"))
}

/// Sends the file to its end, or until `send` returns false.
fn send_file(path: &Path, mut send: impl FnMut(Vec<u8>) -> bool) -> io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    loop {
        let mut data = Vec::with_capacity(PART_BYTES);
        file.by_ref().take(PART_BYTES as u64).read_to_end(&mut data)?;
        if data.is_empty() || !send(data) {
            return Ok(());
        }
    }
}

async fn restore(
    cluster: &Cluster,
    write_key: &WriteKey,
    message: &pb::RestoreOrder,
    parts: Streaming<pb::RestorePart>,
    authority: Authority,
    out: &Out<pb::RestoreProgress>,
) -> Result<(), Status> {
    let then = Arc::new(receive(cluster, message, parts, out).await?);
    authority.api.may_still_write(&authority.metadata).await?;
    if then.lineage.cluster != cluster.lineage().cluster {
        return Err(Status::failed_precondition(format!(
            "the snapshot is of another cluster ({}); it can only be restored into an empty data directory, with `conclave restore`",
            hex::encode(&then.lineage.cluster)
        )));
    }
    let newest = confirmed(cluster).await?;
    let (before, saved, enable) = (Arc::clone(&newest), Arc::clone(&then), message.enable_returning);
    let report =
        spawn_blocking(move || ChangeReport::of(&before, &running::preview(&saved.state, &before, enable)));
    let report = report.await.map_err(|e| internal(&e))?;
    let mut index = newest.index();
    if !message.dry_run {
        let step = |done, of| {
            // A slow caller misses steps; a disconnected caller ends the restore.
            let _ =
                out.try_send(Ok(progress(pb::restore_progress::Step::Staged(pb::StagedBytes { done, of }))));
            !out.is_closed()
        };
        let committed = running::restore(
            cluster,
            write_key,
            &then.state,
            &message.source,
            message.enable_returning,
            step,
        )
        .await;
        index = match committed {
            Ok(committed) => committed.index,
            Err(running::RunningError::Propose(error)) => return Err(errors::propose(error)),
            Err(running::RunningError::GivenUp) => return Ok(()),
        };
    }
    let report = to_proto(&report, &then, message, index);
    let _ = out.send(Ok(progress(pb::restore_progress::Step::Report(report)))).await;
    Ok(())
}

/// The next part. A caller that sends nothing for too long gets an error.
async fn next(parts: &mut Streaming<pb::RestorePart>) -> Result<Option<pb::restore_part::Part>, Status> {
    let message = timeout(SILENCE, parts.message()).await;
    let message = message.map_err(|_| Status::deadline_exceeded("the file stopped arriving"))??;
    Ok(message.and_then(|part| part.part))
}

async fn receive(
    cluster: &Cluster,
    message: &pb::RestoreOrder,
    mut parts: Streaming<pb::RestorePart>,
    out: &Out<pb::RestoreProgress>,
) -> Result<OfflineState, Status> {
    if message.size_bytes > MAX_SNAPSHOT_BYTES {
        return Err(errors::invalid(format!("a snapshot has at most {MAX_SNAPSHOT_BYTES} bytes")));
    }
    let mut upload = cluster.begin_upload(message.size_bytes).map_err(|e| match e {
        SaveError::NoRoom { .. } => Status::resource_exhausted(e.to_string()),
        _ => internal(&e),
    })?;
    let mut received = 0;
    while received < message.size_bytes {
        let Some(pb::restore_part::Part::Data(bytes)) = next(&mut parts).await? else {
            return Err(errors::invalid("the file ends before its announced length"));
        };
        if bytes.is_empty() {
            return Err(errors::invalid("a part of the file is empty"));
        }
        received += bytes.len() as u64;
        let written = spawn_blocking(move || upload.write(&bytes).map(|()| upload)).await;
        upload = written.map_err(|e| internal(&e))?.map_err(|e| internal(&e))?;
        let _ = out.try_send(Ok(progress(pb::restore_progress::Step::ReceivedBytes(received))));
    }
    let place = upload.path().display().to_string();
    let opened = spawn_blocking(move || upload.open()).await.map_err(|e| internal(&e))?;
    opened.map_err(|e| {
        // The path on this node is replaced: it is of no use to the caller, and must not be revealed.
        let why = e.to_string().replace(&place, "the file");
        errors::invalid(format!("this snapshot cannot be restored here: {why}"))
    })
}

fn to_proto(
    report: &ChangeReport,
    then: &OfflineState,
    message: &pb::RestoreOrder,
    index: u64,
) -> pb::RestoreReport {
    let last = then.last.unwrap_or(conclave_store::LogId { term: 0, index: 0 });
    let changes = report.changes.iter().map(|change| pb::RestoreChange {
        kind: change.kind.into(),
        name: change.name.clone(),
        what: change.what.into(),
    });
    pb::RestoreReport {
        snapshot: Some(pb::SnapshotDescription {
            cluster_id: hex::encode(&then.lineage.cluster),
            epoch: then.lineage.epoch,
            term: last.term,
            index: last.index,
            created_at_ms: then.state.meta().clock.0,
            size_bytes: message.size_bytes,
        }),
        changes: changes.collect(),
        change_count: report.change_count as u64,
        users: report.users as u64,
        sessions_ended: report.sessions_ended as u64,
        restored: !message.dry_run,
        index,
    }
}

fn describe(header: &SnapshotHeader, size_bytes: u64) -> pb::SnapshotDescription {
    pb::SnapshotDescription {
        cluster_id: hex::encode(&header.cluster),
        epoch: header.lineage_epoch,
        term: header.last.map_or(0, |last| last.term),
        index: header.last.map_or(0, |last| last.index),
        created_at_ms: header.created_at_ms,
        size_bytes,
    }
}

const fn progress(step: pb::restore_progress::Step) -> pb::RestoreProgress {
    pb::RestoreProgress { step: Some(step) }
}

fn internal(error: &dyn std::fmt::Display) -> Status {
    Status::internal(format!("the snapshot failed: {error}"))
}
