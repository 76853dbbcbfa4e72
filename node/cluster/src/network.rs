//! Raft's outgoing messages, sent over the lanes of [`Peers`].
//!
//! A peer that does not answer is `Unreachable`, never `NetworkError`: openraft backs off after the first and retries
//! without a pause after the second.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use conclave_proto::cluster::v1 as pb;
use futures_util::{Stream, StreamExt as _};
use openraft::{
    RaftNetworkFactory,
    base::{BoxFuture, BoxStream},
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption},
    raft::{
        AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use conclave_store::snapshot::SnapshotFile;

use super::{
    peers::{ChannelKind, PeerClient, Peers, explain_status},
    rt,
    types::{Config, Member, NodeId, Vote},
    wire,
};

type Snapshot = openraft::type_config::alias::SnapshotOf<Config, SnapshotFile>;
type RpcError = RPCError<Config>;

/// The pause after a peer failed before its entries are sent again, at first and at most. It bounds how far a follower
/// is behind when it is back. A dead peer costs five connection attempts a second.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// Bytes of a snapshot in one message.
const SNAPSHOT_PART_BYTES: usize = 256 * 1024;
/// Messages of a snapshot that are sent ahead.
const SNAPSHOT_PARTS_AHEAD: usize = 4;

/// Makes a connection for each channel kind.
pub(crate) struct Network {
    peers: Arc<Peers>,
}

impl Network {
    pub(crate) const fn new(peers: Arc<Peers>) -> Self {
        Self { peers }
    }

    fn link(&self, target: NodeId, member: &Member, kind: ChannelKind) -> PeerLink {
        PeerLink { peers: Arc::clone(&self.peers), target, addr: member.cluster_addr.clone(), kind }
    }
}

impl RaftNetworkFactory<Config> for Network {
    type Network = PeerLink;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> PeerLink {
        self.link(target, member, ChannelKind::Append)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, member: &Member) -> PeerLink {
        self.link(target, member, ChannelKind::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, member: &Member) -> PeerLink {
        self.link(target, member, ChannelKind::Snapshot)
    }
}

/// One channel to one member.
pub(crate) struct PeerLink {
    peers: Arc<Peers>,
    target: NodeId,
    addr: String,
    kind: ChannelKind,
}

fn unreachable(reason: impl ToString) -> Unreachable<Config> {
    Unreachable::from_string(reason)
}

impl PeerLink {
    fn client(&self) -> Result<PeerClient, Unreachable<Config>> {
        self.peers.client(Some(self.target), &self.addr, self.kind).map_err(unreachable)
    }

    fn envelope(&self) -> pb::Envelope {
        self.peers.identity.envelope(self.target)
    }

    /// Sends one request and waits for its reply, within the time that openraft gives.
    async fn ask<T>(
        &self,
        option: &RPCOption,
        question: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, RpcError> {
        match timeout(option.soft_ttl(), question).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(unreachable(explain_status(&status)).into()),
            Err(_) => Err(unreachable(format!("node {} did not answer in time", self.target)).into()),
        }
    }

    async fn append_stream<S>(
        &self,
        input: S,
        option: RPCOption,
    ) -> Result<BoxStream<'static, Result<StreamAppendResult<Config>, RpcError>>, RpcError>
    where
        S: Stream<Item = AppendEntriesRequest<Config>> + Send + Unpin + 'static,
    {
        // openraft waits out its backoff inside the first `next()`. Dialling before that call would skip the wait, and
        // a dead peer would be dialled without a pause: a whole core and a hundred gigabytes of log a day.
        let mut input = input;
        let Some(first) = input.next().await else { return Ok(futures_util::stream::empty().boxed()) };
        let mut client = self.client()?;
        // HTTP/2 goes on reading the requests of a stream whose replies are no longer awaited. All streams to a peer
        // draw from one supply of entries. Such a stream would take entries that belong to the next one, and the peer
        // would receive them out of order.
        let abandoned = CancellationToken::new();
        let input = input.take_until(abandoned.clone().cancelled_owned());
        let until_dropped = abandoned.drop_guard();
        let owed = Arc::new(AtomicU64::new(0));
        let (envelope, sent) = (self.envelope(), Arc::clone(&owed));
        let requests = futures_util::stream::iter([first]).chain(input).map(move |request| {
            sent.fetch_add(1, Ordering::Relaxed);
            wire::append_to_wire(&request, envelope.clone())
        });
        let replies = self.ask(&option, client.append(requests)).await?;
        let target = self.target;
        let begun = (replies, owed, Some(until_dropped));
        let results = futures_util::stream::unfold(begun, move |(mut replies, owed, open)| {
            let limit = option.soft_ttl();
            async move {
                let open = open?;
                let next = next_reply(&mut replies, &owed, limit, target).await?;
                let open = matches!(next, Ok(Ok(_))).then_some(open);
                Some((next, (replies, owed, open)))
            }
        });
        Ok(results.boxed())
    }
}

/// The next reply of an append stream. Silence counts as a failure only while the peer owes a reply.
async fn next_reply(
    replies: &mut tonic::Streaming<pb::AppendReply>,
    owed: &AtomicU64,
    limit: Duration,
    target: NodeId,
) -> Option<Result<StreamAppendResult<Config>, RpcError>> {
    loop {
        let owed_before = owed.load(Ordering::Relaxed);
        match timeout(limit, replies.message()).await {
            Ok(Ok(Some(reply))) => {
                owed.fetch_sub(1, Ordering::Relaxed);
                return Some(wire::append_result(&reply).map_err(|malformed| unreachable(malformed).into()));
            }
            Ok(Ok(None)) => return None,
            Ok(Err(status)) => return Some(Err(unreachable(explain_status(&status)).into())),
            Err(_) if owed_before > 0 => {
                return Some(Err(unreachable(format!("node {target} did not answer in time")).into()));
            }
            Err(_) => {}
        }
    }
}

impl NetBackoff<Config> for PeerLink {
    fn backoff(&self) -> Option<Backoff> {
        let pauses =
            (0..).map(|failures| FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE));
        Some(Backoff::new(pauses))
    }
}

impl NetStreamAppend<Config> for PeerLink {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Config>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<Config>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            let results = self.append_stream(input, option).await?;
            Ok(results as BoxStream<'s, _>)
        })
    }
}

