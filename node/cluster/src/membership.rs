//! **Membership changes**, on the leader: a new node gets a number that was never used and becomes a learner. Once it
//! has caught up, it becomes a voter. A removed node is out for good.
//!
//! Every change names the configuration it was decided on: if two operators change at once, one of them is asked to
//! look again. The next leader finishes a change that its leader could not finish ([`tend`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use conclave_proto::{
    cluster::v1 as pb,
    command::v1::{Command, ReserveNodeId, command::Body},
};
use conclave_state::ReplyBody;
use openraft::{
    ChangeMembers, Instant as _, ServerState,
    async_runtime::WatchReceiver as _,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
    raft::Precondition,
};
use tokio::time::{Instant, sleep, timeout};

use conclave_base::runtime::Runtime;

use super::{
    leader::Leader,
    leader_transfer,
    propose::{ProposeError, Proposer},
    types::{Config, Member, NodeId, RaftLogId},
};

/// The most entries that a learner may be behind and still be made a voter: fewer than one batch of appends.
const CAUGHT_UP: u64 = 100;
/// The time within which a learner must have answered to be regarded as caught up: three heartbeats.
const ANSWERED_WITHIN: Duration = Duration::from_millis(150);
/// The time that voters have to answer before a change that would depend on them. A node beside eight busy processes on
/// two cores answered a heartbeat only after more than half a second; an operator who removes a member waits this long
/// at most if the others are really gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
const ANSWER_PAUSE: Duration = Duration::from_millis(10);
/// The time limit for a change to be committed; openraft itself would wait for ever.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);
/// The largest number of members, learners included: `config::MAX_PEERS` voters, and as many that are joining.
const MAX_MEMBERS: usize = 18;

/// The reason why the members were not changed. Texts are for operators.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MembershipError {
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    #[error("node {0} is not a member; `conclave cluster status` shows them")]
    Unknown(NodeId),
    #[error("{0}")]
    Refused(String),
    #[error("another change of the members is in progress; look at `conclave cluster status` and try again")]
    Busy,
    #[error("the members may or may not have been changed: look at `conclave cluster status`")]
    Outcome,
    #[error("the cluster cannot take writes at the moment: {0}")]
    Unavailable(String),
}

type Change = ChangeMembers<NodeId, Member>;

/// The configuration on which a change is decided. The change is made on this one or not at all.
struct Basis {
    log_id: Option<RaftLogId>,
    voters: BTreeSet<NodeId>,
    members: BTreeMap<NodeId, Member>,
}

impl Basis {
    fn now(leader: &Leader) -> Self {
        let metrics = leader.raft().metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        Self {
            log_id: *metrics.membership_config.log_id(),
            voters: membership.voter_ids().collect(),
            members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        }
    }

    fn must_know(&self, id: NodeId) -> Result<(), MembershipError> {
        if self.members.contains_key(&id) { Ok(()) } else { Err(MembershipError::Unknown(id)) }
    }
}

/// Everything needed to make a change.
#[derive(Clone)]
pub(crate) struct Membership {
    pub leader: Leader,
    pub proposer: Proposer,
    pub runtime: Runtime,
}

