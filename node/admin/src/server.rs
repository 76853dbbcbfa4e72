//! The listener and its bounds.

use std::{future::Future, time::Duration};

use conclave_proto::admin::{FILE_DESCRIPTOR_SET, v1 as pb};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::pb::health_server::HealthServer;

use conclave_archive::Archive;
use conclave_auth::Auth;

use super::{Api, health::NodeHealth};

/// The largest message in either direction: a page of rows, a client with all its addresses.
pub(super) const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// The longest call. A write that waits for an election and then for its own entry takes six seconds, a status of nine
/// members two.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// The most calls of one connection that run at once; the others wait.
const CALLS_PER_CONNECTION: usize = 64;
/// The most calls of one connection that are open at once, including waiting ones.
const STREAMS_PER_CONNECTION: u32 = 256;
/// The time of silence after which a connection is probed.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The time for calls in progress to end once the node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Every service of the admin API, with gRPC health and reflection.
pub fn router(auth: Auth, archive: Option<Archive>) -> Routes {
    let health = NodeHealth { cluster: auth.cluster().clone() };
    let api = Api { auth, archive };
    macro_rules! bounded {
        ($server:path) => {{
            use $server as Bounded;
            Bounded::new(api.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
        }};
    }
    let routes = Routes::new(HealthServer::new(health).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(bounded!(pb::user_service_server::UserServiceServer))
        .add_service(bounded!(pb::group_service_server::GroupServiceServer))
        .add_service(bounded!(pb::application_service_server::ApplicationServiceServer))
        .add_service(bounded!(pb::client_service_server::ClientServiceServer))
        .add_service(bounded!(pb::upstream_service_server::UpstreamServiceServer))
        .add_service(bounded!(pb::policy_service_server::PolicyServiceServer))
        .add_service(bounded!(pb::session_service_server::SessionServiceServer))
        .add_service(bounded!(pb::token_service_server::TokenServiceServer))
        .add_service(bounded!(pb::app_password_service_server::AppPasswordServiceServer))
        .add_service(bounded!(pb::key_service_server::KeyServiceServer))
        .add_service(bounded!(pb::snapshot_service_server::SnapshotServiceServer))
        .add_service(bounded!(pb::cluster_service_server::ClusterServiceServer))
        .add_service(bounded!(pb::archive_service_server::ArchiveServiceServer))
        .add_service(bounded!(pb::secret_service_server::SecretServiceServer));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => routes.add_service(reflection),
        Err(error) => {
            tracing::error!(%error, "the admin API runs without reflection");
            routes
        }
    }
}

/// Serves the admin API until `shutdown`, then lets calls in progress end, for a bounded time.
///
/// # Errors
/// An error if the listener cannot be used.
pub async fn serve(
    listener: std::net::TcpListener,
    auth: Auth,
    archive: Option<Archive>,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let stop = CancellationToken::new();
    let server = Server::builder()
        .trace_fn(|request| tracing::info_span!("admin.call", rpc.method = request.uri().path()))
        .timeout(CALL_LIMIT)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_routes(router(auth, archive))
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let stopping = async {
        shutdown.await;
        stop.cancel();
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = server => ended.map_err(std::io::Error::other),
        () = stopping => Ok(()),
    }
}
