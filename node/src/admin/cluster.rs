//! The members and what each says of itself.

use conclave_proto::{
    admin::v1::{self as pb, cluster_service_server::ClusterService},
    cluster::v1 as plane,
};
use tonic::{Request, Response, Status};

use crate::{cluster::MemberStatus, crypto::hex};

use super::Api;

#[tonic::async_trait]
impl ClusterService for Api {
    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::ClusterStatus>, Status> {
        let (reading, _) = self.read(request).await?;
        let cluster = self.auth.cluster();
        let lineage = cluster.lineage();
        let mut members = cluster.member_statuses().await;
        members.sort_by_key(|member| member.node);
        reading.reply(pb::ClusterStatus {
            cluster_id: hex::encode(&lineage.cluster),
            epoch: lineage.epoch,
            leader_id: cluster.leader_id().unwrap_or(0),
            feature_level: reading.state.meta().level,
            nodes: members.into_iter().map(message).collect(),
        })
    }
}

fn message(member: MemberStatus) -> pb::NodeStatus {
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
    }
}
