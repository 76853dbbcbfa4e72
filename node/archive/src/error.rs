//! Errors of an archive, with their position, in words for the operator.

use std::{io, path::PathBuf};

use conclave_crypto::file_seal::FileSealError;
use conclave_store::snapshot::SnapshotError;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("no archive is set; set archive.target to file:///directory or s3://bucket/prefix")]
    NotSet,
    #[error("archive.target {target:?}: {reason}")]
    Target { target: String, reason: String },
    #[error("the archive directory {} does not exist; mount or create it", path.display())]
    Away { path: PathBuf },
    #[error("cannot {action} {name} in the archive: {reason}")]
    Store { action: &'static str, name: String, reason: String },
    #[error("cannot {action} {name} in the archive: no answer within {seconds} s")]
    TooSlow { action: &'static str, name: String, seconds: u64 },
    #[error("{name} in the archive has {size} bytes; the limit is {limit}")]
    TooLarge { name: String, size: u64, limit: u64 },
    #[error("{name} already exists; choose another name")]
    Exists { name: String },
    #[error("{name} is not a segment of a conclave archive")]
    NotASegment { name: String },
    #[error("{name} has segment format {format}, this release reads format {known}")]
    UnknownFormat { name: String, format: u16, known: u16 },
    #[error(
        "{name} is sealed under another key ({key_id}): give this node the cluster secret that it was written with, as its own or in cluster.accept_secret_files"
    )]
    OtherKey { name: String, key_id: String },
    #[error("{name} is damaged at {at}: {detail}")]
    Damaged { name: String, at: &'static str, detail: String },
    #[error("{name} belongs to {found}, not to {meant}: the object was moved or exchanged")]
    Misplaced { name: String, found: String, meant: String },
    /// Two logs with equal indexes: a cluster was restored or copied past this archive.
    #[error(
        "entry {index} in the archive is not the one in this cluster's log: another copy of this cluster writes to the same \
         target; give this one a target of its own"
    )]
    OtherHistory { index: u64 },
    #[error(
        "the archive reaches entry {archived}, this cluster only entry {applied}: was it set back by hand?"
    )]
    AheadOfCluster { archived: u64, applied: u64 },
    #[error(
        "the archive lacks the entries {from} to {to}; it can be restored to index {reachable} (--index {reachable}), \
         and later revocations still apply"
    )]
    Hole { from: u64, to: u64, reachable: u64 },
    /// The object that covers the next entry cannot be used, and no other object covers it.
    #[error(
        "{source}; the archive can be restored to index {reachable} (--index {reachable}), and later revocations \
         still apply"
    )]
    Broken { source: Box<Self>, reachable: u64 },
    #[error("the archive holds no snapshot {until}")]
    NoSnapshot { until: String },
    #[error("the archive ends at entry {last}, before {until}")]
    TooShort { last: u64, until: String },
    #[error("the archive holds several clusters ({}); name one in the target: {{target}}/{{cluster}}", clusters.join(", "))]
    SeveralClusters { clusters: Vec<String> },
    #[error(
        "two lineages of this cluster wrote here at the same time, {earlier} and {newest}: one of them is a copy that \
         was restored for a test, or was still running when the other was restored; choose one with --life {earlier} \
         or --life {newest}, give the other one a target of its own, and remove what it wrote here"
    )]
    SeveralLives { earlier: u64, newest: u64 },
    #[error("the log cannot be read for the archive: {0}")]
    Log(String),
    #[error("more than {limit} objects in the archive; prune it: `conclave archive prune`")]
    TooMany { limit: usize },
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),

    #[error(transparent)]
    Seal(#[from] FileSealError),
    #[error("{action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl ArchiveError {
    pub(super) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// The last index up to which the archive is complete, if that is its only fault.
    pub const fn whole_to(&self) -> Option<u64> {
        match self {
            Self::Hole { reachable, .. } | Self::Broken { reachable, .. } => Some(*reachable),
            _ => None,
        }
    }

    /// True if the object itself is at fault, so that another object with equal content may replace it.
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::NotASegment { .. }
                | Self::UnknownFormat { .. }
                | Self::Damaged { .. }
                | Self::Misplaced { .. }
                | Self::TooLarge { .. }
        )
    }
}
