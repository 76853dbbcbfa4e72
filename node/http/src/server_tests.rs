use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
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

/// A server with one route that answers on demand, and the handles to control it.
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

/// A connection from another loopback address; the kernel has sixteen million.
async fn connect_from(source: &str, addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    socket.connect(addr).await.unwrap()
}

/// Sends one request and keeps the connection.
async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

/// A listener whose proxy is 127.0.0.1, with two connections and this head timeout for all others.
async fn with_untrusted_peers(timeout: Duration) -> (SocketAddr, CancellationToken) {
    let mut listener = HttpListener::bind("http.listen", loopback()).await.unwrap();
    listener.limits.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    listener.limits.most = 2;
    listener.limits.header_read_timeout = timeout;
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(listener.serve(Router::new().route("/", get(|| async {})), stop.clone()));
    (addr, stop)
}

#[tokio::test]
async fn one_address_cannot_take_every_connection() {
    let (addr, _stop) = with_untrusted_peers(Duration::from_mins(1)).await;
    let mut held = [connect_from("127.0.0.2", addr).await, connect_from("127.0.0.2", addr).await];
    for stream in &mut held {
        ask(stream).await;
    }
    let mut third = connect_from("127.0.0.2", addr).await;
    let closed = tokio::time::timeout(Duration::from_secs(10), third.read(&mut [0])).await;
    assert!(matches!(closed.expect("a third connection is held"), Ok(0) | Err(_)));
    // Others are still served, and a proxy may have more.
    ask(&mut connect_from("127.0.0.3", addr).await).await;
    let mut idle = Vec::new();
    for _ in 0..5 {
        let mut stream = connect_from("127.0.0.1", addr).await;
        ask(&mut stream).await;
        idle.push(stream);
    }
    // The share is released when a connection has ended; the server notices that a moment later.
    drop(held);
    let admitted = async {
        loop {
            let mut stream = connect_from("127.0.0.2", addr).await;
            // The connection may be closed before the request is written.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            if matches!(stream.read(&mut [0]).await, Ok(1)) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), admitted).await.expect("who left may come back");
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off_and_a_proxy_is_given_time() {
    let (addr, _stop) = with_untrusted_peers(Duration::from_millis(20)).await;
    let mut proxy = connect_from("127.0.0.1", addr).await;
    proxy.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut untrusted = connect_from("127.0.0.2", addr).await;
    untrusted.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let cut = tokio::time::timeout(Duration::from_secs(10), untrusted.read(&mut [0])).await;
    assert!(matches!(cut.expect("a slow head is waited for in vain"), Ok(0) | Err(_)));
    // An idle keep-alive connection is closed as well.
    let mut idle = connect_from("127.0.0.2", addr).await;
    ask(&mut idle).await;
    let cut = tokio::time::timeout(Duration::from_secs(10), idle.read_to_end(&mut Vec::new())).await;
    assert!(cut.is_ok(), "an idle untrusted peer keeps its place");
    proxy.write_all(b" a\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    proxy.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}
