use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::{ClientInfo, Edge, EdgeConfig, RequestId};
use conclave_base::runtime::testing::SeededEntropy;

async fn panicking() -> &'static str {
    panic!("with details nobody should read");
}

fn router() -> Router {
    let routes = Router::new()
        .route("/echo", post(|body: String| async move { body }))
        .route("/ip", get(|client: ClientInfo| async move { client.ip.to_string() }))
        .route("/id", get(|id: RequestId| async move { id.to_string() }))
        .route("/panic", get(panicking))
        .route("/hang", get(std::future::pending::<()>));
    Edge::new(EdgeConfig {
        entropy: SeededEntropy::new(1),
        trusted_proxies: vec!["10.0.0.1".parse().unwrap()],
        max_body_bytes: 10,
        request_timeout: Duration::from_millis(20),
        error_page: Arc::new(|fault, id| format!("<h1>{}</h1>{}", fault.title, id)),
    })
    .around(routes)
}

async fn call(request: Request) -> (Response<()>, String) {
    let (parts, body) = router().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(parts, ()), String::from_utf8(body.to_vec()).unwrap())
}

fn request(path: &str) -> http::request::Builder {
    Request::builder().uri(path)
}

fn get_request(path: &str) -> Request {
    request(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn every_answer_has_an_id_and_the_fence_even_one_nobody_routed() {
    for path in ["/id", "/nowhere", "/panic"] {
        let (response, _) = call(get_request(path)).await;
        assert_eq!(response.headers()["x-request-id"].len(), 32, "{path}");
        assert!(response.headers().contains_key(CONTENT_SECURITY_POLICY), "{path}");
    }
    let (response, body) = call(get_request("/id")).await;
    assert_eq!(response.headers()["x-request-id"], body.as_str(), "the handler sees the same id");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_announced_or_not() {
    let fits = request("/echo").method("POST").body(Body::from("0123456789")).unwrap();
    assert_eq!(call(fits).await.1, "0123456789");
    let announced =
        request("/echo").method("POST").header(CONTENT_LENGTH, "11").body(Body::from("01234567890"));
    let chunks = futures_util::stream::iter(["01234", "56789", "0"].map(Ok::<_, std::io::Error>));
    let streamed = request("/echo").method("POST").body(Body::from_stream(chunks));
    for oversized in [announced, streamed] {
        let (response, body) = call(oversized.unwrap()).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(body.contains("larger than the 10 bytes"), "{body}");
    }
}

#[tokio::test]
async fn a_panic_is_a_plain_answer_without_details() {
    let (response, body) = call(get_request("/panic")).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    assert!(body.contains(r#""code":"internal""#) && !body.contains("details nobody"), "{body}");
}

#[tokio::test]
async fn a_person_gets_a_page_and_a_program_a_problem() {
    let person = request("/panic").header(ACCEPT, "text/html,*/*;q=0.8").body(Body::empty()).unwrap();
    let (response, body) = call(person).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(body.starts_with("<h1>Something went wrong</h1>"), "{body}");
}

#[tokio::test]
async fn the_id_of_every_refusal_is_in_the_log_once_with_who_asked_from_where() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let peer: SocketAddr = "203.0.113.9:5000".parse().unwrap();
    let form = request("/nowhere").method("POST").extension(ConnectInfo(peer));
    let (response, _) = call(form.body(Body::from("username=a")).unwrap()).await;
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    call(get_request("/id")).await;
    let text = lines.text();
    let found: Vec<_> = text.lines().filter(|line| line.contains(&id)).collect();
    assert_eq!(found.len(), 1, "{text}");
    let expected = "refused kind=page reason=not_found client.address=203.0.113.9 subject=a request.id=";
    assert!(found[0].contains(expected), "{text}");
    assert_eq!(text.lines().count(), 1, "what is answered well has no line: {text}");
}

#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_handler_that_hangs_is_given_up() {
    let (response, body) = call(get_request("/hang")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains(r#""code":"timeout""#), "{body}");
}

#[tokio::test]
async fn handlers_see_the_client_behind_a_trusted_proxy_and_garbage_is_refused() {
    let through = |forwarded: &str| {
        let peer: SocketAddr = "10.0.0.1:5000".parse().unwrap();
        let request = request("/ip").header("x-forwarded-for", forwarded);
        request.extension(ConnectInfo(peer)).body(Body::empty()).unwrap()
    };
    assert_eq!(call(through("203.0.113.5")).await.1, "203.0.113.5");
    let (response, body) = call(through("garbage")).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(body.contains("bad_forwarded_header"), "{body}");
}
