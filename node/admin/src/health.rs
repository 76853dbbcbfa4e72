//! gRPC health (grpc.health.v1): serving while this node is ready. It needs no authentication, like the health pages.

use std::{pin::Pin, time::Duration};

use conclave_proto::admin::v1 as pb;
use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

use conclave_cluster::Cluster;

/// The interval at which a watched node checks itself.
const PERIOD: Duration = Duration::from_millis(250);

/// The services that may be named in a request; empty stands for the whole node.
const SERVICES: [&str; 8] = [
    "",
    pb::user_service_server::SERVICE_NAME,
    pb::group_service_server::SERVICE_NAME,
    pb::application_service_server::SERVICE_NAME,
    pb::client_service_server::SERVICE_NAME,
    pb::session_service_server::SERVICE_NAME,
    pb::token_service_server::SERVICE_NAME,
    pb::cluster_service_server::SERVICE_NAME,
];

pub(super) struct NodeHealth {
    pub cluster: Cluster,
}

impl NodeHealth {
    fn status(cluster: &Cluster, service: &str) -> ServingStatus {
        match cluster.readiness() {
            _ if !SERVICES.contains(&service) => ServingStatus::ServiceUnknown,
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        }
    }
}

#[tonic::async_trait]
impl Health for NodeHealth {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match Self::status(&self.cluster, &request.get_ref().service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found("there is no such service")),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    /// The stream ends with its connection.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (cluster, service) = (self.cluster.clone(), request.into_inner().service);
        let changes = stream::unfold((cluster, service, None), |(cluster, service, before)| async move {
            let status = next_change(&cluster, &service, before).await;
            Some((Ok(HealthCheckResponse { status: status.into() }), (cluster, service, Some(status))))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

async fn next_change(cluster: &Cluster, service: &str, before: Option<ServingStatus>) -> ServingStatus {
    loop {
        let status = NodeHealth::status(cluster, service);
        if Some(status) != before {
            return status;
        }
        tokio::time::sleep(PERIOD).await;
    }
}
