//! The mark: the number of batches that were reported durable, stored outside the engine. After a crash the engine
//! silently goes back to the last state that it can read. A mark ahead of it proves that something promised is lost,
//! entries or the vote.
//!
//! It is written in place after each durable commit and synced only now and then. After `kill -9` it is exact. After a
//! power loss it may be behind, which only makes it less precise. It can never be ahead of an undamaged log.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::super::{StoreError, files};

pub(super) struct Mark {
    path: PathBuf,
    file: File,
    sequence: u64,
}

impl Mark {
    /// Writes a mark of zero for a new log, durably.
    pub(super) fn create(path: &Path) -> Result<(), StoreError> {
        files::replace(path, &encode(0))
    }

    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::options().read(true).write(true).open(path).map_err(StoreError::io("open", path))?;
        let mut bytes = [0; 12];
        file.read_exact_at(&mut bytes, 0).map_err(StoreError::io("read", path))?;
        let (sequence, _) = bytes.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        let sequence = u64::from_be_bytes(*sequence);
        if encode(sequence) != bytes {
            return Err(StoreError::damaged(path, "the mark of what was reported durable cannot be read"));
        }
        Ok(Self { path: path.to_owned(), file, sequence })
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Records that batch `sequence` is durable.
    pub(super) fn set(&mut self, sequence: u64) -> Result<(), StoreError> {
        self.file.write_all_at(&encode(sequence), 0).map_err(StoreError::io("write", &self.path))?;
        self.sequence = sequence;
        Ok(())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // An orderly stop leaves an exact mark; a failure here leaves an older one, which is still true.
        let _ = self.file.sync_data();
    }
}

fn encode(sequence: u64) -> [u8; 12] {
    let mut out = [0; 12];
    let (number, crc) = out.split_at_mut(8);
    number.copy_from_slice(&sequence.to_be_bytes());
    crc.copy_from_slice(&crc32c::crc32c(number).to_be_bytes());
    out
}
