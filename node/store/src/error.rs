//! Errors between the node and its disk, in words that an operator can act on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An error of the durable log or of the data directory. Cloneable, because one I/O error answers every
/// operation that was queued behind it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// An error of the operating system. The log keeps it: see [`crate`].
    #[error("{action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },

    /// The log engine failed for a reason other than a damaged log.
    #[error("log engine in {}: {detail}", path.display())]
    Engine { path: PathBuf, detail: String },

    /// The log on disk differs from what was once reported durable.
    #[error(
        "the raft log in {} is damaged: {detail}; this node must not vote: set the data directory aside and \
         let the node rejoin the cluster as a new member",
        path.display()
    )]
    Damaged { path: PathBuf, detail: String },

    /// An earlier error stopped this log for good.
    #[error("the log stopped at an earlier error, restart the node: {0}")]
    Stopped(String),

    /// The log writer is gone: the node is shutting down.
    #[error("the log writer has stopped")]
    Closed,

    /// The caller broke the log's rules (a gap, an overlap, a term that runs back).
    #[error("refused by the log: {0}")]
    Misuse(String),

    /// An entry does not fit in a record.
    #[error("log entry {index} has {size} bytes, the limit is {limit}")]
    TooLarge { index: u64, size: usize, limit: usize },

    /// Another process holds the directory.
    #[error("data directory {} is in use by another conclave process (pid {pid})", path.display())]
    InUse { path: PathBuf, pid: String },

    /// The directory has files in it and no identity of ours.
    #[error(
        "{} is not empty and holds no conclave identity (found {found:?}): point the data directory at an \
         empty or new directory, or restore the file `identity` if this is a node's data",
        path.display()
    )]
    Foreign { path: PathBuf, found: String },

    /// The identity file cannot be trusted.
    #[error(
        "the identity in {} is damaged: {detail}; set the data directory aside and let the node rejoin the \
         cluster as a new member",
        path.display()
    )]
    BadIdentity { path: PathBuf, detail: String },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), detail: detail.into() }
    }
}

impl From<StoreError> for io::Error {
    fn from(e: StoreError) -> Self {
        Self::other(e)
    }
}
