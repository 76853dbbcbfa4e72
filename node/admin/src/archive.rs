//! The archive: its status, its objects, and pruning.

use conclave_proto::{
    admin::v1::{self as pb, archive_service_server::ArchiveService},
    cluster::v1 as plane,
};
use tonic::{Request, Response, Status};

use conclave_archive::{self, Archive, ArchiveError, names::ObjectKind};
use conclave_cluster::MemberStatus;

use super::{Api, errors};

/// The most rows of one response: a year of hourly snapshots, or as many gaps.
const MAX_ROWS: usize = 4_000;

#[tonic::async_trait]
impl ArchiveService for Api {
    async fn get_archive_status(
        &self,
        request: Request<pb::GetArchiveStatusRequest>,
    ) -> Result<Response<pb::ArchiveStatus>, Status> {
        let (reading, _) = self.read(request).await?;
        let members = self.auth.cluster().member_statuses().await;
        reading.reply(status(&members).ok_or_else(not_set)?)
    }

    async fn list_archive(
        &self,
        request: Request<pb::ListArchiveRequest>,
    ) -> Result<Response<pb::ListArchiveResponse>, Status> {
        let (reading, _) = self.read(request).await?;
        let objects = self.archive()?.objects().await.map_err(|error| failed(&error))?;
        let of = |kind: ObjectKind| {
            objects.iter().filter(|object| object.kind == kind).cloned().collect::<Vec<_>>()
        };
        let snapshots = of(ObjectKind::Snapshot);
        let chains = [ObjectKind::Log, ObjectKind::RevocationJournal].into_iter().flat_map(|kind| {
            conclave_archive::runs(&of(kind)).into_iter().map(move |run| pb::ArchivedChain {
                epoch: run.epoch,
                first_index: run.first,
                last_index: run.last,
                last_at_ms: run.at_ms,
                segments: run.objects,
                size_bytes: run.size_bytes,
                kind: kind.folder().to_owned(),
            })
        });
        reading.reply(pb::ListArchiveResponse {
            chains: chains.take(MAX_ROWS).collect(),
            snapshots: snapshots.into_iter().rev().take(MAX_ROWS).map(snapshot).collect(),
        })
    }

    async fn prune_archive(
        &self,
        request: Request<pb::PruneArchiveRequest>,
    ) -> Result<Response<pb::PruneArchiveResponse>, Status> {
        let (_, message) = self.write(request, "PruneArchive").await?;
        let pruned = self.archive()?.prune(message.dry_run).await.map_err(|error| failed(&error))?;
        Ok(Response::new(pb::PruneArchiveResponse {
            snapshots: pruned.snapshots.into_iter().take(MAX_ROWS).collect(),
            segments: pruned.segments,
            journal: pruned.revocation_journal,
            size_bytes: pruned.size_bytes,
            left: pruned.left,
        }))
    }
}

impl Api {
    fn archive(&self) -> Result<&Archive, Status> {
        self.archive.as_ref().ok_or_else(not_set)
    }
}

/// The archive status of the shipping node; while none ships, of the node that has seen most archived.
pub(super) fn status(members: &[MemberStatus]) -> Option<pb::ArchiveStatus> {
    let said = members
        .iter()
        .filter_map(|member| Some((member.node, member.status.as_ref().ok()?.archive.as_ref()?)));
    let said: Vec<_> = said.collect();
    // One node runs the drills, and another ships.
    let drilled = said
        .iter()
        .max_by_key(|(_, status)| (status.last_verified_at_ms, !status.last_drill_error.is_empty()));
    let drilled = drilled.map(|(_, status)| (status.last_verified_at_ms, status.last_drill_error.clone()));
    let (node, status) = said.iter().max_by_key(|(_, status)| (status.ships, status.archived_index))?;
    let (last_verified_at_ms, last_drill_error) = drilled.unwrap_or_default();
    let status = to_proto(*node, (*status).clone());
    Some(pb::ArchiveStatus { last_verified_at_ms, last_drill_error, ..status })
}

fn to_proto(node: u64, status: plane::ArchiveStatus) -> pb::ArchiveStatus {
    let late = u128::from(status.behind_ms) > conclave_archive::ALARM.as_millis();
    pb::ArchiveStatus {
        target: status.target,
        node_id: if status.ships { node } else { 0 },
        archived_index: status.archived_index,
        behind_entries: status.behind_entries,
        behind_ms: status.behind_ms,
        alarm: late || status.gap_before_index != 0,
        last_error: status.last_error,
        last_error_at_ms: status.last_error_at_ms,
        last_snapshot_at_ms: status.last_snapshot_at_ms,
        last_snapshot_index: status.last_snapshot_index,
        gap_before_index: status.gap_before_index,
        last_verified_at_ms: status.last_verified_at_ms,
        last_drill_error: status.last_drill_error,
    }
}

fn snapshot(object: conclave_archive::names::Object) -> pb::ArchivedSnapshot {
    pb::ArchivedSnapshot {
        name: object.name,
        epoch: object.epoch,
        index: object.last,
        at_ms: object.at_ms,
        size_bytes: object.size_bytes,
    }
}

fn not_set() -> Status {
    Status::failed_precondition("this cluster has no archive; set archive.target on every node")
}

fn failed(error: &ArchiveError) -> Status {
    errors::archive(error)
}