impl NetVote<Config> for PeerLink {
    async fn vote(
        &mut self,
        rpc: VoteRequest<Config>,
        option: RPCOption,
    ) -> Result<VoteResponse<Config>, RpcError> {
        let request = wire::vote_request_to_wire(&rpc, self.envelope());
        let reply = self.ask(&option, self.client()?.vote(request)).await?;
        wire::vote_reply(&reply).map_err(|malformed| unreachable(malformed).into())
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Config>,
        option: RPCOption,
    ) -> Result<VoteResponse<Config>, RpcError> {
        let request = wire::vote_request_to_wire(&rpc, self.envelope());
        let reply = self.ask(&option, self.client()?.pre_vote(request)).await?;
        wire::vote_reply(&reply).map_err(|malformed| unreachable(malformed).into())
    }
}

impl NetTransferLeader<Config> for PeerLink {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Config>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Config>, RpcError> {
        let request = wire::transfer_to_wire(&req, self.envelope());
        let reply = self.ask(&option, self.client()?.transfer_leader(request)).await?;
        if reply.accepted {
            return Ok(Ok(()));
        }
        Err(unreachable(format!("node {} declined to lead", self.target)).into())
    }
}

impl NetSnapshot<Config> for PeerLink {
    type SnapshotData = SnapshotFile;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Config>, StreamingError<Config>> {
        let begin = pb::SnapshotBegin {
            envelope: Some(self.envelope()),
            vote: Some(wire::vote_to_wire(&vote)),
            last_log_id: snapshot.meta.last_log_id.as_ref().map(wire::log_id_to_wire),
            membership: Some(wire::stored_membership_to_wire(&snapshot.meta.last_membership)),
            size_bytes: snapshot.snapshot.size_bytes,
        };
        let mut client = self.client()?;
        let parts = snapshot_parts(begin, snapshot.snapshot);
        let sending = timeout(option.hard_ttl(), client.install_snapshot(parts));
        let reply = tokio::select! {
            reply = sending => reply.map_err(|_| unreachable("the snapshot was not taken in time"))?,
            closed = cancel => return Err(closed.into()),
        };
        let reply = reply.map_err(|status| unreachable(explain_status(&status)))?.into_inner();
        let vote = wire::vote(reply.vote.as_ref()).map_err(unreachable)?;
        Ok(SnapshotResponse::new(vote))
    }
}

/// The file as a stream of messages, read a few parts ahead of the network.
fn snapshot_parts(
    begin: pb::SnapshotBegin,
    file: SnapshotFile,
) -> impl Stream<Item = pb::SnapshotPart> + Send {
    use std::io::Read as _;
    let (sender, receiver) = tokio::sync::mpsc::channel(SNAPSHOT_PARTS_AHEAD);
    let part = |part| pb::SnapshotPart { part: Some(part) };
    tokio::spawn(async move {
        if sender.send(part(pb::snapshot_part::Part::Begin(begin))).await.is_err() {
            return;
        }
        // A file that cannot be read to its end is sent incomplete, and the receiver rejects it.
        let Ok(Ok(mut source)) = rt::blocking(move || std::fs::File::open(&file.path)).await else { return };
        loop {
            let reading = rt::blocking(move || {
                let mut buffer = vec![0; SNAPSHOT_PART_BYTES];
                let read = source.read(&mut buffer)?;
                buffer.truncate(read);
                std::io::Result::Ok((source, buffer))
            });
            let Ok(Ok((rest, buffer))) = reading.await else { return };
            if buffer.is_empty() {
                return;
            }
            source = rest;
            if sender.send(part(pb::snapshot_part::Part::Data(buffer))).await.is_err() {
                return;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
