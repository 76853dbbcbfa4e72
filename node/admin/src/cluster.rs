//! The members, their statuses, and changes of the membership.

use conclave_proto::{
    admin::v1::{self as pb, cluster_service_server::ClusterService},
    cluster::v1 as plane,
};
use conclave_state::ReplyBody;
use tonic::{Request, Response, Status};

use conclave_cluster::{MemberStatus, MembersChange, NodeId, problems};
use conclave_crypto::hex;

use super::{Api, errors};

#[tonic::async_trait]
impl ClusterService for Api {
    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::ClusterStatus>, Status> {
        let (reading, _) = self.read(request).await?;
        let cluster = self.auth.cluster();
        let lineage = cluster.lineage();
        let mut members = cluster.member_statuses_with_digests().await;
        members.sort_by_key(|member| member.node);
        let applied = |member: &MemberStatus| member.status.as_ref().map_or(0, |status| status.applied_index);
        let newest = members.iter().map(applied).max().unwrap_or(0);
        reading.reply(pb::ClusterStatus {
            problems: problems(&members),
            cluster_id: hex::encode(&lineage.cluster),
            epoch: lineage.epoch,
            leader_id: members
                .iter()
                .filter_map(|it| it.status.as_ref().ok())
                .map(|it| it.leader_id)
                .max()
                .unwrap_or(0),
            feature_level: reading.state.meta().level,
            archive: super::archive::status(&members),
            nodes: members.into_iter().map(|member| to_proto(member, newest)).collect(),
        })
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Result<Response<pb::RemoveNodeResponse>, Status> {
        let (_, message) = self.write(request, "RemoveNode").await?;
        let (node_id, force) = (message.node_id, message.force);
        self.change(MembersChange::Remove(plane::RemoveMember { node_id, force })).await?;
        Ok(Response::new(pb::RemoveNodeResponse {}))
    }

    async fn replace_node(
        &self,
        request: Request<pb::ReplaceNodeRequest>,
    ) -> Result<Response<pb::ReplaceNodeResponse>, Status> {
        let (_, message) = self.write(request, "ReplaceNode").await?;
        let change =
            plane::ReplaceMember { old_node_id: message.old_node_id, new_node_id: message.new_node_id };
        self.change(MembersChange::Replace(change)).await?;
        Ok(Response::new(pb::ReplaceNodeResponse {}))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let (_, message) = self.write(request, "TransferLeader").await?;
        let leader = self.change(MembersChange::TransferLeader(message.node_id)).await?;
        Ok(Response::new(pb::TransferLeaderResponse { leader_id: leader.unwrap_or(0) }))
    }

    async fn reset_log_time(
        &self,
        request: Request<pb::ResetLogTimeRequest>,
    ) -> Result<Response<pb::ResetLogTimeResponse>, Status> {
        let (writing, _) = self.write(request, "ResetLogTime").await?;
        let body = self.auth.cluster().clock().back().map_err(Status::failed_precondition)?;
        let committed = writing.propose(body).await?;
        let ReplyBody::ClockSet(set) = committed.body else {
            return Err(Status::internal("log time was not set"));
        };
        Ok(Response::new(pb::ResetLogTimeResponse {
            from_ms: set.from_ms,
            to_ms: set.to_ms,
            ended_sessions: set.ended_sessions,
            ended_grants: set.ended_grants,
            ended_credentials: set.ended_credentials,
        }))
    }
}

impl Api {
    async fn change(&self, change: MembersChange) -> Result<Option<NodeId>, Status> {
        self.auth.cluster().change_members(change).await.map_err(|error| errors::membership(&error))
    }
}

fn to_proto(member: MemberStatus, newest: u64) -> pb::NodeStatus {
    let (status, error) = match member.status {
        Ok(status) => (Some(status), String::new()),
        Err(error) => (None, error),
    };
    let reachable = status.is_some();
    let status: plane::NodeStatus = status.unwrap_or_default();
    pb::NodeStatus {
        id: member.node,
        role: status.role,
        reachable,
        error,
        version: status.version,
        term: status.term,
        last_log_index: status.last_log_index,
        applied_index: status.applied_index,
        snapshot_index: status.snapshot_index,
        digest: hex::encode(&status.digest),
        log_bytes: status.log_bytes,
        uptime_ms: status.uptime_ms,
        cluster_addr: member.cluster_addr,
        api_url: member.api_url,
        ready: status.ready,
        lag: if reachable { newest.saturating_sub(status.applied_index) } else { 0 },
        lease_left_ms: status.lease_left_ms,
        disk_free_bytes: status.disk_free_bytes,
        clock_offset_us: status.clock.map_or(0, |clock| clock.wall_offset_us),
        reasons: status.reasons,
    }
}
