//! A restore into a data directory that no process uses. Everything is read and verified before anything is written.
//! The new contents become valid as a whole or not at all, and the old contents are set aside.

use std::path::PathBuf;

use conclave_state::{
    Stamp,
    restore::{MergeOptions, RestoreTarget, restored},
};

use conclave_base::runtime::Runtime;
use conclave_cluster::{
    lineage::{FoundError, NewLineage, found_from},
    offline_state::OfflineState,
    types::Member,
};
use conclave_crypto::keys::ClusterKeys;
use conclave_store::{DataDir, StoreError};

use super::report::ChangeReport;

/// The source and the target of a restore.
#[expect(clippy::struct_excessive_bools, reason = "four questions that an operator answers one by one")]
pub struct Restore {
    /// The state from which users and settings are taken.
    pub older: OfflineState,
    /// The state from which revocations and restrictions are taken: the last known state of the cluster. It equals
    /// `older`, unless an earlier point in time is requested.
    pub newest: OfflineState,
    pub data_dir: PathBuf,
    /// `host:port` of the new node's cluster plane.
    pub cluster_addr: String,
    /// The URL of the new node's admin API.
    pub api_url: String,
    /// Keeps sessions. Allowed only if it is proved that nothing was revoked after `newest`.
    pub keep_sessions: bool,
    /// Re-enables users that were deleted between `older` and `newest`.
    pub enable_returning: bool,
    /// Sets existing contents of the directory aside; otherwise it must be empty.
    pub set_aside: bool,
    /// Only reports the changes, and writes nothing.
    pub dry_run: bool,
    pub log_time: LogTime,
}

/// The treatment of a log time that is ahead of this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTime {
    /// Nothing is restored: the operator must find out which of the two is wrong.
    Refuse,
    /// The log time is kept: `conclave cluster reset-clock` sets it back later.
    Keep,
    /// The log time starts again at this machine's clock.
    Reset,
}

/// The most by which log time may be ahead of this machine's clock without the operator's choice: a node accepts as
/// much.
const MAX_LOG_AHEAD_MS: u64 = 15 * 60_000;

/// The result of a restore, or of a dry run.
#[derive(Clone, Debug)]
pub struct Restored {
    pub lineage: NewLineage,
    pub report: ChangeReport,
    /// The digest of the restored state.
    pub digest: [u8; 32],
    /// The path of the old contents of the directory.
    pub aside: Option<PathBuf>,
}

/// The reason why nothing was restored. The directory is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(
        "{} holds the data of node {node}; use --set-aside to keep it beside the restored data, or name an empty directory",
        dir.display()
    )]
    Occupied { dir: PathBuf, node: u64 },
    #[error(
        "the log time of the data to restore is {} min ahead of this machine's clock. If this machine's clock is \
         right, clocks were wrong when they were written: run again with --reset-log-time. If not, correct it first",
        ahead_ms / 60_000
    )]
    LogTimeAhead { ahead_ms: u64 },
    #[error("sessions can be kept only when the newest state is restored, not an earlier one")]
    KeepsOlder,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Found(#[from] FoundError),
}

/// Restores the state into the data directory.
///
/// # Errors
/// [`RestoreError`].
pub fn restore(request: Restore, keys: &ClusterKeys, runtime: &Runtime) -> Result<Restored, RestoreError> {
    if request.keep_sessions && request.older.last != request.newest.last {
        return Err(RestoreError::KeepsOlder);
    }
    let now_ms = runtime.clock.now_ms();
    let log_time = request.older.state.meta().clock.max(request.newest.state.meta().clock);
    let ahead_ms = log_time.0.saturating_sub(now_ms);
    if ahead_ms > MAX_LOG_AHEAD_MS && request.log_time == LogTime::Refuse {
        return Err(RestoreError::LogTimeAhead { ahead_ms });
    }
    let lineage = NewLineage::after(&request.newest, now_ms, u32::from_be_bytes(runtime.entropy.bytes()));
    let options = MergeOptions {
        index: lineage.start.index,
        at: Stamp(now_ms),
        target: RestoreTarget::NewCluster,
        former_epoch: Some(request.newest.lineage.epoch),
        last_node_id: lineage.node,
        keep_sessions: request.keep_sessions,
        enable_returning: request.enable_returning,
        reset_log_time: request.log_time == LogTime::Reset && ahead_ms > 0,
    };
    let state = restored(&request.older.state, &request.newest.state, &options);
    let report = ChangeReport::of(&request.newest.state, &state);
    let digest = conclave_state::snapshot::digest(&state);
    if request.dry_run {
        refuse_occupied(&request, None)?;
        return Ok(Restored { lineage, report, digest, aside: None });
    }
    let mut data = DataDir::open(&request.data_dir)?;
    refuse_occupied(&request, Some(&data))?;
    let own = Member {
        cluster_addr: request.cluster_addr,
        api_url: request.api_url,
        incarnation: runtime.entropy.bytes(),
    };
    let aside = found_from(&mut data, &lineage, &state, own, keys, runtime)?;
    Ok(Restored { lineage, report, digest, aside })
}

/// Refuses a directory with the data of a node, unless it is to be set aside. A dry run reads it without a lock: a node
/// may be running there.
fn refuse_occupied(request: &Restore, data: Option<&DataDir>) -> Result<(), RestoreError> {
    let found = match data {
        Some(data) => data.identity().cloned(),
        None => {
            DataDir::refuse_foreign(&request.data_dir)?;
            DataDir::peek(&request.data_dir)?
        }
    };
    match found {
        Some(identity) if !request.set_aside => {
            Err(RestoreError::Occupied { dir: request.data_dir.clone(), node: identity.node_id })
        }
        _ => Ok(()),
    }
}
