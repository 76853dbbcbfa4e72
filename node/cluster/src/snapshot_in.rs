//! Receives a snapshot from the leader: bounded, checked to the last byte, and only then passed to Raft.
//!
//! openraft panics on a snapshot that contradicts the vote or the committed entries here (docs/design/consensus.md), so
//! both are checked before it is called.

use conclave_proto::cluster::v1 as pb;
use openraft::async_runtime::WatchReceiver as _;
use tonic::{Status, Streaming};

use super::{leader::Leader, machine::LocalSnapshots, rt, types::SnapshotMeta, wire};
use conclave_store::snapshot::{MAX_SNAPSHOT_BYTES, SnapshotFile};

/// Reads the first message: the description of the snapshot.
///
/// # Errors
/// A status for the sender.
pub(crate) async fn begin(parts: &mut Streaming<pb::SnapshotPart>) -> Result<pb::SnapshotBegin, Status> {
    match parts.message().await?.and_then(|message| message.part) {
        Some(pb::snapshot_part::Part::Begin(begin)) if begin.size_bytes <= MAX_SNAPSHOT_BYTES => Ok(begin),
        _ => Err(Status::invalid_argument("a snapshot starts with its description, and has a bounded size")),
    }
}

/// Receives the rest, checks it and installs it.
///
/// # Errors
/// A status for the sender. Then nothing has changed here.
pub(crate) async fn take(
    leader: &Leader,
    begin: pb::SnapshotBegin,
    parts: Streaming<pb::SnapshotPart>,
) -> Result<pb::SnapshotReply, Status> {
    let vote = wire::vote(begin.vote.as_ref())?;
    let meta = SnapshotMeta {
        last_log_id: begin.last_log_id.as_ref().map(wire::log_id),
        last_membership: wire::stored_membership(begin.membership.as_ref())?,
    };
    let file = receive(leader.snapshots().clone(), begin.size_bytes, parts).await?;
    let here = leader.raft().metrics().borrow_watched().clone();
    if vote < here.vote || !vote.committed {
        return Ok(pb::SnapshotReply { vote: Some(wire::vote_to_wire(&here.vote)) });
    }
    let matches_file = file.header.last.as_ref().map(|id| (id.term, id.index))
        == meta.last_log_id.map(|id| (id.committed_leader_id().term, id.index));
    let lineage = leader.snapshots().lineage;
    let is_ours = (file.header.cluster, file.header.lineage_epoch) == (lineage.cluster, lineage.epoch);
    if !matches_file || !is_ours {
        return Err(Status::invalid_argument("the snapshot is not the one that was announced"));
    }
    let snapshot =
        openraft::type_config::alias::SnapshotOf::<super::types::Config, _> { meta, snapshot: file };
    let reply = leader.raft().install_full_snapshot(vote, snapshot).await;
    let reply = reply.map_err(|fatal| Status::unavailable(format!("raft has stopped: {fatal}")))?;
    Ok(pb::SnapshotReply { vote: Some(wire::vote_to_wire(&reply.vote)) })
}

async fn receive(
    snapshots: LocalSnapshots,
    size: u64,
    mut parts: Streaming<pb::SnapshotPart>,
) -> Result<SnapshotFile, Status> {
    let failed =
        |error: &dyn std::fmt::Display| Status::internal(format!("the snapshot cannot be taken: {error}"));
    let mut incoming = snapshots.dir.receive().map_err(|e| failed(&e))?;
    let mut left = size;
    while let Some(message) = parts.message().await? {
        let Some(pb::snapshot_part::Part::Data(bytes)) = message.part else {
            return Err(Status::invalid_argument("a snapshot is described once"));
        };
        left = left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| Status::invalid_argument("the snapshot is longer than announced"))?;
        incoming = rt::blocking(move || incoming.write(&bytes).map(|()| incoming))
            .await
            .map_err(|e| failed(&e))?
            .map_err(|e| failed(&e))?;
    }
    if left > 0 {
        return Err(Status::invalid_argument("the snapshot is shorter than announced"));
    }
    let finished = rt::blocking(move || incoming.finish(&snapshots.key)).await;
    finished.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
}
