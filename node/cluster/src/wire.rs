//! Conversions between Raft's types and our protobuf. It is our own, so that a bump of openraft never touches data
//! (docs/design/consensus.md).
//!
//! Each conversion has a round-trip property test: a flag lost here once cost others a day of missing leader transfers.

use std::collections::{BTreeMap, BTreeSet};

use conclave_proto::cluster::v1 as pb;
use openraft::{
    EntryPayload, Membership,
    raft::{
        AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest,
        VoteResponse,
    },
    vote::RaftLeaderId as _,
};

use super::types::{Config, Member, NodeId, Payload, RaftLogEntry, RaftLogId, StoredMembership, Vote};

/// A message with invalid content. The sender is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

type LeaderId = openraft::type_config::alias::LeaderIdOf<Config>;
type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<Config>;

pub(crate) fn log_id_to_wire(id: &RaftLogId) -> pb::LogId {
    pb::LogId { term: id.committed_leader_id().term, index: id.index }
}

pub(crate) fn log_id(wire: &pb::LogId) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::from(wire.term), wire.index)
}

pub(crate) fn vote_to_wire(vote: &Vote) -> pb::RaftVote {
    pb::RaftVote { term: vote.leader_id.term, voted_for: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn vote(wire: Option<&pb::RaftVote>) -> Result<Vote, Malformed> {
    let wire = wire.ok_or(Malformed("a vote is missing"))?;
    Ok(Vote { leader_id: LeaderId::new(wire.term, wire.voted_for), committed: wire.committed })
}

pub(crate) fn member_to_wire(id: NodeId, member: &Member) -> pb::Member {
    pb::Member {
        node_id: id,
        cluster_addr: member.cluster_addr.clone(),
        api_url: member.api_url.clone(),
        incarnation: member.incarnation.to_vec(),
    }
}

pub(crate) fn member(wire: &pb::Member) -> Result<(NodeId, Member), Malformed> {
    let incarnation =
        wire.incarnation.as_slice().try_into().map_err(|_| Malformed("an incarnation has 16 bytes"))?;
    let member =
        Member { cluster_addr: wire.cluster_addr.clone(), api_url: wire.api_url.clone(), incarnation };
    Ok((wire.node_id, member))
}

pub(crate) fn membership_to_wire(membership: &Membership<NodeId, Member>) -> pb::Membership {
    let voters = |set: &BTreeSet<NodeId>| pb::VoterSet { voters: set.iter().copied().collect() };
    pb::Membership {
        configs: membership.get_joint_config().iter().map(voters).collect(),
        members: membership.nodes().map(|(id, member)| member_to_wire(*id, member)).collect(),
    }
}

pub(crate) fn membership(wire: &pb::Membership) -> Result<Membership<NodeId, Member>, Malformed> {
    let configs: Vec<BTreeSet<NodeId>> =
        wire.configs.iter().map(|c| c.voters.iter().copied().collect()).collect();
    let members = wire.members.iter().map(member).collect::<Result<BTreeMap<_, _>, _>>()?;
    if configs.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, members).map_err(|_| Malformed("the membership contradicts itself"))
}

pub(crate) fn stored_membership_to_wire(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

pub(crate) fn stored_membership(wire: Option<&pb::StoredMembership>) -> Result<StoredMembership, Malformed> {
    let wire = wire.ok_or(Malformed("the membership is missing"))?;
    let membership = membership(wire.membership.as_ref().ok_or(Malformed("the membership is missing"))?)?;
    Ok(StoredMembership::new(wire.log_id.as_ref().map(log_id), membership))
}

pub(crate) fn entry_to_wire(entry: &RaftLogEntry) -> pb::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(payload) => pb::entry::Payload::Command(payload.0.clone()),
        EntryPayload::Membership(membership) => {
            pb::entry::Payload::Membership(membership_to_wire(membership))
        }
    };
    pb::Entry { log_id: Some(log_id_to_wire(&entry.log_id)), payload: Some(payload) }
}

