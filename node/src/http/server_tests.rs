use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Drained, HttpListener};

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn send(addr: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_setting() {
    let first = HttpListener::bind("http.listen", loopback()).await.unwrap();
    let addr = first.local_addr().unwrap();
    let error = HttpListener::bind("http.listen", addr).await.unwrap_err().to_string();
    let port = addr.port();
    assert_eq!(
        error,
        format!(
            "http.listen: port {port} on 127.0.0.1 is already taken by another process; stop it or choose another port"
        )
    );
    let elsewhere = "192.0.2.1:9000".parse().unwrap();
    let error = HttpListener::bind("api.listen", elsewhere).await.unwrap_err().to_string();
    assert_eq!(error, "api.listen: this machine has no address 192.0.2.1");
}

/// A server with one route that answers when told, and the means to tell.
async fn slow_server(
    drain_limit: Duration,
) -> (SocketAddr, [Arc<Notify>; 2], CancellationToken, tokio::task::JoinHandle<Drained>) {
    let mut listener = HttpListener::bind("http.listen", loopback()).await.unwrap();
    listener.drain_limit = drain_limit;
    let addr = listener.local_addr().unwrap();
    let [arrived, finish] = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    let handler = {
        let [arrived, finish] = [Arc::clone(&arrived), Arc::clone(&finish)];
        move |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
            arrived.notify_one();
            finish.notified().await;
            format!("hello {}", peer.ip())
        }
    };
    let stop = CancellationToken::new();
    let serving = tokio::spawn(listener.serve(Router::new().route("/slow", get(handler)), stop.clone()));
    (addr, [arrived, finish], stop, serving)
}

#[tokio::test]
async fn stopping_answers_what_is_in_flight_and_accepts_no_more() {
    let (addr, [arrived, finish], stop, serving) = slow_server(Duration::from_secs(10)).await;
    let idle = TcpStream::connect(addr).await.unwrap();
    let in_flight = send(addr, "/slow").await;
    arrived.notified().await;
    stop.cancel();
    finish.notify_one();
    let answer = read_all(in_flight).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello 127.0.0.1"), "{answer}");
    assert_eq!(serving.await.unwrap(), Drained::Whole, "idle connections do not hold the drain up");
    assert!(TcpStream::connect(addr).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_when_the_drain_is_over() {
    let (addr, [arrived, _], stop, serving) = slow_server(Duration::from_millis(10)).await;
    let stuck = send(addr, "/slow").await;
    arrived.notified().await;
    stop.cancel();
    assert_eq!(serving.await.unwrap(), Drained::Cut(1));
    drop(stuck);
}
