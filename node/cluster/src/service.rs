//! Raft's incoming messages: the cluster plane's gRPC service. Every call except `Hello` passes [`NodeIdentity::admit`]
//! first.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::Poll,
    time::Duration,
};

use conclave_proto::cluster::v1::{self as pb, cluster_service_server::ClusterService};
use conclave_state::ids::TicketId;
use futures_util::{Stream, StreamExt as _};
use openraft::raft::StreamAppendError;
use tonic::{Code, Request, Response, Status, Streaming};

use conclave_base::propagation;

use super::{
    MembersChange,
    bootstrap::{BootstrapPeer, describe},
    clock::{self, ClusterClock},
    failover,
    identity::{EnvelopeRejected, NodeIdentity},
    leader::{Leader, LeaderError},
    lease::{BarrierResult, Leases},
    membership::{Membership, MembershipError},
    peers::Peers,
    read,
    readiness::Readiness,
    settings::SharedSettings,
    snapshot_in,
    types::{Member, NodeId},
    wire::{self, Malformed},
};

type Replies = Pin<Box<dyn Stream<Item = Result<pb::AppendReply, Status>> + Send>>;

/// The time limit of a forwarded command here before its outcome is unknown: longer than any hold of the sender.
const PROPOSE_LIMIT: Duration = Duration::from_secs(4);

/// The time for which a reply waits for a revocation to hold everywhere: most do within a round trip. After that, the
/// reply reports the revocation as committed, and the caller waits for the rest by Settle. So the deadline against
/// hanging leaders stays short.
const BARRIER_TIMEOUT: Duration = Duration::from_millis(50);

/// The service. `Leader` is set once Raft runs; until then only greetings are answered.
#[derive(Clone)]
pub(crate) struct Service {
    pub identity: Arc<NodeIdentity>,
    pub peers: Arc<Peers>,
    pub own: Member,
    pub configured: Vec<BootstrapPeer>,
    pub clock: Arc<ClusterClock>,
    pub settings: Arc<SharedSettings>,
    pub running: Arc<OnceLock<Readiness>>,
    pub membership: Arc<OnceLock<Membership>>,
    /// The URL of the whole cluster, for nodes that join.
    pub public_url: String,
}

impl From<Malformed> for Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.to_string())
    }
}

impl Service {
    fn raft(&self) -> Result<&Leader, Status> {
        // Returned like "not the leader": the request was certainly not carried out.
        self.running().map(|running| &running.leader)
    }

    fn membership(&self) -> Result<&Membership, Status> {
        self.membership.get().ok_or_else(|| not_taken("this node is starting", None))
    }

    fn leases(&self) -> Result<&Leases, Status> {
        self.running().map(|running| &running.leases)
    }

    fn running(&self) -> Result<&Readiness, Status> {
        self.running.get().ok_or_else(|| not_taken("this node is starting", None))
    }

    /// Admits a message of a member: no other node is granted anything or may write. A node that lags may not know the
    /// newest member. Only a leader with a quorum reports that there is no such member.
    async fn admit_member(&self, envelope: Option<&pb::Envelope>) -> Result<NodeId, Status> {
        let node = self.admit(envelope)?;
        let leader = self.raft()?;
        if leader.has_member(node) {
            Ok(node)
        } else if leader.is_certainly_no_member(node).await {
            Err(removed(node))
        } else {
            Err(not_taken(format!("node {node} is not known here"), None))
        }
    }

    fn admit(&self, envelope: Option<&pb::Envelope>) -> Result<NodeId, Status> {
        self.identity.admit(envelope).map_err(|rejection| {
            if rejection == EnvelopeRejected::NotReady {
                return not_taken(rejection.to_string(), None);
            }
            let from = envelope.map_or(0, |e| e.from);
            tracing::warn!(
                { peer.id = from },
                "refused a message from a node that claims to be {from}: {rejection}"
            );
            Status::permission_denied(rejection.to_string())
        })
    }
}

fn is_host_and_port(addr: &str) -> bool {
    addr.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// The details of a refusal that is sent to a removed node.
const REMOVED: &[u8] = b"expelled";

fn removed(node: NodeId) -> Status {
    let why = format!("node {node} is not a member of this cluster any more");
    Status::with_details(Code::PermissionDenied, why, REMOVED.into())
}

/// True if a leader reports that this node is not a member any more.
pub(crate) fn is_removed(status: &Status) -> bool {
    status.code() == Code::PermissionDenied && status.details() == REMOVED
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("raft has stopped: {error}"))
}