pub(crate) fn entry(wire: pb::Entry) -> Result<RaftLogEntry, Malformed> {
    let id = wire.log_id.as_ref().map(log_id).ok_or(Malformed("an entry has no log id"))?;
    let payload = match wire.payload.ok_or(Malformed("an entry has no payload"))? {
        pb::entry::Payload::Blank(_) => EntryPayload::Blank,
        pb::entry::Payload::Command(bytes) => EntryPayload::Normal(Payload(bytes)),
        pb::entry::Payload::Membership(wire) => EntryPayload::Membership(membership(&wire)?),
    };
    Ok(RaftLogEntry { log_id: id, payload })
}

pub(crate) fn append_to_wire(
    request: &AppendEntriesRequest<Config>,
    envelope: pb::Envelope,
) -> pb::AppendRequest {
    pb::AppendRequest {
        envelope: Some(envelope),
        vote: Some(vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_wire),
        entries: request.entries.iter().map(entry_to_wire).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
    }
}

pub(crate) fn append(wire: pb::AppendRequest) -> Result<AppendEntriesRequest<Config>, Malformed> {
    Ok(AppendEntriesRequest {
        vote: vote(wire.vote.as_ref())?,
        prev_log_id: wire.prev_log_id.as_ref().map(log_id),
        entries: wire.entries.into_iter().map(entry).collect::<Result<_, _>>()?,
        leader_commit: wire.leader_commit.as_ref().map(log_id),
    })
}

pub(crate) fn append_result_to_wire(result: &StreamAppendResult<Config>) -> pb::AppendReply {
    let result = match result {
        Ok(matched) => {
            pb::append_reply::Result::Matched(pb::Matched { log_id: matched.as_ref().map(log_id_to_wire) })
        }
        Err(StreamAppendError::Conflict(at)) => pb::append_reply::Result::Conflict(log_id_to_wire(at)),
        Err(StreamAppendError::HigherVote(vote)) => pb::append_reply::Result::HigherVote(vote_to_wire(vote)),
    };
    pb::AppendReply { result: Some(result) }
}

pub(crate) fn append_result(wire: &pb::AppendReply) -> Result<StreamAppendResult<Config>, Malformed> {
    Ok(match wire.result.as_ref().ok_or(Malformed("an append reply has no result"))? {
        pb::append_reply::Result::Matched(matched) => Ok(matched.log_id.as_ref().map(log_id)),
        pb::append_reply::Result::Conflict(at) => Err(StreamAppendError::Conflict(log_id(at))),
        pb::append_reply::Result::HigherVote(higher) => {
            Err(StreamAppendError::HigherVote(vote(Some(higher))?))
        }
    })
}

pub(crate) fn vote_request_to_wire(request: &VoteRequest<Config>, envelope: pb::Envelope) -> pb::VoteRequest {
    pb::VoteRequest {
        envelope: Some(envelope),
        vote: Some(vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request(wire: &pb::VoteRequest) -> Result<VoteRequest<Config>, Malformed> {
    let mut request = VoteRequest::new(vote(wire.vote.as_ref())?, wire.last_log_id.as_ref().map(log_id));
    request.leadership_transfer = wire.leadership_transfer;
    Ok(request)
}

pub(crate) fn vote_reply_to_wire(reply: &VoteResponse<Config>) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(vote_to_wire(&reply.vote)),
        granted: reply.vote_granted,
        last_log_id: reply.last_log_id.as_ref().map(log_id_to_wire),
    }
}

pub(crate) fn vote_reply(wire: &pb::VoteReply) -> Result<VoteResponse<Config>, Malformed> {
    let last_log_id = wire.last_log_id.as_ref().map(log_id);
    Ok(VoteResponse::new(vote(wire.vote.as_ref())?, last_log_id, wire.granted))
}

pub(crate) fn transfer_to_wire(
    request: &TransferLeaderRequest<Config>,
    envelope: pb::Envelope,
) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        envelope: Some(envelope),
        from_leader: Some(vote_to_wire(request.from_leader())),
        to_node: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_wire),
    }
}

