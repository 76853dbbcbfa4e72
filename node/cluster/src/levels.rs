//! Raises the feature level (docs/design/rules.md): the leader does so once every member has reported that it
//! understands the next one.

use conclave_proto::{
    cluster::v1 as pb,
    command::v1::{Command, RaiseLevel, command::Body},
};
use conclave_state::level;

use super::{
    leader::Leader,
    peers::{ChannelKind, Peers},
    propose::Proposer,
    types::{Member, NodeId},
};
use conclave_base::runtime::Runtime;

/// The time limit of a member's reply. A member that does not reply holds the level back until the next attempt.
const ANSWER_LIMIT: std::time::Duration = std::time::Duration::from_secs(1);

/// Raises the level if this node leads, a higher one exists, and every member understands it.
pub(crate) async fn raise_if_all_can(leader: &Leader, peers: &Peers, proposer: &Proposer, runtime: &Runtime) {
    let current = leader.view().load().meta().level;
    if current >= level::SUPPORTED || !leader.is_leader() {
        return;
    }
    let members = peers.identity.members();
    let others = members.iter().filter(|(id, _)| *id != peers.identity.node);
    let asking = others.map(|(id, member)| supported_by(peers, *id, member));
    let answers = futures_util::future::join_all(asking).await;
    let lowest = answers.into_iter().try_fold(level::SUPPORTED, |lowest, level| Some(lowest.min(level?)));
    let Some(to) = lowest.filter(|lowest| *lowest > current) else { return };
    let request_id = runtime.entropy.bytes::<16>().to_vec();
    let command = Command { request_id, body: Some(Body::RaiseLevel(RaiseLevel { level: to })) };
    match proposer.propose(&command).await {
        Ok(_) => tracing::info!(level = to, "the feature level is raised: every member understands it"),
        Err(error) => tracing::debug!(%error, "the feature level was not raised"),
    }
}

/// The highest level that this member understands; `None` while it does not answer.
async fn supported_by(peers: &Peers, node: NodeId, member: &Member) -> Option<u32> {
    let mut client = peers.client(Some(node), &member.cluster_addr, ChannelKind::Control).ok()?;
    let envelope = Some(peers.identity.envelope(node));
    let asking = client.status(pb::StatusRequest { envelope, with_digest: false });
    let status = tokio::time::timeout(ANSWER_LIMIT, asking).await.ok()?.ok()?.into_inner();
    // A build that does not report a level is of the first release.
    Some(status.feature_level.max(1))
}