#[tonic::async_trait]
impl ClusterService for Service {
    type AppendStream = Replies;

    async fn hello(&self, _request: Request<pb::HelloRequest>) -> Result<Response<pb::HelloReply>, Status> {
        let lineage = self.identity.lineage();
        // The members in the log, not the planned ones: a founding that a crash interrupted must not look like a
        // cluster.
        let members = self.running.get().map(|running| running.leader.members()).unwrap_or_default();
        Ok(Response::new(pb::HelloReply {
            node_id: self.identity.node,
            incarnation: self.identity.incarnation.to_vec(),
            cluster_id: lineage.map(|l| l.cluster.to_vec()).unwrap_or_default(),
            epoch: lineage.map_or(0, |l| l.epoch),
            members: members.iter().map(|(id, member)| wire::member_to_wire(*id, member)).collect(),
            version: env!("CARGO_PKG_VERSION").into(),
            api_url: self.own.api_url.clone(),
            configured_peers: describe(&self.configured),
        }))
    }

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let raft = self.raft()?.raft().clone();
        let service = self.clone();
        let incoming = request.into_inner();
        // The stream ends at the first rejected message. The sender gets the reason after the last reply.
        let refusal = Arc::new(OnceLock::new());
        let told = Arc::clone(&refusal);
        let admitted = futures_util::stream::unfold(
            (incoming, service, told, None),
            |(mut incoming, service, told, sender)| async move {
                let Some(message) = incoming.message().await.ok().flatten() else {
                    if let Some(sender) = sender {
                        service.peers.lost.stream_ended(sender);
                    }
                    return None;
                };
                let admitted = service.admit(message.envelope.as_ref());
                match admitted.and_then(|sender| Ok((wire::append(message)?, sender))) {
                    Ok((request, sender)) => Some((request, (incoming, service, told, Some(sender)))),
                    Err(status) => {
                        // Set once: the stream ends here.
                        let _ = told.set(status);
                        None
                    }
                }
            },
        );
        let refused =
            futures_util::stream::poll_fn(move |_| Poll::Ready(refusal.get().cloned().map(Err))).take(1);
        let identity = Arc::clone(&self.identity);
        let replies = raft.stream_append(admitted).map(move |result| match result {
            Ok(result) => {
                if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
                    identity.heard_leader();
                }
                Ok(wire::append_result_to_wire(&result))
            }
            Err(fatal) => Err(stopped(fatal)),
        });
        Ok(Response::new(Box::pin(replies.chain(refused))))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        let request = request.into_inner();
        self.admit(request.envelope.as_ref())?;
        let reply = self.raft()?.raft().vote(wire::vote_request(&request)?).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_reply_to_wire(&reply)))
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        let request = request.into_inner();
        self.admit(request.envelope.as_ref())?;
        let reply = self.raft()?.raft().pre_vote(wire::vote_request(&request)?).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_reply_to_wire(&reply)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderReply>, Status> {
        let request = request.into_inner();
        self.admit(request.envelope.as_ref())?;
        let reply =
            self.raft()?.raft().handle_transfer_leader(wire::transfer(&request)?).await.map_err(stopped)?;
        Ok(Response::new(pb::TransferLeaderReply { accepted: reply.is_ok() }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotPart>>,
    ) -> Result<Response<pb::SnapshotReply>, Status> {
        let leader = self.raft()?;
        let mut parts = request.into_inner();
        let begin = snapshot_in::begin(&mut parts).await?;
        self.admit(begin.envelope.as_ref())?;
        let reply = snapshot_in::take(leader, begin, parts).await?;
        Ok(Response::new(reply))
    }

    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeReply>, Status> {
        use tracing::Instrument as _;
        let span = tracing::info_span!("cluster.propose");
        propagation::adopt(&span, request.metadata());
        let request = request.into_inner();
        self.admit_member(request.envelope.as_ref()).await?;
        let leader = self.raft()?;
        let proposing = tokio::time::timeout(PROPOSE_LIMIT, leader.write(request.command)).instrument(span);
        let committed =
            proposing.await.map_err(|_| Status::deadline_exceeded("the write's outcome is unknown"))?;
        let written = committed?;
        let leases = self.leases()?;
        let timed_out = written.revokes
            && leases.await_barrier(written.term, written.index, BARRIER_TIMEOUT).await
                == BarrierResult::TimedOut;
        Ok(Response::new(pb::ProposeReply {
            reply: prost::Message::encode_to_vec(&written.reply),
            index: written.index,
            term: written.term,
            unsettled: timed_out,
        }))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewReply>, Status> {
        let request = request.into_inner();
        let node = self.admit_member(request.envelope.as_ref()).await?;
        let grant = self.leases()?.grant(node, request.process, request.applied_index).await?;
        let length_ms = u32::try_from(grant.length.as_millis()).unwrap_or(u32::MAX);
        Ok(Response::new(pb::RenewReply { index: grant.index, length_ms }))
    }

    async fn confirm(
        &self,
        request: Request<pb::ConfirmRequest>,
    ) -> Result<Response<pb::ConfirmReply>, Status> {
        let request = request.into_inner();
        let node = self.admit_member(request.envelope.as_ref()).await?;
        self.leases()?.confirm(node, request.applied_index);
        Ok(Response::new(pb::ConfirmReply {}))
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ReleaseReply>, Status> {
        let request = request.into_inner();
        let node = self.admit_member(request.envelope.as_ref()).await?;
        self.leases()?.released(node, request.process);
        Ok(Response::new(pb::ReleaseReply {}))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinReply>, Status> {
        let request = request.into_inner();
        let membership = self.membership()?;
        let lineage = self.identity.lineage().ok_or_else(|| not_taken("this node is starting", None))?;
        let level = membership.leader.view().load().meta().level;
        if request.feature_level < level {
            return Err(Status::invalid_argument(format!(
                "conclave {} understands feature level {}; this cluster is at {level}: upgrade the new node",
                request.version, request.feature_level
            )));
        }
        if !is_host_and_port(&request.cluster_addr) {
            let text = format!("{:?} is not a valid host:port", request.cluster_addr);
            return Err(Status::invalid_argument(text));
        }
        let incarnation = request.incarnation.as_slice().try_into();
        let incarnation =
            incarnation.map_err(|_| Status::invalid_argument("the incarnation is not a uuid"))?;
        let member = Member { cluster_addr: request.cluster_addr, api_url: request.api_url, incarnation };
        let node_id = membership.join(member).await?;
        Ok(Response::new(pb::JoinReply {
            node_id,
            cluster_id: lineage.cluster.to_vec(),
            epoch: lineage.epoch,
            public_url: self.public_url.clone(),
        }))
    }

    async fn change_members(
        &self,
        request: Request<pb::ChangeMembersRequest>,
    ) -> Result<Response<pb::ChangeMembersReply>, Status> {
        let request = request.into_inner();
        self.admit_member(request.envelope.as_ref()).await?;
        let change = request.change.ok_or_else(|| Status::invalid_argument("no change is named"))?;
        let leader = change_members(self.membership()?, change).await?;
        Ok(Response::new(pb::ChangeMembersReply { leader_id: leader.unwrap_or(0) }))
    }

    async fn survey(&self, request: Request<pb::SurveyRequest>) -> Result<Response<pb::SurveyReply>, Status> {
        let request = request.into_inner();
        self.admit_member(request.envelope.as_ref()).await?;
        let vote = wire::vote(request.leader.as_ref())?;
        Ok(Response::new(failover::answer(self.raft()?, &self.peers, &vote).await))
    }

    async fn settle(&self, request: Request<pb::SettleRequest>) -> Result<Response<pb::SettleReply>, Status> {
        let request = request.into_inner();
        self.admit_member(request.envelope.as_ref()).await?;
        let leases = self.leases()?;
        if request.term > self.raft()?.term() {
            return Err(Status::invalid_argument("a term that this node has not seen"));
        }
        match leases.await_barrier(request.term, request.index, leases.longest_wait()).await {
            BarrierResult::Reached => Ok(Response::new(pb::SettleReply {})),
            BarrierResult::TimedOut => Err(Status::deadline_exceeded("not every node has confirmed yet")),
        }
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexReply>, Status> {
        self.admit_member(request.into_inner().envelope.as_ref()).await?;
        let index = self.raft()?.read_index().await?;
        Ok(Response::new(pb::ReadIndexReply { index }))
    }

    async fn resolve_handle(
        &self,
        request: Request<pb::ResolveHandleRequest>,
    ) -> Result<Response<pb::ResolveHandleReply>, Status> {
        use tracing::Instrument as _;
        let span = tracing::info_span!("cluster.resolve_handle");
        propagation::adopt(&span, request.metadata());
        let request = request.into_inner();
        self.admit_member(request.envelope.as_ref()).await?;
        let leader = self.raft()?;
        let state = read::view_at(leader, &self.peers, request.index).await;
        let state = state.map_err(|error| Status::unavailable(error.to_string()))?;
        let is_on_its_way =
            TicketId::parse(&request.proof_id).is_ok_and(|proof| state.is_ticket_spent(proof));
        if !is_on_its_way && !state.is_let_in_by_handle(&request.did) {
            return Err(Status::permission_denied("no sign-in in progress needs this request"));
        }
        Ok(Response::new(self.peers.resolver.resolve(request.did).instrument(span).await?))
    }

    async fn read_clocks(
        &self,
        request: Request<pb::ReadClocksRequest>,
    ) -> Result<Response<pb::ReadClocksReply>, Status> {
        self.admit(request.into_inner().envelope.as_ref())?;
        Ok(Response::new(clock::reply_of(self.clock.answer(), &self.settings)))
    }

    async fn announce(
        &self,
        request: Request<pb::AnnounceRequest>,
    ) -> Result<Response<pb::AnnounceReply>, Status> {
        let request = request.into_inner();
        let node = self.admit_member(request.envelope.as_ref()).await?;
        if !is_host_and_port(&request.cluster_addr) {
            let text = format!("{:?} is not a valid host:port", request.cluster_addr);
            return Err(Status::invalid_argument(text));
        }
        self.peers.learn_address(node, &request.cluster_addr);
        self.membership()?.readdress(node, &request.cluster_addr, &request.api_url).await?;
        Ok(Response::new(pb::AnnounceReply {}))
    }

    async fn status(&self, request: Request<pb::StatusRequest>) -> Result<Response<pb::NodeStatus>, Status> {
        let request = request.into_inner();
        self.admit(request.envelope.as_ref())?;
        Ok(Response::new(self.running()?.status(request.with_digest).await))
    }
}

/// Makes a change on the leader.
pub(crate) async fn change_members(
    membership: &Membership,
    change: MembersChange,
) -> Result<Option<NodeId>, MembershipError> {
    match change {
        MembersChange::Remove(command) => membership.remove(&command).await?,
        MembersChange::Replace(command) => membership.replace(&command).await?,
        MembersChange::TransferLeader(to) => return membership.transfer_leader(to).await.map(Some),
    }
    Ok(membership.leader.leader_id())
}

impl From<MembershipError> for Status {
    fn from(error: MembershipError) -> Self {
        let text = error.to_string();
        match error {
            MembershipError::NotLeader(leader) => not_taken(text, leader),
            MembershipError::Unknown(_) => Self::not_found(text),
            MembershipError::Refused(_) => Self::invalid_argument(text),
            MembershipError::Busy => Self::aborted(text),
            MembershipError::Outcome => Self::deadline_exceeded(text),
            MembershipError::Unavailable(why) => Self::unavailable(why),
        }
    }
}

/// The reverse of the conversion above: the error that the leader's status stands for.
pub(crate) fn membership_error(status: &Status) -> MembershipError {
    match status.code() {
        _ if was_not_taken(status) => MembershipError::NotLeader(None),
        Code::NotFound | Code::InvalidArgument => MembershipError::Refused(status.message().to_owned()),
        Code::Aborted => MembershipError::Busy,
        Code::Unavailable => MembershipError::Unavailable(status.message().to_owned()),
        _ => MembershipError::Outcome,
    }
}

/// A status for requests that were not carried out. It names the leader in a form that the forwarding node can read.
fn not_taken(why: impl Into<String>, leader: Option<NodeId>) -> Status {
    let details = prost::Message::encode_to_vec(&pb::NotLeader { leader_id: leader.unwrap_or(0) });
    Status::with_details(Code::FailedPrecondition, why, details.into())
}

impl From<LeaderError> for Status {
    fn from(error: LeaderError) -> Self {
        match error {
            LeaderError::NotLeader(leader) => not_taken("not the leader", leader),
            LeaderError::Unknown => Self::deadline_exceeded("the write's outcome is unknown"),
            LeaderError::NoQuorum => Self::unavailable("no quorum"),
            LeaderError::ClockUnsure(unsure) => not_taken(unsure.to_string(), None),
            LeaderError::TooLarge { .. } => Self::invalid_argument(error.to_string()),
            LeaderError::Stopped(reason) => stopped(reason),
        }
    }
}

/// True if a status was made by `not_taken`: the request was not carried out.
pub(crate) fn was_not_taken(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
        && <pb::NotLeader as prost::Message>::decode(status.details()).is_ok()
}
