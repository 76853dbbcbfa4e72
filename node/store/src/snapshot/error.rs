//! Errors of a snapshot file, with their position.

use std::io;
use std::path::PathBuf;

use conclave_crypto::file_seal::FileSealError;

use crate::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error(transparent)]
    Files(#[from] StoreError),

    #[error("{} is not a conclave snapshot", path.display())]
    NotASnapshot { path: PathBuf },

    #[error("{} has snapshot format {format}, this release reads format {known}", path.display())]
    UnknownFormat { path: PathBuf, format: u16, known: u16 },

    /// The file may be undamaged: the node has another cluster secret than the one that wrote it.
    #[error(
        "{} is sealed under another key ({key_id}): give this node the cluster secret that it was written with, as its own or in cluster.accept_secret_files",
        path.display()
    )]
    OtherKey { path: PathBuf, key_id: String },

    #[error("{} is damaged in its header: {detail}", path.display())]
    DamagedHeader { path: PathBuf, detail: String },

    #[error("{} is damaged at chunk {chunk} (byte {offset}): {detail}", path.display())]
    Damaged { path: PathBuf, chunk: u64, offset: u64, detail: String },

    #[error("{what} of {size} exceeds the limit of {limit}")]
    TooLarge { what: &'static str, size: u64, limit: u64 },

    #[error(transparent)]
    Crypto(#[from] FileSealError),
}

impl SnapshotError {
    pub(super) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// True if another file may be used instead of this one.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::NotASnapshot { .. }
                | Self::UnknownFormat { .. }
                | Self::DamagedHeader { .. }
                | Self::Damaged { .. }
        )
    }
}
