//! Liveness and readiness. Live: the process answers. Ready: it can serve a correct decision (a leader is known, the
//! lag is bounded, Raft runs, it is not being stopped). Load balancers and orchestrators read these pages; they contain
//! nothing secret.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::json;

use conclave_auth as auth;
use conclave_cluster::Cluster;
use conclave_http::denial::not_denied;

/// The interval at which a node that starts checks if it is ready.
const POLL: Duration = Duration::from_millis(5);

/// The sources of readiness.
#[derive(Clone, Default)]
pub struct Health {
    cluster: Arc<OnceLock<Cluster>>,
    stopping: Arc<AtomicBool>,
}

impl Health {
    /// Makes readiness depend on the cluster from here on.
    pub fn attach(&self, cluster: Cluster) {
        // Set once, at start.
        let _ = self.cluster.set(cluster);
    }

    /// Ends readiness, so that load balancers stop sending before the node stops answering.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Returns the cluster if this node can serve.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub fn readiness(&self) -> Result<&Cluster, String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("this node is stopping".into());
        }
        let cluster = self.cluster.get().ok_or("this node is starting, or waits for the other members")?;
        cluster.readiness()?;
        if !auth::keys::all_present(&cluster.view()) {
            return Err("the cluster's signing keys are being made".into());
        }
        Ok(cluster)
    }

    /// Returns once this node can serve.
    pub async fn until_ready(&self) {
        while self.readiness().is_err() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// `/healthz/live` and `/healthz/ready`.
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/healthz/live", get(async || Json(json!({ "live": true }))))
            .route("/healthz/ready", get(ready))
            .with_state(self.clone())
    }
}

async fn ready(State(health): State<Health>) -> Response {
    match health.readiness() {
        Ok(cluster) => {
            let state = cluster.view();
            let body = json!({
                "ready": true,
                "node": cluster.node_id(),
                "leader": cluster.leader_id(),
                "applied_index": state.index(),
                "reasons": [],
            });
            (StatusCode::OK, Json(body)).into_response()
        }
        Err(reason) => {
            // A response about this node, not a refusal: proxies poll every second, and the log and metrics contain the
            // reason already.
            let body = Json(json!({ "ready": false, "reasons": [reason] }));
            not_denied((StatusCode::SERVICE_UNAVAILABLE, body).into_response())
        }
    }
}
