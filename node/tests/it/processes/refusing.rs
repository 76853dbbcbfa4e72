//! A node that answers 503 instead of deciding, behind each proxy with the configuration of `deploy/proxies`, and its
//! effect on a signed-in user. The output is two rows of docs/forward-auth.md.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use axum::http::{StatusCode, Uri};
use conclave_proto::envoy::auth::v3::{
    CheckRequest, CheckResponse,
    authorization_server::{Authorization, AuthorizationServer},
};
use tonic::{Request, Response, Status};

use super::{
    proxies::{Proxy, application},
    spoofs::{cookie_at, status},
    world::{Demo, Node},
};

/// The time for which checks are sent through each proxy.
const WATCHED: Duration = Duration::from_secs(4);
/// The time within which each proxy's health check has reached every node.
const SEEN_WITHIN: Duration = Duration::from_secs(3);

/// The response to Envoy over gRPC.
struct Refusing;

#[tonic::async_trait]
impl Authorization for Refusing {
    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Err(Status::unavailable("this node cannot tell"))
    }
}

/// Listens at the address of a demo's node, and reports whether it is ready.
async fn refusing(port: u16, is_ready: bool) {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = tokio::net::TcpListener::bind(at(port)).await.unwrap();
    let answer = async move |uri: Uri| match uri.path() {
        "/healthz/ready" if is_ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let service = AuthorizationServer::new(Refusing);
    // The addresses at which a demo's nodes listen for Envoy.
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve(at(port + 30)));
}

/// The number of checks, and the number of failed ones; all failed with 503.
async fn watched(proxy: &Proxy, cookie: &str) -> (usize, usize) {
    let (mut asked, mut failed) = (0, 0);
    let began = Instant::now();
    while began.elapsed() < WATCHED {
        let status = status(proxy, cookie, "").await;
        assert!(matches!(status, 200 | 503), "{status}");
        asked += 1;
        failed += usize::from(status == 503);
    }
    (asked, failed)
}

fn told((asked, failed): (usize, usize)) -> &'static str {
    assert!(asked > 30, "{asked} checks only");
    match failed * 100 / asked {
        _ if failed == 0 => "0 failed",
        30..=36 => "every third is answered 503",
        _ => "some fail",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_503_is_passed_over_where_the_proxy_can() {
    let demo = Demo::start(&[]);
    let (addr, _seen) = application().await;
    let mut rows = String::new();
    for (n, (what, is_ready)) in [
        ("answers 503, and says that it is not ready", false),
        ("answers 503, and says that it is ready", true),
    ]
    .into_iter()
    .enumerate()
    {
        let port = demo.own_port(60) + u16::try_from(n).unwrap();
        refusing(port, is_ready).await;
        let mut nodes = demo.cluster.nodes.clone();
        nodes[2] = Node { http: format!("http://127.0.0.1:{port}"), ..nodes[2].clone() };
        let base = demo.own_port(10) + u16::try_from(n * 10).unwrap();
        let proxies = [
            Proxy::nginx(&nodes, base, addr).await,
            Proxy::caddy(&nodes, base + 1, addr).await,
            Proxy::haproxy(&nodes, base + 2, addr).await,
            Proxy::envoy(&nodes, base + 3, addr).await,
            Proxy::envoy_with("envoy-grpc.yaml", &nodes, base + 4, addr).await,
            Proxy::traefik(&nodes, base + 5, addr).await,
        ];
        tokio::time::sleep(SEEN_WITHIN).await;
        write!(rows, "| {what} ").unwrap();
        // A cookie of the application's host is valid behind each.
        let cookie = cookie_at(&demo, &proxies[0]).await;
        for proxy in &proxies {
            write!(rows, "| {} ", told(watched(proxy, &cookie).await)).unwrap();
        }
        rows.push_str("|\n");
    }
    println!("{rows}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/forward-auth.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&rows), "docs/forward-auth.md says something else than:\n{rows}");
}
