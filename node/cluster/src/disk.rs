//! Detects a disk that does not answer. It is noticed within [`LIMIT`] and reported by status, readiness, metrics and
//! log, and the lead is transferred.
//!
//! A disk that fails ends the process at once (see the store). A disk that hangs reports nothing: the writer's thread
//! waits in the kernel. So the number of commits begun is compared with the number done. A commit that stays unfinished
//! for too long hangs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{leader::Leader, leader_transfer, lease::Leases};
use conclave_store::writer::CommitCount;

/// The time limit of one commit before the disk is treated as hung: many times a slow flush of a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(3);
/// The interval between two checks.
const PERIOD: Duration = Duration::from_millis(250);
/// The least time between two attempts to transfer the lead.
const BETWEEN_HANDOVERS: Duration = Duration::from_secs(5);

/// The state of the disk that holds this node's log.
#[derive(Debug, Default)]
pub(crate) struct DiskWatch {
    is_hung: AtomicBool,
}

impl DiskWatch {
    /// True while a commit has been waiting for longer than [`LIMIT`].
    pub(crate) fn is_hung(&self) -> bool {
        self.is_hung.load(Ordering::Relaxed)
    }
}

/// Runs until the task is dropped.
pub(crate) async fn run(watch: Arc<DiskWatch>, commits: Arc<CommitCount>, leader: Leader, leases: Leases) {
    let mut waiting: Option<(u64, Instant)> = None;
    let mut handed_over: Option<Instant> = None;
    loop {
        waiting = commits.waiting().map(|commit| match waiting {
            Some((same, since)) if same == commit => (commit, since),
            _ => (commit, Instant::now()),
        });
        let is_hung = waiting.is_some_and(|(_, since)| since.elapsed() >= LIMIT);
        if watch.is_hung.swap(is_hung, Ordering::Relaxed) != is_hung {
            if is_hung {
                tracing::error!("the disk of the log has not answered for {} s", LIMIT.as_secs());
            } else {
                tracing::warn!("the disk of the log answers again");
            }
        }
        let may = handed_over.is_none_or(|at| at.elapsed() >= BETWEEN_HANDOVERS);
        if is_hung && may && leader.is_leader() {
            handed_over = Some(Instant::now());
            leader_transfer::step_down(&leader, &leases, |_| true).await;
        }
        sleep(PERIOD).await;
    }
}
