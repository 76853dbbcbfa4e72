//! `/metrics`: the metrics of this node, on a listener of its own. A scrape reads the node's status once.

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};

use crate::telemetry::metrics::{CONTENT_TYPE, MetricsSample, exposition};
use conclave_base::runtime::Runtime;
use conclave_cluster::Cluster;

/// The route `/metrics`. A scrape never waits for another node.
pub(crate) fn routes(cluster: Cluster, runtime: Runtime) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state((cluster, runtime))
}

async fn metrics(State((cluster, runtime)): State<(Cluster, Runtime)>) -> impl IntoResponse {
    let status = cluster.own_status().await;
    let view = cluster.view();
    let sample = MetricsSample {
        now_ms: runtime.clock.now_ms(),
        users: view.user_count(),
        logout_notices: view.outbox_len(),
    };
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], exposition(&status, sample))
}

#[cfg(test)]
mod tests {
    use conclave_proto::cluster::v1::ArchiveStatus;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::testing::TestNode;
    use conclave_http::HttpListener;
    use conclave_store::retention::ArchiveHold;

    #[tokio::test]
    async fn a_scraper_reads_how_the_node_is() {
        let node = TestNode::start().await;
        let listener = HttpListener::bind("test", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let routes = routes(node.cluster().clone(), node.runtime().clone());
        let serving = tokio::spawn(listener.serve(routes, stop.clone()));
        node.cluster().report_archive(ArchiveHold::default(), ArchiveStatus::default());
        node.cluster().report_drill(Some(node.runtime().clock.now_ms()), String::new());
        let answer = reqwest::get(&url).await.unwrap();
        assert!(
            answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text")
        );
        let text = answer.text().await.unwrap();
        assert!(text.contains("conclave_leads 1\n"), "{text}");
        assert!(text.contains("conclave_last_verified_snapshot_age_seconds 0.0\n"), "{text}");
        let applied = format!("conclave_applied_index {}\n", node.cluster().view().index());
        assert!(text.contains(&applied), "{text}");
        stop.cancel();
        serving.await.unwrap();
    }
}
