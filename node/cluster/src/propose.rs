//! Writes from any node: sent to the leader, held across elections, retried under one request id
//! (docs/design/consensus.md).
//!
//! A write whose reply was lost may have happened. Retrying it is safe, since the rules remember its request id. It is
//! reported as *unknown* only when the time limit ends without a reply, and never as failed.

use std::{sync::Arc, time::Duration};

use conclave_proto::{cluster::v1 as pb, command::v1::Command};
use conclave_state::{Refusal, Reply, ReplyBody, State};
use openraft::async_runtime::WatchReceiver as _;
use prost::Message as _;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use conclave_base::propagation;

use super::{
    leader::{Leader, LeaderError, WriteReceipt},
    lease::{BarrierResult, Leases},
    peers::{ChannelKind, Peers, explain_status},
    service::{is_removed, was_not_taken},
    types::NodeId,
};

/// The time for which a write is held while there is no leader (docs/design/consensus.md).
pub const HOLD: Duration = Duration::from_secs(3);
/// The time limit of one attempt at one leader: a leader that hangs must not use up the whole hold.
const ATTEMPT: Duration = Duration::from_secs(1);
/// The pause before another attempt when nothing has changed meanwhile. It doubles each time, so that thousands of held
/// writes do not dial a dead leader's port all the time. A new leader ends it at once.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// The largest number of writes that wait on this node. Above it, callers are asked to retry.
pub const MAX_WAITING: usize = 4_096;

/// A write that was applied.
#[derive(Clone, Debug)]
pub struct CommittedWrite {
    /// The reply of the rules; not a refusal.
    pub body: ReplyBody,
    /// Its index in the log.
    pub index: u64,
    /// A version of this node's state that includes the write.
    pub state: Arc<State>,
}

/// The reason why a write was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// The rules refused it; nothing changed.
    #[error(transparent)]
    Refused(Refusal),
    /// Nothing was sent: the cluster has no leader, or this node cannot reach it. Nothing changed.
    #[error("the cluster has no leader at the moment; try again shortly")]
    Unavailable,
    /// The clocks are in doubt, and the reply depends on the time. Nothing changed.
    #[error("the cluster cannot tell the time: {0}")]
    Clock(String),
    /// Too many writes wait on this node. Nothing changed.
    #[error("this node is busy; try again shortly")]
    Busy,
    /// The write was sent, and no reply arrived in time: it may have happened, or may still happen.
    #[error("the outcome of the write is unknown; check before you try again")]
    Unknown,
    /// The command is too large for the log. Nothing changed.
    #[error("the request is too large: {0}")]
    TooLarge(String),
}

/// Forwards commands to the leader.
#[derive(Clone)]
pub(crate) struct Proposer {
    leader: Leader,
    leases: Leases,
    peers: Arc<Peers>,
    room: Arc<Semaphore>,
}

enum Attempt {
    Done(WriteReceipt),
    /// Certainly not accepted.
    NotTaken,
    /// Sent; the outcome is not known.
    Lost,
    TooLarge(String),
}

