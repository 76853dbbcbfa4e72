//! Reconstructs a cluster from its archive: the newest state with every known later revocation, and the state at an
//! earlier point if one is requested.

use std::path::Path;

use conclave_state::restore::ReplayCounts;

use conclave_archive::{
    ArchiveError,
    read::{self, DownloadProgress, Reader, RestoreFiles, Until},
};
use conclave_cluster::offline_state::{OfflineState, OfflineStateError};
use conclave_config as config;
use conclave_crypto::keys::ClusterKeys;
use conclave_store::snapshot::SealingKey;

/// Entries applied at once: bounds the memory beside the state.
const AT_ONCE: usize = 1_024;

/// The reason why the archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchivedError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    OfflineState(#[from] OfflineStateError),
}

/// The reconstructed states.
pub struct Archived {
    /// The state at the requested point.
    pub older: OfflineState,
    /// The newest state, with the later revocations of the journal.
    pub newest: OfflineState,
    /// The last entry of the archive's log. Later entries are only in the journal, or lost.
    pub log_ends_at: u64,
    /// The revocations that the journal applied after that entry.
    pub revocation_journal: ReplayCounts,
    /// Up to this entry every revocation is known.
    pub journal_complete_to: u64,
}

/// Reads the archive, restricted to `lineage` if two continued in parallel. Files are written into `scratch`,
/// which the caller removes.
///
/// # Errors
/// [`ArchivedError`].
pub async fn read(
    settings: &config::ArchiveConfig,
    keys: &ClusterKeys,
    point: Until,
    lineage: Option<u64>,
    scratch: &Path,
    progress: &mut (dyn FnMut(DownloadProgress) + Send),
) -> Result<Archived, ArchivedError> {
    let reader = read::open(settings, keys).await?.of_lineage(lineage);
    let fetched = newest_of(&reader, point, &scratch.join("latest"), progress).await?;
    let mut newest = known_of(&fetched, keys)?;
    let log_ends_at = newest.state.index();
    let as_of_the_log = newest.clone();
    let taken = fetched.revocations(log_ends_at).collect::<Result<Vec<_>, _>>()?;
    let revocation_journal = newest.replay(&taken)?;
    let older = match point {
        Until::Latest => newest.clone(),
        Until::Index(index) if index == log_ends_at => as_of_the_log,
        Until::Index(_) | Until::TimeMs(_) => {
            known_of(&reader.restore(point, &scratch.join("point"), progress).await?, keys)?
        }
    };
    let journal_complete_to = fetched.journal_complete_to;
    Ok(Archived { older, newest, log_ends_at, revocation_journal, journal_complete_to })
}

/// Fetches everything there is. If the log has a gap, fetches the part before it, but only if the caller requested an
/// earlier point. The journal contains the revocations after the gap.
async fn newest_of(
    reader: &Reader,
    point: Until,
    into: &Path,
    progress: &mut (dyn FnMut(DownloadProgress) + Send),
) -> Result<RestoreFiles, ArchiveError> {
    let outcome = reader.restore(Until::Latest, into, progress).await;
    match outcome.as_ref().err().and_then(ArchiveError::whole_to) {
        Some(index) if point != Until::Latest => reader.restore(Until::Index(index), into, progress).await,
        _ => outcome,
    }
}

fn known_of(fetched: &RestoreFiles, keys: &ClusterKeys) -> Result<OfflineState, ArchivedError> {
    let key = SealingKey::ring(keys);
    let mut known = OfflineState::of_file(&fetched.snapshot.path, &key, |_| {})?;
    let mut batch = Vec::with_capacity(AT_ONCE);
    for record in fetched.records() {
        batch.push(record?);
        if batch.len() >= AT_ONCE {
            known.advance(&batch)?;
            batch.clear();
        }
    }
    known.advance(&batch)?;
    Ok(known)
}
