//! Cluster state read offline, from a snapshot, a data directory or an archive. Each of them yields a state, its log id
//! and the members. Log entries can be applied on top.

use std::{collections::BTreeSet, path::Path};

use conclave_state::{
    Halt, IndexedEntry as RulesEntry, State, apply,
    restore::{ReplayCounts, replay},
    snapshot,
};
use openraft::{EntryPayload, entry::RaftEntry as _};

use conclave_crypto::keys::{ClusterKeys, KeyId};
use conclave_store::{
    DataDir, LogId, LogRecord, LogStore, StoreError,
    snapshot::{SealingKey, SnapshotDir, SnapshotError, SnapshotFile, SnapshotHeader, SnapshotReader},
};

use super::{
    identity::Lineage,
    log_store::{decode_entry, decode_stored_membership},
    types::{Member, NodeId, StoredMembership},
};

/// Log payload bytes read at once.
const READ_BYTES: usize = 8 * 1024 * 1024;

/// The reason why the state cannot be read. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OfflineStateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("{0}: {1}")]
    Content(String, String),
    #[error(transparent)]
    Halt(#[from] Halt),
    #[error("{0} contains no data of a node: it has no identity")]
    NoNode(String),
    #[error("{0} was made with another cluster secret than this one")]
    OtherSecret(String),
    #[error("expected log entry {due}, found {found}: entries are missing")]
    Hole { due: u64, found: u64 },
    #[error("log entry {index} cannot be read: {reason}")]
    Entry { index: u64, reason: String },
}

/// The state of a cluster at one log id.
#[derive(Clone)]
pub struct OfflineState {
    pub lineage: Lineage,
    /// `None` before the first entry.
    pub last: Option<LogId>,
    pub state: State,
    /// The name of the secret that the node which wrote this last used.
    pub secret: KeyId,
    membership: StoredMembership,
}

impl std::fmt::Debug for OfflineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OfflineState")
            .field("lineage", &self.lineage)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// The content of a node's data directory.
#[derive(Clone, Debug)]
pub struct Survivor {
    pub node: NodeId,
    pub known: OfflineState,
    /// The last entry that this node knew to be committed.
    pub committed: Option<LogId>,
}

impl OfflineState {
    /// Reads a snapshot file and verifies it to its last byte. `progress` receives the bytes read so far.
    ///
    /// # Errors
    /// [`OfflineStateError`].
    pub fn of_file(
        path: &Path,
        key: &SealingKey,
        mut progress: impl FnMut(u64),
    ) -> Result<Self, OfflineStateError> {
        let content = |reason: String| OfflineStateError::Content(path.display().to_string(), reason);
        let reader = SnapshotReader::open(path, key)?;
        let (header, secret) = (reader.header().clone(), reader.secret_id());
        let mut loader = snapshot::Loader::default();
        let mut bytes = 0;
        for chunk in reader {
            let (table, chunk) = chunk?;
            bytes += chunk.len() as u64;
            progress(bytes);
            loader.chunk(table, &chunk).map_err(|e| content(e.to_string()))?;
        }
        Self::of_parts(&header, secret, loader.finish()).map_err(content)
    }

    fn of_parts(header: &SnapshotHeader, secret: KeyId, state: State) -> Result<Self, String> {
        let membership = decode_stored_membership(&header.membership).map_err(|e| e.to_string())?;
        let lineage = Lineage { cluster: header.cluster, epoch: header.lineage_epoch };
        let index = header.last.map_or(0, |last| last.index);
        if state.index() != index {
            return Err(format!("its state is of entry {}, its header of {index}", state.index()));
        }
        Ok(Self { lineage, last: header.last, state, secret, membership })
    }

    /// Applies these entries, which must continue where the state ends. Earlier entries are skipped.
    ///
    /// # Errors
    /// [`OfflineStateError`]; the state is then that of the last valid entry.
    pub fn advance(&mut self, records: &[LogRecord]) -> Result<(), OfflineStateError> {
        for record in records {
            let due = self.last.map_or(0, |last| last.index + 1);
            if record.index < due {
                continue;
            }
            if record.index > due {
                return Err(OfflineStateError::Hole { due, found: record.index });
            }
            self.step(record)?;
        }
        Ok(())
    }

