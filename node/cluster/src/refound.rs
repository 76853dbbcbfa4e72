//! A new life of a cluster, in an empty data directory or in place of an old one: one member, a new lineage, and a
//! state that was saved from an earlier life (design.md §8). The other nodes join it empty.
//!
//! The new lineage's epoch is the Unix time in seconds with twenty random bits behind it, or one more than before if
//! that is higher: the same snapshot may be restored twice, on two machines in the same second as well, and its two
//! lives must never take each other for the same. Log indexes go on far behind those of the earlier life, so that an
//! index that was handed out there is always in the past here.

use std::{collections::BTreeMap, path::Path};

use conclave_state::State;
use openraft::impls::leader_id_std::LeaderId;

use conclave_base::runtime::Runtime;
use conclave_crypto::keys::{ClusterKeys, KeyId};
use conclave_store::{
    DataDir, Flush, Identity, LogId, LogStore as _, Op, SledLog, StoreError,
    snapshot::{SealingKey, SnapshotDir, SnapshotError},
};

use super::{
    identity::Lineage,
    known::Known,
    log_store::{encode_vote, raft_id},
    machine::{Snapshots, write},
    types::{Member, NodeId, SnapshotMeta, StoredMembership, Vote},
};

/// Between the last index of the earlier life and the first of the new one: more entries than any life has.
const INDEX_GAP: u64 = 1 << 32;

/// Random bits of an epoch. With them it stays below 2^53 for two hundred years, so that every JSON parser reads it as
/// it is.
const RANDOM_BITS: u32 = 20;

/// Why there is no new life. The directory is what it was.
#[derive(Debug, thiserror::Error)]
pub enum RefoundError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the members cannot be written down: {0}")]
    Members(String),
}

/// What a new life begins as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLife {
    pub lineage: Lineage,
    /// The number of its first node: none that was ever given before.
    pub node: NodeId,
    /// Where its log begins.
    pub start: LogId,
    /// The secret of the life before, which the first start may still have to change: what must outlive a secret is
    /// kept then.
    pub secret: KeyId,
}

impl NewLife {
    /// The life after this one. `now_ms` is Unix time, `random` is chance.
    pub fn after(newest: &Known, now_ms: u64, random: u32) -> Self {
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

/// Puts the new life into a data directory. What was there is kept aside; the answer says where.
///
/// # Errors
/// [`RefoundError`].
pub fn refound(
    data: &mut DataDir,
    life: &NewLife,
    state: &State,
    own: Member,
    keys: &ClusterKeys,
    runtime: &Runtime,
) -> Result<Option<std::path::PathBuf>, RefoundError> {
    let identity = Identity {
        cluster: Some(life.lineage.cluster),
        lineage_epoch: life.lineage.epoch,
        node_id: life.node,
        joined: true,
        incarnation: own.incarnation,
        secret_check: keys.named(&life.secret).unwrap_or(keys).secret_check,
    };
    let name = runtime.clock.now_ms().to_string();
    data.replace_contents(identity, &name, |log, snapshots| {
        write_snapshot(snapshots, life, state, own, keys, runtime)?;
        begin_log(log, life)
    })
}

fn write_snapshot(
    dir: &Path,
    life: &NewLife,
    state: &State,
    own: Member,
    keys: &ClusterKeys,
    runtime: &Runtime,
) -> Result<(), RefoundError> {
    let members = BTreeMap::from([(life.node, own)]);
    let configs = vec![members.keys().copied().collect()];
    let membership =
        openraft::Membership::new(configs, members).map_err(|e| RefoundError::Members(e.to_string()))?;
    let start = raft_id(life.start);
    let meta = SnapshotMeta {
        last_log_id: Some(start),
        last_membership: StoredMembership::new(Some(start), membership),
    };
    let snapshots = Snapshots {
        dir: std::sync::Arc::new(SnapshotDir::open(dir)?),
        key: std::sync::Arc::new(SealingKey::ring(keys)),
        lineage: life.lineage,
        runtime: runtime.clone(),
    };
    write(&meta, state, &snapshots)?;
    Ok(())
}

/// A log that goes on behind the snapshot, and a vote that is not below it.
fn begin_log(path: &Path, life: &NewLife) -> Result<(), RefoundError> {
    let leader_id = LeaderId { term: life.start.term, voted_for: life.node };
    let vote = encode_vote(&Vote { leader_id, committed: false });
    let mut log = SledLog::create(path)?;
    let ops = vec![Op::Purge(life.start), Op::SaveVote(vote), Op::SaveCommitted(Some(life.start))];
    Ok(log.commit(ops, Flush::Durable)?)
}
