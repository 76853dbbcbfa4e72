//! Tests of outgoing messages against a peer that hangs.

use std::{convert::Infallible, io, pin::Pin, sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use openraft::{network::RPCOption, raft::AppendEntriesRequest};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::{
    identity::NodeIdentity,
    transport::{Dialling, Probing, Stream as Wired, Wire},
};

const LIMIT: Duration = Duration::from_secs(10);

/// A peer that accepts every request and answers none.
struct Silent;

impl Wire for Silent {
    fn dial<'a>(&'a self, _: &'a str, _: Option<NodeId>) -> Dialling<'a> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request: http::Request<Incoming>| async {
                tokio::spawn(async move {
                    let mut questions = request.into_body();
                    while let Some(Ok(_)) = questions.frame().await {}
                });
                let reply = http::Response::builder().header("content-type", "application/grpc");
                Ok::<_, Infallible>(reply.body(Nothing).unwrap())
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(theirs), service).await;
        });
        Box::pin(async move { Ok(Box::new(ours) as Wired) })
    }

    fn probe<'a>(&'a self, _: &'a str) -> Probing<'a> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }
}

/// A body that never arrives.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Pending
    }
}

fn question() -> AppendEntriesRequest<Config> {
    let (vote, prev_log_id, leader_commit) = (Vote::new(1, 1), None, None);
    AppendEntriesRequest { vote, prev_log_id, entries: Vec::new(), leader_commit }
}

/// Found by the simulator (seed 31): an abandoned stream went on taking entries that belonged to its successor, and the
/// peer received them out of order.
#[tokio::test]
async fn a_stream_that_was_given_up_takes_no_more_entries() {
    let identity = Arc::new(NodeIdentity::new(1, [1; 16], None));
    let peers = Arc::new(Peers::new(identity, Arc::new(Silent)));
    let link = PeerLink { peers, target: 2, addr: "peer.test:1".into(), kind: ChannelKind::Append };
    let (entries, input) = mpsc::channel(4);
    entries.send(question()).await.unwrap();
    let answers = link.append_stream(ReceiverStream::new(input), RPCOption::new(LIMIT)).await.unwrap();
    entries.send(question()).await.unwrap();
    assert!(!entries.is_closed(), "it is open while somebody waits for answers");

    drop(answers);
    timeout(LIMIT, entries.closed())
        .await
        .expect("the questions of a stream that was given up are still read");
}

#[test]
fn a_peer_that_fails_is_left_alone_for_longer_each_time_and_never_for_long() {
    let peers = Arc::new(Peers::new(Arc::new(NodeIdentity::new(1, [1; 16], None)), Arc::new(Silent)));
    let link = PeerLink { peers, target: 2, addr: "peer.test:1".into(), kind: ChannelKind::Append };
    let pauses: Vec<_> = link.backoff().unwrap().take(40).map(|pause| pause.as_millis()).collect();
    assert_eq!(pauses[..5], [25, 50, 100, 200, 200]);
    assert!(pauses[5..].iter().all(|pause| *pause == 200));
}
