//! What an archive holds of a cluster, put together: the newest state there is, with everything that is known to have
//! been taken away after it, and the state at an earlier point, where one is wanted.

use std::path::Path;

use conclave_state::restore::Replayed;

use crate::archive::{
    ArchiveError,
    read::{self, Fetched, Progress, Reader, Until},
};
use conclave_cluster::known::{Known, KnownError};
use conclave_config as config;
use conclave_crypto::keys::ClusterKeys;
use conclave_store::snapshot::SealingKey;

/// Entries applied between two looks at memory: bounds what is held beside the state.
const AT_ONCE: usize = 1_024;

/// Why it cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ArchivedError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Known(#[from] KnownError),
}

/// What was put together.
pub struct Archived {
    /// At the point that was wanted.
    pub older: Known,
    /// The newest, with the journal behind it.
    pub newest: Known,
    /// The last entry of the archive's log; what came after it is in the journal alone, or lost.
    pub log_ends_at: u64,
    /// What the journal took away beyond that.
    pub journal: Replayed,
    /// Up to this entry nothing that was taken away is unknown.
    pub journal_complete_to: u64,
}

/// Reads it, of one life of the cluster where two went on at once. Files are put into `scratch`, which is the caller's
/// to remove.
///
/// # Errors
/// [`ArchivedError`].
pub async fn read(
    settings: &config::Archive,
    keys: &ClusterKeys,
    point: Until,
    life: Option<u64>,
    scratch: &Path,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Archived, ArchivedError> {
    let reader = read::open(settings, keys).await?.of_life(life);
    let fetched = newest_of(&reader, point, &scratch.join("latest"), progress).await?;
    let mut newest = known_of(&fetched, keys)?;
    let log_ends_at = newest.state.index();
    let as_of_the_log = newest.clone();
    let taken = fetched.revocations(log_ends_at).collect::<Result<Vec<_>, _>>()?;
    let journal = newest.replay(&taken)?;
    let older = match point {
        Until::Latest => newest.clone(),
        Until::Index(index) if index == log_ends_at => as_of_the_log,
        Until::Index(_) | Until::TimeMs(_) => {
            known_of(&reader.restore(point, &scratch.join("point"), progress).await?, keys)?
        }
    };
    let journal_complete_to = fetched.journal_complete_to;
    Ok(Archived { older, newest, log_ends_at, journal, journal_complete_to })
}

/// All there is. Where the log is broken, what lies before that, if whoever asks has said that they want no more; the
/// journal tells what was taken away behind it.
async fn newest_of(
    reader: &Reader,
    point: Until,
    into: &Path,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Fetched, ArchiveError> {
    let outcome = reader.restore(Until::Latest, into, progress).await;
    match outcome.as_ref().err().and_then(ArchiveError::whole_to) {
        Some(index) if point != Until::Latest => reader.restore(Until::Index(index), into, progress).await,
        _ => outcome,
    }
}

fn known_of(fetched: &Fetched, keys: &ClusterKeys) -> Result<Known, ArchivedError> {
    let key = SealingKey::ring(keys);
    let mut known = Known::of_file(&fetched.snapshot.path, &key, |_| {})?;
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