impl Membership {
    /// Creates a membership for a node with an empty data directory, and assigns its number. A repeated request from
    /// the directory gets its number again.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub(crate) async fn join(&self, member: Member) -> Result<NodeId, MembershipError> {
        self.must_lead()?;
        let basis = Basis::now(&self.leader);
        let members = &basis.members;
        if let Some((id, _)) = members.iter().find(|(_, known)| known.incarnation == member.incarnation) {
            return Ok(*id);
        }
        if let Some((id, _)) = members.iter().find(|(_, known)| known.cluster_addr == member.cluster_addr) {
            return Err(MembershipError::Refused(format!(
                "{} is the address of node {id}; if its disk is lost, remove it first: conclave cluster remove {id}",
                member.cluster_addr
            )));
        }
        if members.len() >= MAX_MEMBERS {
            return Err(MembershipError::Refused(format!("a cluster has at most {MAX_MEMBERS} members")));
        }
        let highest = members.keys().next_back().copied().unwrap_or(0);
        let id = self.reserve(highest).await?;
        change(&self.leader, basis, Change::AddNodes(BTreeMap::from([(id, member)])), true).await?;
        tracing::info!(peer.id = id, "node {id} joins as a learner");
        Ok(id)
    }

    /// Records the new address of a member. It remains one member: its identity was checked.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub(crate) async fn readdress(
        &self,
        node: NodeId,
        addr: &str,
        api_url: &str,
    ) -> Result<(), MembershipError> {
        self.must_lead()?;
        let basis = Basis::now(&self.leader);
        basis.must_know(node)?;
        let Some(known) = basis.members.get(&node) else { return Ok(()) };
        if known.cluster_addr == addr && known.api_url == api_url {
            return Ok(());
        }
        let before = known.cluster_addr.clone();
        let member = Member { cluster_addr: addr.into(), api_url: api_url.into(), ..known.clone() };
        change(&self.leader, basis, Change::SetNodes(BTreeMap::from([(node, member)])), true).await?;
        tracing::info!(peer.id = node, "node {node} has moved from {before} to {addr}");
        Ok(())
    }

    /// Removes a member for good.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub(crate) async fn remove(&self, command: &pb::RemoveMember) -> Result<(), MembershipError> {
        self.must_lead()?;
        let id = command.node_id;
        let basis = Basis::now(&self.leader);
        if self.was_removed(&basis, id) {
            return Ok(());
        }
        basis.must_know(id)?;
        let mut rest = basis.voters.clone();
        if !rest.remove(&id) {
            self.burn(id).await?;
            return change(&self.leader, basis, Change::RemoveNodes(BTreeSet::from([id])), false).await;
        }
        if rest.is_empty() {
            return Err(MembershipError::Refused("the last voter cannot be removed".into()));
        }
        self.must_have_quorum(&rest, command.force).await?;
        self.replace_voters(basis, rest, id).await
    }

    /// Replaces a member by one that has caught up, in one change.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub(crate) async fn replace(&self, command: &pb::ReplaceMember) -> Result<(), MembershipError> {
        self.must_lead()?;
        let (old, new) = (command.old_node_id, command.new_node_id);
        let basis = Basis::now(&self.leader);
        basis.must_know(old)?;
        basis.must_know(new)?;
        let mut voters = basis.voters.clone();
        if !voters.remove(&old) {
            return Err(MembershipError::Refused(format!("node {old} does not vote; remove it")));
        }
        if voters.insert(new) && !caught_up(&self.leader, new) {
            let text = format!("node {new} has not caught up yet; try again shortly");
            return Err(MembershipError::Refused(text));
        }
        self.must_have_quorum(&voters, false).await?;
        self.replace_voters(basis, voters, old).await
    }

    /// Transfers the lead to `to`, or to the best voter if `to` is 0.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub(crate) async fn transfer_leader(&self, to: NodeId) -> Result<NodeId, MembershipError> {
        if self.leader.leader_id() == Some(to) {
            return Ok(to);
        }
        self.must_lead()?;
        let chosen = self.successor(to).await.ok_or_else(|| {
            MembershipError::Refused(if to == 0 {
                "no other voter answers".into()
            } else {
                format!("node {to} is not a voter that answers and could take over")
            })
        })?;
        let leading = leader_transfer::transfer(&self.leader, chosen).await;
        leading.ok_or_else(|| MembershipError::Unavailable("no node took over the lead in time".into()))
    }

    /// Returns `to`, or the best voter if `to` is 0, as soon as it answers.
    async fn successor(&self, to: NodeId) -> Option<NodeId> {
        let asked = Instant::now();
        loop {
            let able = leader_transfer::voters_by_progress(&self.leader);
            let found = able.into_iter().find(|id| to == 0 || *id == to);
            if found.is_some() || asked.elapsed() >= ANSWER_LIMIT {
                return found;
            }
            sleep(ANSWER_PAUSE).await;
        }
    }

    async fn replace_voters(
        &self,
        basis: Basis,
        voters: BTreeSet<NodeId>,
        gone: NodeId,
    ) -> Result<(), MembershipError> {
        let own = self.leader.raft().metrics().borrow_watched().id;
        if gone == own {
            // A leader does not remove itself. The next leader does; the caller sends the request there.
            leader_transfer::transfer_to_best(&self.leader).await;
            return Err(MembershipError::NotLeader(self.leader.leader_id().filter(|id| *id != own)));
        }
        // Its number is never assigned again, whatever numbers remain.
        self.burn(gone).await?;
        change(&self.leader, basis, Change::ReplaceAllVoters(voters), false).await?;
        tracing::info!(peer.id = gone, "node {gone} is not a member any more");
        Ok(())
    }

    /// Makes sure that this number is never assigned again.
    async fn burn(&self, id: NodeId) -> Result<(), MembershipError> {
        if self.leader.view().load().meta().last_node_id < id {
            self.reserve(id.saturating_sub(1)).await?;
        }
        Ok(())
    }

    async fn reserve(&self, above: NodeId) -> Result<NodeId, MembershipError> {
        let request_id = self.runtime.entropy.bytes::<16>().to_vec();
        let command = Command { request_id, body: Some(Body::ReserveNodeId(ReserveNodeId { above })) };
        let mut outcome = self.proposer.propose(&command).await;
        if matches!(outcome, Err(ProposeError::Unknown)) {
            // With the request id of the first attempt, so that at most one number is reserved.
            outcome = self.proposer.propose(&command).await;
        }
        match outcome {
            Ok(committed) => match committed.body {
                ReplyBody::NodeIdReserved(reserved) => Ok(reserved.node_id),
                _ => Err(MembershipError::Outcome),
            },
            Err(ProposeError::Refused(refusal)) => Err(MembershipError::Refused(refusal.detail)),
            // A number that was reserved in vain is not missed.
            Err(error) => Err(MembershipError::Unavailable(error.to_string())),
        }
    }

    /// True if this number was assigned once and has no member any more: a repeated removal is then a retry.
    fn was_removed(&self, basis: &Basis, id: NodeId) -> bool {
        let given = id != 0 && id <= self.leader.view().load().meta().last_node_id;
        given && !basis.members.contains_key(&id)
    }

    fn must_lead(&self) -> Result<(), MembershipError> {
        if self.leader.is_leader() {
            Ok(())
        } else {
            Err(MembershipError::NotLeader(self.leader.leader_id()))
        }
    }

    /// Requires a majority of these voters to answer now: otherwise the change could be neither committed nor taken
    /// back. Answers from before this call are not accepted.
    async fn must_have_quorum(&self, voters: &BTreeSet<NodeId>, force: bool) -> Result<(), MembershipError> {
        let asked = Instant::now();
        loop {
            let there = voters.iter().filter(|id| answered(&self.leader, **id, asked.elapsed())).count();
            if force || there * 2 > voters.len() {
                return Ok(());
            }
            if asked.elapsed() >= ANSWER_LIMIT {
                return Err(MembershipError::Refused(format!(
                    "only {there} of the {} voters that would remain answer: the cluster could not take writes any \
                     more; bring them back, or use --force",
                    voters.len()
                )));
            }
            sleep(ANSWER_PAUSE).await;
        }
    }
}

