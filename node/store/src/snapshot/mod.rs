//! Snapshot files: the whole state at one log id, sealed. One format is kept on disk, sent to a follower and used for
//! backups, so the restore path runs every day.
//!
//! ```text
//! "CNCLSNAP" | format u16 | header length u32 | header | tag 16
//! frame*         kind u8 | table u32 | plain length u32 | sealed length u32 | sealed bytes
//! ```
//!
//! Frames are chunks (kind 1) and one trailer (kind 2), which is the last part of the file. Each is compressed with
//! zstd, then sealed with AES-256-GCM under a key for this file alone, derived from the sealing key, a random salt and
//! the header. The frame's number, kind, table and plain length and the header's hash are authenticated with it, so
//! nothing can be altered, moved, exchanged between files or cut off unnoticed. The trailer holds the number of chunks
//! and a Merkle root per table. The roots cover the plain chunks, so that two nodes can compare states whatever key or
//! salt their files use.
//!
//! A header is readable without the key (for operators who inspect a file) and verified only with it.

mod dir;
mod error;
mod header;
mod merkle;
mod read;
mod write;

pub use conclave_crypto::file_seal::SealingKey;
pub use dir::{IncomingSnapshot, SnapshotDir};
pub use error::SnapshotError;
pub use header::SnapshotHeader;
pub use read::{Peeked, SnapshotReader, Summary};
pub use write::SnapshotWriter;

use std::path::PathBuf;

/// The plain bytes of one chunk. A reader or a writer needs a few times this much memory.
pub const MAX_CHUNK_BYTES: usize = 1024 * 1024;

/// The opaque membership in the header.
pub const MAX_MEMBERSHIP_BYTES: usize = 60 * 1024;

/// Tables in one file.
pub const MAX_TABLES: usize = 4096;

/// The largest file that a node accepts from another: far above any state that fits in memory, and far below what fills
/// a disk by mistake.
pub const MAX_SNAPSHOT_BYTES: u64 = 64 * 1024 * 1024 * 1024;

/// A complete, verified file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    pub path: PathBuf,
    pub header: SnapshotHeader,
    pub size_bytes: u64,
}
