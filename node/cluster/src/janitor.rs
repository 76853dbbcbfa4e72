//! Housekeeping of a running node. The leader sweeps expired rows and makes learners voters once they have caught up.
//! Every node takes a snapshot when its log tail has grown enough, and learns the members of a new configuration.

use std::{sync::Arc, time::Duration};

use conclave_proto::command::v1::{Command, Sweep, command::Body};
use conclave_state::Stamp;
use openraft::async_runtime::WatchReceiver as _;

use conclave_base::runtime::Runtime;
use conclave_store::retention;

use super::{
    leader::{Leader, free_bytes},
    levels, membership,
    peers::Peers,
    propose::Proposer,
};

/// The interval between two rounds.
const PERIOD: Duration = Duration::from_secs(1);
/// Rows of one sweep: applying them stays far below a heartbeat.
const SWEEP_ROWS: u32 = 500;

/// Runs until the task is aborted.
pub(crate) async fn run(leader: Leader, peers: Arc<Peers>, proposer: Proposer, runtime: Runtime) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        snapshot_if_due(&leader).await;
        membership::tend(&leader).await;
        levels::raise_if_all_can(&leader, &peers, &proposer, &runtime).await;
        let now = Stamp(runtime.clock.now_ms());
        if leader.is_leader() && leader.view().load().has_expired_rows(now) {
            sweep(&proposer, &runtime).await;
        }
    }
}

async fn sweep(proposer: &Proposer, runtime: &Runtime) {
    let request_id = runtime.entropy.bytes::<16>().to_vec();
    let command = Command { request_id, body: Some(Body::Sweep(Sweep { limit: SWEEP_ROWS })) };
    if let Err(error) = proposer.propose(&command).await {
        tracing::debug!(%error, "a sweep was put off");
    }
}

async fn snapshot_if_due(leader: &Leader) {
    let metrics = leader.raft().metrics().borrow_watched().clone();
    let Ok(files) = leader.snapshots().dir.log_ids() else { return };
    let newest = files.iter().map(|id| id.index).max();
    let oldest = files.iter().map(|id| id.index).min().filter(|_| files.len() >= retention::KEEP_SNAPSHOTS);
    let held = retention::RetentionInputs {
        tail_bytes: leader.log_bytes_after(newest.unwrap_or(0)),
        last_snapshot_bytes: leader.snapshots().dir.latest_size().unwrap_or(0),
        oldest_snapshot_index: oldest,
        last_index: metrics.last_log_index.unwrap_or(0),
    };
    let plan = retention::plan(&held);
    // After a change of the secret, this node may soon start with the new secret alone.
    let wanted = plan.take_snapshot || leader.snapshot_is_under_other_key();
    if wanted && metrics.snapshot.map(|id| id.index) != metrics.last_applied.map(|id| id.index) {
        report(leader.raft().trigger().snapshot().await, "a snapshot");
    }
    let purged = metrics.purged.map_or(0, |id| id.index);
    let purge_upto =
        plan.purge_upto.filter(|upto| *upto > purged).and_then(|upto| beside_archive(leader, upto));
    if let Some(upto) = purge_upto.filter(|upto| *upto > purged) {
        report(leader.raft().trigger().purge_log(upto).await, "a purge of the log");
    }
}

/// Returns the highest index up to which the log may be purged without removing entries that the archive lacks, as long
/// as there is room for them.
fn beside_archive(leader: &Leader, upto: u64) -> Option<u64> {
    let Some(hold) = leader.archive().hold() else { return Some(upto) };
    let waiting_bytes = leader.log_bytes_after(hold.archived.unwrap_or(0));
    let disk_free_bytes = free_bytes(leader.snapshots().dir.path());
    let allowed = retention::purge_beside_archive(upto, &hold, waiting_bytes, disk_free_bytes);
    if allowed == Some(upto) && hold.archived.is_none_or(|archived| archived < upto) {
        tracing::error!(
            raft.index = upto,
            "{waiting_bytes} bytes of the log wait for the archive, more than may be held back: entries up to {upto} \
             are purged without being archived; there will be a gap until the next snapshot is in the archive"
        );
    }
    allowed
}

fn report(result: Result<(), impl std::fmt::Display>, what: &str) {
    if let Err(error) = result {
        tracing::warn!(%error, "{what} was not started");
    }
}

/// Keeps the members that this node knows, and their addresses, equal to the configuration in force.
pub(crate) async fn follow_membership(leader: Leader, peers: Arc<Peers>) {
    let mut metrics = leader.raft().metrics();
    loop {
        let members = leader.members();
        if !members.is_empty() {
            peers.learn_members(members);
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}