/// The periodic work of the leader: finishes a change that was interrupted, and makes learners voters once they have
/// caught up.
pub(crate) async fn tend(leader: &Leader) {
    let basis = Basis::now(leader);
    let metrics = leader.raft().metrics().borrow_watched().clone();
    let settled = metrics.membership_config.log_id() == metrics.committed_membership_config.log_id();
    if metrics.state != ServerState::Leader || !settled {
        return;
    }
    let membership = metrics.membership_config.membership();
    let configs = membership.get_joint_config();
    let outcome = if configs.len() > 1 {
        tracing::warn!("finishing a change of the members that was cut short");
        let meant = configs.last().cloned().unwrap_or_default();
        change(leader, basis, Change::ReplaceAllVoters(meant), false).await
    } else if let Some(ready) = membership.learner_ids().find(|id| caught_up(leader, *id)) {
        tracing::info!(peer.id = ready, "node {ready} has caught up and votes from now on");
        change(leader, basis, Change::AddVoterIds(BTreeSet::from([ready])), true).await
    } else {
        return;
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a change of the members was put off");
    }
}

/// Makes the change only if the configuration is still the one it was decided on.
async fn change(leader: &Leader, basis: Basis, change: Change, retain: bool) -> Result<(), MembershipError> {
    let condition = Precondition::LastMembershipLogId { last_membership_log_id: basis.log_id };
    let writing = leader.raft().change_membership_if(change, retain, [condition]);
    let written = timeout(COMMIT_LIMIT, writing).await.map_err(|_| MembershipError::Outcome)?;
    written.map(|_| ()).map_err(|error| failed(&error))
}

fn failed(error: &RaftError<Config, ClientWriteError<Config>>) -> MembershipError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            MembershipError::NotLeader(to.leader_id)
        }
        RaftError::APIError(
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))
            | ClientWriteError::PreconditionFailed(_),
        ) => MembershipError::Busy,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            MembershipError::Refused(error.to_string())
        }
        RaftError::APIError(_) => MembershipError::Outcome,
        RaftError::Fatal(fatal) => MembershipError::Unavailable(fatal.to_string()),
    }
}

/// True if this member has answered the leader within this time.
fn answered(leader: &Leader, id: NodeId, within: Duration) -> bool {
    let metrics = leader.raft().metrics().borrow_watched().clone();
    let heard = metrics.heartbeat.unwrap_or_default();
    id == metrics.id || heard.get(&id).copied().flatten().is_some_and(|at| at.elapsed() <= within)
}

fn caught_up(leader: &Leader, id: NodeId) -> bool {
    let metrics = leader.raft().metrics().borrow_watched().clone();
    let matched = metrics.replication.unwrap_or_default().get(&id).copied().flatten();
    let last = metrics.last_log_index.unwrap_or(0);
    answered(leader, id, ANSWERED_WITHIN) && matched.is_some_and(|at| at.index + CAUGHT_UP >= last)
}