pub(crate) fn transfer(wire: &pb::TransferLeaderRequest) -> Result<TransferLeaderRequest<Config>, Malformed> {
    let from = vote(wire.from_leader.as_ref())?;
    Ok(TransferLeaderRequest::new(from, wire.to_node, wire.last_log_id.as_ref().map(log_id)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_log_id() -> impl Strategy<Value = RaftLogId> {
        (any::<u64>(), any::<u64>()).prop_map(|(term, index)| log_id(&pb::LogId { term, index }))
    }

    fn any_vote() -> impl Strategy<Value = Vote> {
        (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, voted_for, committed)| Vote {
            leader_id: LeaderId::new(term, voted_for),
            committed,
        })
    }

    fn any_membership() -> impl Strategy<Value = Membership<NodeId, Member>> {
        let member = (any::<[u8; 16]>(), "[a-z0-9.:]{0,20}").prop_map(|(incarnation, addr)| Member {
            api_url: format!("http://{addr}"),
            cluster_addr: addr,
            incarnation,
        });
        (prop::collection::btree_map(1_u64..9, member, 1..6), any::<bool>()).prop_map(|(members, joint)| {
            let voters: BTreeSet<NodeId> = members.keys().copied().collect();
            let first: BTreeSet<NodeId> = voters.iter().copied().take(1).collect();
            let configs = if joint { vec![first, voters] } else { vec![first] };
            Membership::new(configs, members).unwrap()
        })
    }

    fn any_entry() -> impl Strategy<Value = RaftLogEntry> {
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| EntryPayload::Normal(Payload(bytes))),
            any_membership().prop_map(EntryPayload::Membership),
        ];
        (any_log_id(), payload).prop_map(|(log_id, payload)| RaftLogEntry { log_id, payload })
    }

    proptest! {
        #[test]
        fn append_requests_survive(
            vote in any_vote(), prev in prop::option::of(any_log_id()),
            entries in prop::collection::vec(any_entry(), 0..4), commit in prop::option::of(any_log_id()),
        ) {
            let request = AppendEntriesRequest::<Config> { vote, prev_log_id: prev, entries, leader_commit: commit };
            let back = append(append_to_wire(&request, pb::Envelope::default())).unwrap();
            prop_assert_eq!(format!("{request:?}"), format!("{back:?}"));
            prop_assert_eq!(request.entries, back.entries);
        }

        #[test]
        fn append_results_survive(kind in 0..3, id in prop::option::of(any_log_id()), vote in any_vote()) {
            let result: StreamAppendResult<Config> = match (kind, id) {
                (0, Some(id)) => Err(StreamAppendError::Conflict(id)),
                (1, _) => Err(StreamAppendError::HigherVote(vote)),
                (_, id) => Ok(id),
            };
            prop_assert_eq!(append_result(&append_result_to_wire(&result)).unwrap(), result);
        }

        #[test]
        fn votes_survive_with_their_transfer_flag(
            vote in any_vote(), last in prop::option::of(any_log_id()), transfer in any::<bool>(), granted in any::<bool>(),
        ) {
            let mut request = VoteRequest::<Config>::new(vote, last);
            request.leadership_transfer = transfer;
            prop_assert_eq!(&vote_request(&vote_request_to_wire(&request, pb::Envelope::default())).unwrap(), &request);
            let reply = VoteResponse::<Config>::new(vote, last, granted);
            prop_assert_eq!(&vote_reply(&vote_reply_to_wire(&reply)).unwrap(), &reply);
        }

        #[test]
        fn transfers_and_memberships_survive(
            vote in any_vote(), to in any::<u64>(), last in prop::option::of(any_log_id()), members in any_membership(),
        ) {
            let request = TransferLeaderRequest::<Config>::new(vote, to, last);
            prop_assert_eq!(&super::transfer(&transfer_to_wire(&request, pb::Envelope::default())).unwrap(), &request);
            let stored = StoredMembership::new(last, members);
            prop_assert_eq!(&stored_membership(Some(&stored_membership_to_wire(&stored))).unwrap(), &stored);
        }
    }
}
