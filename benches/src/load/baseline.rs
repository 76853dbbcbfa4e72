//! The baselines for the product: the bare servers and the bare hash.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use axum::{Router, body::Bytes, routing::get};
use http_body_util::Full;
use hyper::{HeaderMap, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet};

use super::measure::{Load, Measurement};

/// OWASP's first choice for argon2id, as in the product: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Serves a 200 with a body of `bytes` bytes at every GET or POST of `/`; a form is read, as a real server must.
pub(crate) async fn serve(port: u16, bytes: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let body = Bytes::from("x".repeat(bytes));
    let form = body.clone();
    let read = async move |_form: Bytes| form.clone();
    let router = Router::new().route("/", get(async move || body.clone()).post(read));
    Ok(axum::serve(listener, router).await?)
}

/// hyper alone: returns to every request this head and body, which were recorded from a node.
pub(crate) async fn serve_answer(port: u16, headers: HeaderMap, body: Bytes) -> anyhow::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (headers, body) = (headers.clone(), body.clone());
        let answer = service_fn(move |_: Request<Incoming>| {
            let mut response = Response::new(Full::new(body.clone()));
            response.headers_mut().clone_from(&headers);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection =
            http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(connection);
    }
}

/// Hashes in as many threads as there are workers, each with a separate, reused block of memory.
pub(crate) async fn argon2(load: Load) -> anyhow::Result<Measurement> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut workers = JoinSet::new();
    for _ in 0..load.workers {
        let params = params.clone();
        workers.spawn_blocking(move || hashes(load, params));
    }
    let mut all = Measurement::default();
    for outcome in workers.join_all().await {
        all.add(outcome);
    }
    Ok(all)
}

fn hashes(load: Load, params: Params) -> Measurement {
    let mut memory = vec![Block::default(); params.block_count()];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Measurement::of_blocking(load, || {
        let mut out = [0_u8; 32];
        argon2.hash_password_into_with_memory(b"a password", b"sixteen bytes...", &mut out, &mut memory)
    })
}
