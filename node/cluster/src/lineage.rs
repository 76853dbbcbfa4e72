//! Founds a new lineage of a cluster, in an empty data directory or in place of an old one: one member, a new epoch,
//! and a state that was saved from an earlier lineage (docs/design/restore.md). The other nodes join it with empty
//! directories.
//!
//! The new epoch is the Unix time in seconds followed by twenty random bits, or one more than the earlier epoch if that
//! is higher. A snapshot may be restored twice, even on two machines in one second, and the two lineages must never be
//! mistaken for each other. Log indexes continue far behind those of the earlier lineage, so that an index that was
//! handed out there is always in the past here.

use std::{collections::BTreeMap, path::Path};

use conclave_state::State;
use openraft::impls::leader_id_std::LeaderId;

use conclave_base::runtime::Runtime;
use conclave_crypto::keys::{ClusterKeys, KeyId};
use conclave_store::{
    DataDir, DataDirIdentity, Flush, LogId, LogStore as _, Op, SledLog, StoreError,
    snapshot::{SealingKey, SnapshotDir, SnapshotError},
};

use super::{
    identity::Lineage,
    log_store::{encode_vote, raft_id},
    machine::{LocalSnapshots, write},
    offline_state::OfflineState,
    types::{Member, NodeId, SnapshotMeta, StoredMembership, Vote},
};

/// The gap between the last index of the earlier lineage and the first of the new one: more entries than any lineage
/// has.
const INDEX_GAP: u64 = 1 << 32;

/// The number of random bits of an epoch. With them it stays below 2^53 for two hundred years, so that every JSON
/// parser reads it exactly.
const RANDOM_BITS: u32 = 20;

/// The reason why no lineage was founded. The directory is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the members cannot be written down: {0}")]
    Members(String),
}

/// The start of a new lineage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLineage {
    pub lineage: Lineage,
    /// The number of its first node: one that was never assigned before.
    pub node: NodeId,
    /// The log id at which its log begins.
    pub start: LogId,
    /// The secret of the earlier lineage. The first start may still have to change it; then what must outlive a secret
    /// is kept.
    pub secret: KeyId,
}

impl NewLineage {
    /// The lineage after `newest`. `now_ms` is Unix time, `random` is random.
    pub fn after(newest: &OfflineState, now_ms: u64, random: u32) -> Self {
        let random = u64::from(random >> (u32::BITS - RANDOM_BITS));
        let last = newest.last.unwrap_or(LogId { term: 0, index: 0 });
        let known = newest.members().iter().map(|(id, _)| *id).max().unwrap_or(0);
        Self {
            lineage: Lineage {
                cluster: newest.lineage.cluster,
                epoch: (newest.lineage.epoch + 1 + random).max((now_ms / 1_000) << RANDOM_BITS | random),
            },
            node: known.max(newest.state.meta().last_node_id) + 1,
            start: LogId { term: last.term + 1, index: last.index + INDEX_GAP },
            secret: newest.secret,
        }
    }
}

/// Writes the new lineage into a data directory. Existing content is kept beside it; returns where.
/// # Errors
/// [`FoundError`].
pub fn found_from(
    data: &mut DataDir,
    new: &NewLineage,
    state: &State,
    own: Member,
    keys: &ClusterKeys,
    runtime: &Runtime,
) -> Result<Option<std::path::PathBuf>, FoundError> {
    let identity = DataDirIdentity {
        cluster: Some(new.lineage.cluster),
        lineage_epoch: new.lineage.epoch,
        node_id: new.node,
        joined: true,
        incarnation: own.incarnation,
        secret_check: keys.named(&new.secret).unwrap_or(keys).secret_check,
    };
    let name = runtime.clock.now_ms().to_string();
    data.replace_contents(identity, &name, |log, snapshots| {
        write_snapshot(snapshots, new, state, own, keys, runtime)?;
        begin_log(log, new)
    })
}

fn write_snapshot(
    dir: &Path,
    new: &NewLineage,
    state: &State,
    own: Member,
    keys: &ClusterKeys,
    runtime: &Runtime,
) -> Result<(), FoundError> {
    let members = BTreeMap::from([(new.node, own)]);
    let configs = vec![members.keys().copied().collect()];
    let membership =
        openraft::Membership::new(configs, members).map_err(|e| FoundError::Members(e.to_string()))?;
    let start = raft_id(new.start);
    let meta = SnapshotMeta {
        last_log_id: Some(start),
        last_membership: StoredMembership::new(Some(start), membership),
    };
    let snapshots = LocalSnapshots {
        dir: std::sync::Arc::new(SnapshotDir::open(dir)?),
        key: std::sync::Arc::new(SealingKey::ring(keys)),
        lineage: new.lineage,
        runtime: runtime.clone(),
    };
    write(&meta, state, &snapshots)?;
    Ok(())
}

/// Creates a log that continues after the snapshot, and a vote that is not below it.
fn begin_log(path: &Path, new: &NewLineage) -> Result<(), FoundError> {
    let leader_id = LeaderId { term: new.start.term, voted_for: new.node };
    let vote = encode_vote(&Vote { leader_id, committed: false });
    let mut log = SledLog::create(path)?;
    let ops = vec![Op::Purge(new.start), Op::SaveVote(vote), Op::SaveCommitted(Some(new.start))];
    Ok(log.commit(ops, Flush::Durable)?)
}
