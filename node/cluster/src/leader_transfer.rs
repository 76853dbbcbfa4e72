//! Leader transfer before a stop, so that clients do not wait for an election (docs/design/consensus.md).
//!
//! openraft does not abort a transfer to a node that does not answer, and accepts no writes meanwhile. So only a voter
//! that answered a moment ago is chosen, and of those the one with most of the log.

use std::time::Duration;

use openraft::{Instant as _, ServerState, async_runtime::WatchReceiver as _};
use tokio::time::timeout;

use super::{leader::Leader, lease::Leases, types::NodeId};

/// The time within which a voter must have answered: two heartbeats and a little.
const ANSWERED_WITHIN: Duration = Duration::from_millis(200);
/// The time to wait for another leader: as long as an ordinary election.
const LIMIT: Duration = Duration::from_secs(1);

/// Transfers the lead to the best voter for which `is_fit` is true, and stops granting leases meanwhile. Returns the
/// new leader, if there is one. Leases may be granted again in any case: this node may be elected again before it
/// restarts.
pub(crate) async fn step_down(
    leader: &Leader,
    leases: &Leases,
    is_fit: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    let to = voters_by_progress(leader).into_iter().find(|node| is_fit(*node))?;
    leases.close().await;
    let taken = transfer(leader, to).await;
    leases.reopen();
    taken
}

/// Transfers the lead to the voter with most of the log. Returns the new leader, if there is one.
pub(crate) async fn transfer_to_best(leader: &Leader) -> Option<NodeId> {
    let to = voters_by_progress(leader).first().copied()?;
    transfer(leader, to).await
}

/// Transfers the lead to `to`, and waits until another node leads.
pub(crate) async fn transfer(leader: &Leader, to: NodeId) -> Option<NodeId> {
    let mut metrics = leader.raft().metrics();
    let own = metrics.borrow_watched().id;
    tracing::info!(peer.id = to, "transferring the lead");
    leader.raft().trigger().transfer_leader(to).await.ok()?;
    let another = async {
        loop {
            let leading = metrics.borrow_watched().current_leader.filter(|id| *id != own);
            if leading.is_some() {
                return leading;
            }
            metrics.changed().await.ok()?;
        }
    };
    timeout(LIMIT, another).await.ok().flatten()
}

/// The voters that can take over, best first.
pub(crate) fn voters_by_progress(leader: &Leader) -> Vec<NodeId> {
    let metrics = leader.raft().metrics().borrow_watched().clone();
    if metrics.state != ServerState::Leader {
        return Vec::new();
    }
    let heard = metrics.heartbeat.unwrap_or_default();
    let matched = metrics.replication.unwrap_or_default();
    let answers =
        |id: &NodeId| heard.get(id).copied().flatten().is_some_and(|at| at.elapsed() <= ANSWERED_WITHIN);
    let voters = metrics.membership_config.membership().voter_ids();
    let mut able: Vec<NodeId> = voters.filter(|id| *id != metrics.id && answers(id)).collect();
    able.sort_by_key(|id| std::cmp::Reverse(matched.get(id).copied().flatten()));
    able
}