impl Proposer {
    pub(crate) fn new(leader: Leader, leases: Leases, peers: Arc<Peers>) -> Self {
        Self { leader, leases, peers, room: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// Proposes the command. Must run inside the consensus runtime.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub(crate) async fn propose(&self, command: &Command) -> Result<CommittedWrite, ProposeError> {
        let _room = self.room.try_acquire().map_err(|_| ProposeError::Busy)?;
        let bytes = command.encode_to_vec();
        let deadline = Instant::now() + HOLD;
        let mut sent = false;
        let (mut pause, mut before) = (PAUSE, None);
        loop {
            let asked = self.leader.leader_id();
            if asked != before {
                // A new leader takes no writes before a quorum has answered it once. That takes milliseconds, not the
                // long pause reached with the dead leader.
                (pause, before) = (PAUSE, asked);
            }
            match self.attempt_while_it_leads(asked, &bytes, deadline).await {
                Attempt::Done(written) => {
                    // The write is seen here first: the lease terms that the barrier waits for are those of that
                    // version or later ones.
                    let state = self.seen(written.index, deadline).await?;
                    self.await_barrier(&written, asked).await;
                    return outcome(written, state);
                }
                Attempt::TooLarge(why) => return Err(ProposeError::TooLarge(why)),
                Attempt::Lost => sent = true,
                Attempt::NotTaken => {}
            }
            if Instant::now() >= deadline {
                return Err(if sent { ProposeError::Unknown } else { ProposeError::Unavailable });
            }
            self.wait_for_news(asked, pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Makes one attempt, which follows Raft's leader and not a socket: when another node leads, the silence of the old
    /// leader no longer matters. Otherwise a leader that is frozen with open sockets would hold up every write for as
    /// long as it is frozen.
    async fn attempt_while_it_leads(
        &self,
        leader: Option<NodeId>,
        bytes: &[u8],
        deadline: Instant,
    ) -> Attempt {
        let attempt = self.attempt(leader, bytes, deadline);
        if leader.is_none() {
            return attempt.await;
        }
        let another = async {
            let mut metrics = self.leader.raft().metrics();
            loop {
                let leads = metrics.borrow_watched().current_leader;
                if leads.is_some() && leads != leader {
                    return;
                }
                if metrics.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            // A reply that has arrived is used, whichever node leads by now.
            biased;
            outcome = attempt => outcome,
            () = another => Attempt::Lost,
        }
    }

    async fn attempt(&self, leader: Option<NodeId>, bytes: &[u8], deadline: Instant) -> Attempt {
        let limit = ATTEMPT.min(deadline.saturating_duration_since(Instant::now()));
        if limit.is_zero() {
            // Not begun: a write that was never sent must not be reported as unknown.
            return Attempt::NotTaken;
        }
        match leader {
            None => Attempt::NotTaken,
            Some(id) if id == self.peers.identity.node => {
                match timeout(limit, self.leader.write(bytes.to_vec())).await {
                    Ok(Ok(written)) => Attempt::Done(written),
                    Ok(Err(LeaderError::NotLeader(_) | LeaderError::ClockUnsure(_))) => Attempt::NotTaken,
                    Ok(Err(error @ LeaderError::TooLarge { .. })) => Attempt::TooLarge(error.to_string()),
                    Ok(Err(_)) | Err(_) => Attempt::Lost,
                }
            }
            Some(id) => self.forward(id, bytes, limit).await,
        }
    }

    async fn forward(&self, to: NodeId, bytes: &[u8], limit: Duration) -> Attempt {
        let members = self.peers.identity.members();
        let Some((_, member)) = members.into_iter().find(|(id, _)| *id == to) else {
            return Attempt::NotTaken;
        };
        let Ok((mut client, connection)) =
            self.peers.client_and_connection(Some(to), &member.cluster_addr, ChannelKind::Forward)
        else {
            return Attempt::NotTaken;
        };
        if connection.in_backoff() {
            return Attempt::NotTaken;
        }
        let start = connection.mark();
        let mut request = tonic::Request::new(pb::ProposeRequest {
            envelope: Some(self.peers.identity.envelope(to)),
            command: bytes.to_vec(),
        });
        propagation::inject(request.metadata_mut());
        match timeout(limit, client.propose(request)).await {
            Ok(Ok(reply)) => {
                let reply = reply.into_inner();
                let (index, term, revokes) = (reply.index, reply.term, reply.unsettled);
                Reply::decode(reply.reply.as_slice()).map_or(Attempt::Lost, |reply| {
                    Attempt::Done(WriteReceipt { reply, index, term, revokes })
                })
            }
            Ok(Err(status)) if was_not_taken(&status) || turned_away(&status) => {
                if is_removed(&status) {
                    self.peers.identity.mark_removed();
                }
                Attempt::NotTaken
            }
            Ok(Err(_)) | Err(_) if connection.was_dead_since(start) => Attempt::NotTaken,
            Ok(Err(status)) if status.code() == tonic::Code::InvalidArgument => {
                Attempt::TooLarge(status.message().to_owned())
            }
            Ok(Err(status)) => {
                tracing::debug!(peer.id = to, "forwarding a write failed: {}", explain_status(&status));
                Attempt::Lost
            }
            Err(_) => {
                self.peers.forget(Some(to), &member.cluster_addr, ChannelKind::Forward);
                Attempt::Lost
            }
        }
    }

    /// Waits until a committed revocation holds on every node: until the leader of its term confirms it, or, if that
    /// leader does not in time, as long as any lease can last. Every lease that does not reflect it was requested
    /// before it was committed.
    async fn await_barrier(&self, written: &WriteReceipt, leader: Option<NodeId>) {
        if !written.revokes {
            return;
        }
        let limit = self.leases.longest_wait();
        let committed = self.leases.now();
        let confirmed = async {
            if self.barrier_of(written, leader).await == BarrierResult::TimedOut {
                std::future::pending::<()>().await;
            }
        };
        let over = async {
            while self.leases.now().least_since(committed) < limit {
                tokio::time::sleep(limit.saturating_sub(self.leases.now().least_since(committed))).await;
            }
        };
        tokio::select! {
            () = confirmed => {}
            () = over => {}
        }
    }

    async fn barrier_of(&self, written: &WriteReceipt, leader: Option<NodeId>) -> BarrierResult {
        let limit = self.leases.longest_wait();
        let Some(id) = leader else { return BarrierResult::TimedOut };
        if id == self.peers.identity.node {
            return self.leases.await_barrier(written.term, written.index, limit).await;
        }
        let members = self.peers.identity.members();
        let Some((_, member)) = members.into_iter().find(|(node, _)| *node == id) else {
            return BarrierResult::TimedOut;
        };
        let Ok(mut client) = self.peers.client(Some(id), &member.cluster_addr, ChannelKind::Lease) else {
            return BarrierResult::TimedOut;
        };
        let envelope = Some(self.peers.identity.envelope(id));
        let request = pb::SettleRequest { envelope, term: written.term, index: written.index };
        match timeout(limit, client.settle(request)).await {
            Ok(Ok(_)) => BarrierResult::Reached,
            _ => BarrierResult::TimedOut,
        }
    }

    /// Returns only once this node has seen the write itself, so that its caller can read it here next
    /// (docs/design/README.md, P5).
    async fn seen(&self, index: u64, deadline: Instant) -> Result<Arc<State>, ProposeError> {
        // It is committed: waiting a little longer than the hold is better than reporting it as unknown.
        let reached = timeout_at(deadline + HOLD, self.leader.view().reach(index)).await;
        reached.ok().flatten().ok_or(ProposeError::Unknown)
    }

    /// Waits until the leader is another than `before`, or until `pause` has passed.
    async fn wait_for_news(&self, before: Option<NodeId>, pause: Duration) {
        let mut metrics = self.leader.raft().metrics();
        let change = async {
            while metrics.borrow_watched().current_leader == before {
                if metrics.changed().await.is_err() {
                    // Raft has stopped: no change will arrive any more, and retrying at once would spin.
                    std::future::pending::<()>().await;
                }
            }
        };
        // In both cases the caller tries again.
        let _ = timeout(pause, change).await;
    }
}

fn outcome(written: WriteReceipt, state: Arc<State>) -> Result<CommittedWrite, ProposeError> {
    match written.reply.body {
        Some(ReplyBody::Refused(refused)) => Err(ProposeError::Refused(Refusal::from_wire(&refused))),
        Some(body) => Ok(CommittedWrite { body, index: written.index, state }),
        None => Err(ProposeError::Unknown),
    }
}

/// True if the peer rejected the message before reading it.
fn turned_away(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::PermissionDenied
}