    fn step(&mut self, record: &LogRecord) -> Result<(), OfflineStateError> {
        let index = record.index;
        let entry =
            decode_entry(record).map_err(|e| OfflineStateError::Entry { index, reason: e.to_string() })?;
        self.state = match &entry.payload {
            EntryPayload::Normal(payload) => {
                apply(&self.state, &RulesEntry { index, bytes: &payload.0 })?.state
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id()), membership.clone());
                self.state.having_seen(index)
            }
            EntryPayload::Blank => self.state.having_seen(index),
        };
        self.last = Some(record.id());
        Ok(())
    }

    /// Applies one more entry of the rules that is in no log, to try it out.
    ///
    /// # Errors
    /// [`OfflineStateError`].
    pub fn append(&mut self, entry: &[u8]) -> Result<(), OfflineStateError> {
        let LogId { term, index } = self.last.unwrap_or(LogId { term: 0, index: 0 });
        let index = index + 1;
        self.state = apply(&self.state, &RulesEntry { index, bytes: entry })?.state;
        self.last = Some(LogId { term, index });
        Ok(())
    }

    /// Applies only the revocations and restrictions of these entries. Nothing else is known of them, because the
    /// entries in between are missing.
    ///
    /// # Errors
    /// [`OfflineStateError::Entry`].
    pub fn replay(&mut self, records: &[LogRecord]) -> Result<ReplayCounts, OfflineStateError> {
        let mut entries = Vec::with_capacity(records.len());
        for record in records {
            if let Some(bytes) = Self::command_of(record)? {
                entries.push((record.index, bytes));
            }
        }
        let pairs = entries.iter().map(|(index, bytes)| (*index, bytes.as_slice()));
        let (state, counts) = replay(&self.state, pairs);
        self.state = state;
        let ahead = records.iter().map(LogRecord::id).max_by_key(|id| id.index);
        if let Some(ahead) = ahead.filter(|ahead| self.last.is_none_or(|last| last.index < ahead.index)) {
            self.last = Some(ahead);
        }
        Ok(counts)
    }

    /// The members as of the last entry.
    pub fn members(&self) -> Vec<(NodeId, Member)> {
        self.membership.nodes().map(|(id, member)| (*id, member.clone())).collect()
    }

    /// True if these nodes are a majority of the voters: then each acknowledged write is known to one of them.
    pub fn is_quorum(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let configs = self.membership.membership().get_joint_config();
        !configs.is_empty()
            && configs.iter().all(|voters| voters.intersection(nodes).count() * 2 > voters.len())
    }

    /// The bytes of an entry that are for the rules; `None` for an entry of Raft itself.
    ///
    /// # Errors
    /// [`OfflineStateError::Entry`].
    pub fn command_of(record: &LogRecord) -> Result<Option<Vec<u8>>, OfflineStateError> {
        let entry = decode_entry(record)
            .map_err(|e| OfflineStateError::Entry { index: record.index, reason: e.to_string() })?;
        Ok(match entry.payload {
            EntryPayload::Normal(payload) => Some(payload.0),
            EntryPayload::Membership(_) | EntryPayload::Blank => None,
        })
    }
}

impl Survivor {
    /// Reads a data directory that no process uses: its newest valid snapshot, and every entry of its log after that.
    /// Entries that this node did not know to be committed are taken as committed: without the other nodes this cannot
    /// be known better.
    ///
    /// # Errors
    /// [`OfflineStateError`].
    pub fn read(data: &DataDir, keys: &ClusterKeys) -> Result<Self, OfflineStateError> {
        let shown = data.path().display().to_string();
        let identity = data.identity().ok_or_else(|| OfflineStateError::NoNode(shown.clone()))?;
        if keys.named(&identity.secret_check).is_none() {
            return Err(OfflineStateError::OtherSecret(shown));
        }
        let cluster = identity.cluster.ok_or_else(|| OfflineStateError::NoNode(shown.clone()))?;
        let lineage = Lineage { cluster, epoch: identity.lineage_epoch };
        let key = SealingKey::ring(keys);
        let mut known = match SnapshotDir::open(&data.snapshots())?.latest(&key)? {
            Some(SnapshotFile { path, .. }) => OfflineState::of_file(&path, &key, |_| {})?,
            None => OfflineState {
                lineage,
                last: None,
                state: State::default(),
                secret: identity.secret_check,
                membership: StoredMembership::default(),
            },
        };
        known.secret = identity.secret_check;
        if known.lineage != lineage {
            return Err(OfflineStateError::Content(
                shown,
                "its snapshot is of another cluster or lineage".into(),
            ));
        }
        let log = data.open_log()?;
        let facts = log.state();
        let end = facts.last.map_or(0, |last| last.index + 1);
        let mut next = known.last.map_or(0, |last| last.index + 1);
        while next < end {
            let records = log.reader().read(next, end, READ_BYTES)?;
            known.advance(&records)?;
            let Some(last) = records.last() else { break };
            next = last.index + 1;
        }
        Ok(Self { node: identity.node_id, known, committed: facts.committed })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn most_are_most_of_those_that_vote() {
        let member = |n: u64| {
            (
                n,
                Member {
                    cluster_addr: format!("127.0.0.1:{n}"),
                    api_url: String::new(),
                    incarnation: [0; 16],
                },
            )
        };
        let with = |configs: Vec<BTreeSet<NodeId>>| {
            let nodes: BTreeMap<_, _> = (1..=5).map(member).collect();
            let membership = openraft::Membership::new(configs, nodes).unwrap();
            OfflineState {
                lineage: Lineage { cluster: [1; 16], epoch: 1 },
                last: None,
                state: State::default(),
                secret: [0; 16],
                membership: StoredMembership::new(None, membership),
            }
        };
        let three = with(vec![BTreeSet::from([1, 2, 3])]);
        for (nodes, is_most) in
            [(vec![1, 2], true), (vec![3], false), (vec![3, 4, 5], false), (vec![], false)]
        {
            assert_eq!(three.is_quorum(&nodes.iter().copied().collect()), is_most, "{nodes:?}");
        }
        let in_between = with(vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([3, 4, 5])]);
        assert!(!in_between.is_quorum(&BTreeSet::from([1, 2, 3])));
        assert!(in_between.is_quorum(&BTreeSet::from([2, 3, 4])));
        assert!(!with(vec![]).is_quorum(&BTreeSet::from([1, 2, 3])));
    }
}
