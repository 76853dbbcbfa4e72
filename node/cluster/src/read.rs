//! Reads that reflect everything their caller has seen (docs/design/README.md, P5): wait a moment, then ask the leader,
//! and never return an older state.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use conclave_proto::cluster::v1 as pb;
use conclave_state::State;
use tokio::time::timeout;

use super::{
    leader::{Leader, LeaderError},
    lease::Leases,
    peers::{ChannelKind, Peers},
    service::is_removed,
};

/// The time for which a lagging node waits before it asks the leader (docs/design/consistency.md).
const WAIT_LIMIT: Duration = Duration::from_millis(250);
/// The time limit of the request to the leader (docs/design/serve-leases.md).
const QUESTION: Duration = Duration::from_millis(300);
/// The time for which a node then waits for entries that the leader has confirmed to exist.
const CATCH_UP: Duration = Duration::from_secs(2);

/// The reason why the requested version cannot be returned here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ViewError {
    /// The index is ahead of the leader's log, so the handle comes from another history.
    #[error("the index is ahead of the cluster")]
    FromTheFuture,
    /// This node is behind and cannot catch up in time, or cannot reach the leader.
    #[error("this node cannot reach a leader, or is behind; try again shortly")]
    Behind,
}

/// Returns a version that has seen `index`.
///
/// # Errors
/// [`ViewError`].
pub(crate) async fn view_at(leader: &Leader, peers: &Peers, index: u64) -> Result<Arc<State>, ViewError> {
    let view = leader.view();
    let current = view.load();
    if current.index() >= index {
        return Ok(current);
    }
    if let Ok(reached) = timeout(WAIT_LIMIT, view.reach(index)).await {
        return reached.ok_or(ViewError::Behind);
    }
    let confirmed = confirmed_index(leader, peers).await.ok_or(ViewError::Behind)?;
    if confirmed < index {
        return Err(ViewError::FromTheFuture);
    }
    timeout(CATCH_UP, view.reach(index)).await.ok().flatten().ok_or(ViewError::Behind)
}

/// Runs ReadIndex on the current leader.
pub(crate) async fn confirmed_index(leader: &Leader, peers: &Peers) -> Option<u64> {
    match leader.read_index().await {
        Ok(index) => Some(index),
        Err(LeaderError::NotLeader(Some(id))) => {
            let (_, member) = peers.identity.members().into_iter().find(|(node, _)| *node == id)?;
            let mut client = peers.client(Some(id), &member.cluster_addr, ChannelKind::Forward).ok()?;
            let request = pb::ReadIndexRequest { envelope: Some(peers.identity.envelope(id)) };
            let Ok(reply) = timeout(QUESTION, client.read_index(request)).await else {
                peers.forget(Some(id), &member.cluster_addr, ChannelKind::Forward);
                return None;
            };
            match reply {
                Ok(reply) => Some(reply.into_inner().index),
                Err(status) => {
                    if is_removed(&status) {
                        peers.identity.mark_removed();
                    }
                    None
                }
            }
        }
        Err(_) => None,
    }
}

/// The time for which a confirmed read is held while no leader can confirm it: longer than an election, and shorter
/// than a user waits for a page.
const HOLD: Duration = Duration::from_secs(1);
/// The pause between two attempts of a confirmed read.
const AGAIN: Duration = Duration::from_millis(20);

/// Returns a version that has seen everything acknowledged before this call, confirmed by the current leader. Returns
/// `None` if no leader could confirm it in time.
pub(crate) async fn confirmed(leader: &Leader, peers: &Peers) -> Option<Arc<State>> {
    let held = async {
        loop {
            if let Some(index) = confirmed_index(leader, peers).await
                && let Ok(state) = view_at(leader, peers, index).await
            {
                return state;
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    timeout(HOLD, held).await.ok()
}

/// Returns a version that has seen `index` and every revocation acknowledged before this call: under a lease, or
/// confirmed by the leader.
///
/// # Errors
/// [`ViewError`]; then nothing may be accepted.
pub(crate) async fn serving(
    leader: &Leader,
    peers: &Peers,
    leases: &Leases,
    index: u64,
) -> Result<Arc<State>, ViewError> {
    let held = async {
        loop {
            // The leader may have changed between two replies; the next one follows soon.
            match serving_now(leader, peers, leases, index).await {
                Err(ViewError::Behind) => tokio::time::sleep(AGAIN).await,
                decided => return decided,
            }
        }
    };
    timeout(HOLD, held).await.unwrap_or(Err(ViewError::Behind))
}

async fn serving_now(
    leader: &Leader,
    peers: &Peers,
    leases: &Leases,
    index: u64,
) -> Result<Arc<State>, ViewError> {
    let state = view_at(leader, peers, index).await?;
    if !leader.clock().is_sure() {
        return Err(ViewError::Behind);
    }
    // The lease is read after the state: it must cover the version that the decision is made on.
    if leases.covers(&state) {
        return Ok(state);
    }
    let confirmed = confirmed_index(leader, peers).await.ok_or(ViewError::Behind)?;
    view_at(leader, peers, confirmed.max(index)).await
}

/// On a node without leases, confirms a read as often as leases would be renewed, so that the last known state can be
/// served (`serve_known_for`).
pub(crate) async fn keep_knowing(leader: Leader, peers: Arc<Peers>, leases: Leases) {
    loop {
        let asked = leases.now();
        if let Some(confirmed) = confirmed_index(&leader, &peers).await
            && view_at(&leader, &peers, confirmed).await.is_ok()
        {
            leases.note_confirmed(asked, confirmed);
        }
        tokio::time::sleep(leases.renewal_period()).await;
    }
}

/// Waits until this node has seen everything that was acknowledged before it started. A restarted node has entries in
/// its log that it may not apply before a leader has confirmed them. Until then it would return an older state.
pub(crate) async fn catch_up(leader: Leader, peers: Arc<Peers>, caught_up: Arc<AtomicBool>) {
    loop {
        if let Some(index) = confirmed_index(&leader, &peers).await {
            leader.view().reach(index).await;
            caught_up.store(true, Ordering::Release);
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The pause between two requests while there is no leader.
const RETRY: Duration = Duration::from_millis(5);
