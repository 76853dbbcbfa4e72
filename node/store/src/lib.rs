//! The store room: the data of a node on disk. It owns the data directory and its lock, the durable Raft log (the only
//! code that names sled), and snapshot files. It knows nothing of openraft, of commands or of the state: payloads,
//! votes and memberships are opaque bytes here.
//!
//! Promises, in order of importance:
//!
//! 1. *Reported means durable*: nothing completes before an `fdatasync` of its file has returned without an error
//!    ([`sled_log`], [`writer`]).
//! 2. *Never silently shorter*: a log that lost anything it ever reported durable, or whose chain of checksums is
//!    broken, does not open. A node with such a disk must not vote; it is rebuilt from the others.
//! 3. *No second try*: after any I/O error the log refuses everything and the node stops. After a failed `fsync` the
//!    kernel may have dropped the dirty pages, so a later success would prove nothing.
//!
//! It refuses to guess: every doubtful file is an error that names the file and the remedy.

pub mod data_dir;
pub mod error;
mod exchange;
mod files;
pub mod log;
pub mod mem_log;
mod record;
pub mod retention;
pub mod sled_log;
pub mod snapshot;
pub mod writer;

pub use data_dir::{DataDir, DataDirIdentity};
pub use error::StoreError;
pub use log::{Flush, LogId, LogReader, LogRecord, LogState, LogStore, Op};
pub use mem_log::MemLog;
pub use sled_log::SledLog;
pub use writer::LogWriter;
