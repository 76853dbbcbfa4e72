//! **Fast failover**: when the leader's process dies, its sockets close and its port refuses connections. The survivors
//! need not wait for a timer (docs/design/consensus.md). A node that notices it asks the other voters if they see the
//! same and how much of the log they have. The most caught-up voter stands for election at once, as if the dead leader
//! had transferred the lead.
//!
//! A wrong guess costs an election, never safety: the vote is Raft's own. A leader that is cut off or frozen refuses no
//! connections; then the timers decide.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use conclave_proto::cluster::v1 as pb;
use openraft::{async_runtime::WatchReceiver as _, raft::TransferLeaderRequest, vote::RaftLeaderId as _};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    leader::Leader,
    peers::{ChannelKind, Peers},
    types::{NodeId, RaftLogId, Vote},
    wire,
};

/// Refused connections in a row that prove it: a process that is being restarted listens again before that many.
const REFUSALS: u32 = 3;
/// The pause between two connection attempts.
const PROBE: Duration = Duration::from_millis(3);
/// The time limit of a connection attempt, or of another voter's reply. After that, the timers are as fast.
const ANSWER: Duration = Duration::from_millis(50);
/// The number of further checks, and the pause between them. A dying process closes its streams a moment before its
/// port, and a connection that still succeeds in between does not prove that it lives.
const ROUNDS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(10);
/// The time this node waits for a voter that has more of the log before it stands itself: that voter may have died as
/// well.
const PRECEDENCE: Duration = Duration::from_millis(40);

/// Notifies that a leader's stream has ended.
#[derive(Clone, Default)]
pub(crate) struct Watch {
    gone: Arc<Mutex<Option<NodeId>>>,
    news: Arc<Notify>,
}

impl Watch {
    /// Records that the append stream from `leader` to this node has ended.
    pub(crate) fn stream_ended(&self, leader: NodeId) {
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner) = Some(leader);
        self.news.notify_one();
    }

    async fn next(&self) -> NodeId {
        loop {
            let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner).take();
            match gone {
                Some(leader) => return leader,
                None => self.news.notified().await,
            }
        }
    }
}

/// Runs until the task is dropped.
pub(crate) async fn run(leader: Leader, peers: Arc<Peers>) {
    loop {
        let gone = peers.lost.next().await;
        for _ in 0..ROUNDS {
            let Some((vote, mine)) = followed(&leader, gone) else { break };
            if succeed(&leader, &peers, gone, vote, mine).await {
                break;
            }
            sleep(PAUSE).await;
        }
    }
}

/// The vote of the leader that this node follows, if the leader is `gone`, and the last entry of this node's log.
fn followed(leader: &Leader, gone: NodeId) -> Option<(Vote, Option<RaftLogId>)> {
    let metrics = leader.raft().metrics().borrow_watched().clone();
    let follows = metrics.vote.is_committed() && *metrics.vote.leader_id().node_id() == gone;
    let votes = metrics.membership_config.membership().voter_ids().any(|id| id == metrics.id);
    (follows && votes && metrics.id != gone).then(|| (metrics.vote, metrics.log_id_list.last().copied()))
}

/// Returns true if succession is decided: this node stands for election, or another node leads. Returns false while the
/// leader does not appear to be gone.
async fn succeed(
    leader: &Leader,
    peers: &Arc<Peers>,
    gone: NodeId,
    vote: Vote,
    mine: Option<RaftLogId>,
) -> bool {
    if !refuses(peers, gone).await {
        return false;
    }
    let Some(ahead) = survey(leader, peers, gone, &vote, mine).await else { return false };
    if ahead {
        sleep(PRECEDENCE).await;
        if followed(leader, gone).is_none() {
            return true;
        }
    }
    tracing::info!(peer.id = gone, "the leader's process is gone; standing for election at once");
    let request = TransferLeaderRequest::new(vote, peers.identity.node, mine);
    if let Err(error) = leader.raft().handle_transfer_leader(request).await {
        tracing::debug!(%error, "raft has stopped");
    }
    true
}

/// Returns the voter that has precedence, if another has it. The outer `None` means that too few voters agree that the
/// leader is gone.
async fn survey(
    leader: &Leader,
    peers: &Arc<Peers>,
    gone: NodeId,
    vote: &Vote,
    mine: Option<RaftLogId>,
) -> Option<bool> {
    let metrics = leader.raft().metrics().borrow_watched().clone();
    let voters: Vec<NodeId> = metrics.membership_config.membership().voter_ids().collect();
    let own = peers.identity.node;
    let others = voters.iter().copied().filter(|id| *id != own && *id != gone);
    let asking = others.map(|id| async move { Some((id, ask(peers, id, vote).await?)) });
    let agreeing: Vec<_> = futures_util::future::join_all(asking).await.into_iter().flatten().collect();
    // This node included. A smaller group could not elect a leader.
    if (agreeing.len() + 1) * 2 <= voters.len() {
        return None;
    }
    // The longer log wins; between equal ones, the lower number.
    Some(
        agreeing
            .into_iter()
            .any(|(id, theirs)| (theirs, std::cmp::Reverse(id)) > (mine, std::cmp::Reverse(own))),
    )
}

/// The last entry of a voter that also finds the leader gone.
async fn ask(peers: &Peers, id: NodeId, vote: &Vote) -> Option<Option<RaftLogId>> {
    let (_, member) = peers.identity.members().into_iter().find(|(node, _)| *node == id)?;
    let mut client = peers.client(Some(id), &member.cluster_addr, ChannelKind::Lease).ok()?;
    let request = pb::SurveyRequest {
        envelope: Some(peers.identity.envelope(id)),
        leader: Some(wire::vote_to_wire(vote)),
    };
    let reply = timeout(ANSWER, client.survey(request)).await.ok()?.ok()?.into_inner();
    reply.gone.then(|| reply.last_log_id.as_ref().map(wire::log_id))
}

/// Answers another voter that asks if the leader it follows is gone from here as well.
pub(crate) async fn answer(leader: &Leader, peers: &Peers, vote: &Vote) -> pb::SurveyReply {
    let gone = *vote.leader_id().node_id();
    let same = followed(leader, gone).filter(|(own, _)| own == vote);
    let Some((_, last)) = same else { return pb::SurveyReply::default() };
    let gone = refuses(peers, gone).await;
    pb::SurveyReply { gone, last_log_id: last.as_ref().map(wire::log_id_to_wire) }
}

/// True if the cluster plane of this member refuses each of several connection attempts. Silence is not a refusal.
async fn refuses(peers: &Peers, id: NodeId) -> bool {
    let Some((_, member)) = peers.identity.members().into_iter().find(|(node, _)| *node == id) else {
        return false;
    };
    for probe in 0..REFUSALS {
        if probe > 0 {
            sleep(PROBE).await;
        }
        match timeout(ANSWER, peers.probe(&member.cluster_addr)).await {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            _ => return false,
        }
    }
    true
}
