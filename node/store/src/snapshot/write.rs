//! Writing a snapshot: temp file, sync, rename, sync of the directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::header::{SALT_BYTES, Stored};
use super::merkle::Merkle;
use super::{
    MAX_CHUNK_BYTES, MAX_MEMBERSHIP_BYTES, MAX_TABLES, SealingKey, SnapshotError, SnapshotFile,
    SnapshotHeader, dir,
};
use crate::files;
use conclave_crypto::file_seal::{self, FileKey, Frame};

const BUFFER_BYTES: usize = 256 * 1024;
/// zstd's own default: on identity rows, higher levels cost much and gain little.
const ZSTD_LEVEL: i32 = 3;

/// A snapshot that is being written. If dropped unfinished, it leaves nothing.
pub struct SnapshotWriter {
    temp: Temp,
    target: PathBuf,
    file: BufWriter<File>,
    header: SnapshotHeader,
    key: FileKey,
    sequence: u64,
    plain_bytes: u64,
    tables: BTreeMap<u32, Merkle>,
}

impl SnapshotWriter {
    /// Begins a file in `dir`. `random` gives the salt: random bytes that never repeat.
    pub fn create(
        dir: &Path,
        header: SnapshotHeader,
        key: &SealingKey,
        random: impl FnOnce(&mut [u8]),
    ) -> Result<Self, SnapshotError> {
        limit("a membership", header.membership.len(), MAX_MEMBERSHIP_BYTES)?;
        let mut salt = [0; SALT_BYTES];
        random(&mut salt);
        let stored = Stored { header, key_id: key.id()?, salt };
        let bytes = stored.encode();
        let key = FileKey::derive(key, file_seal::SNAPSHOT_LABEL, &stored.salt, &bytes)?;
        let target = dir.join(dir::file_name(stored.header.last));
        let temp = Temp(dir::temp_path(dir));
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, files::create_file(&temp.0)?);
        let mut tag = Vec::new();
        key.seal(Frame { kind: file_seal::HEADER, table: 0, plain_len: 0, sequence: 0 }, &mut tag)?;
        file.write_all(&bytes)
            .and_then(|()| file.write_all(&tag))
            .map_err(SnapshotError::io("write", &temp.0))?;
        let (header, tables) = (stored.header, BTreeMap::new());
        Ok(Self { temp, target, file, header, key, sequence: 0, plain_bytes: 0, tables })
    }

    /// Adds the next chunk of a table.
    pub fn chunk(&mut self, table: u32, bytes: &[u8]) -> Result<(), SnapshotError> {
        limit("a chunk", bytes.len(), MAX_CHUNK_BYTES)?;
        if !self.tables.contains_key(&table) {
            limit("the number of tables", self.tables.len() + 1, MAX_TABLES)?;
        }
        self.frame(file_seal::CHUNK, table, bytes)?;
        self.tables.entry(table).or_default().push(bytes);
        self.plain_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Seals the trailer and gives the file its name, durably. A file with this log id is replaced.
    pub fn finish(mut self) -> Result<SnapshotFile, SnapshotError> {
        let trailer = encode_trailer(self.sequence, self.plain_bytes, &self.tables);
        self.frame(file_seal::TRAILER, 0, &trailer)?;
        let io = SnapshotError::io("write", &self.temp.0);
        let file = self.file.into_inner().map_err(|e| io(e.into_error()))?;
        file.sync_all().map_err(SnapshotError::io("sync", &self.temp.0))?;
        let size_bytes = file.metadata().map_err(SnapshotError::io("stat", &self.temp.0))?.len();
        files::rename(&self.temp.0, &self.target)?;
        Ok(SnapshotFile { path: self.target, header: self.header, size_bytes })
    }

    fn frame(&mut self, kind: u8, table: u32, plain: &[u8]) -> Result<(), SnapshotError> {
        let plain_len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        let io = || SnapshotError::io("write", &self.temp.0);
        let mut sealed = zstd::bulk::compress(plain, ZSTD_LEVEL).map_err(io())?;
        self.key.seal(Frame { kind, table, plain_len, sequence: self.sequence }, &mut sealed)?;
        let sealed_len = u32::try_from(sealed.len()).unwrap_or(u32::MAX);
        let mut head = vec![kind];
        for field in [table, plain_len, sealed_len] {
            head.extend_from_slice(&field.to_be_bytes());
        }
        self.file.write_all(&head).and_then(|()| self.file.write_all(&sealed)).map_err(io())?;
        self.sequence += 1;
        Ok(())
    }
}

/// `chunks u64 | plain bytes u64 | tables u32 | (table u32 | chunks u64 | root 32)*`
pub(super) fn encode_trailer(chunks: u64, plain_bytes: u64, tables: &BTreeMap<u32, Merkle>) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&chunks.to_be_bytes());
    out.extend_from_slice(&plain_bytes.to_be_bytes());
    out.extend_from_slice(&u32::try_from(tables.len()).unwrap_or(u32::MAX).to_be_bytes());
    for (table, merkle) in tables {
        out.extend_from_slice(&table.to_be_bytes());
        out.extend_from_slice(&merkle.leaves().to_be_bytes());
        out.extend_from_slice(&merkle.root());
    }
    out
}

fn limit(what: &'static str, size: usize, limit: usize) -> Result<(), SnapshotError> {
    if size <= limit {
        return Ok(());
    }
    Err(SnapshotError::TooLarge { what, size: size as u64, limit: limit as u64 })
}

/// A temporary file: removed when dropped, unless it was renamed.
pub(super) struct Temp(pub PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        // After a rename there is nothing to remove. Otherwise the start-up sweep removes the rest.
        let _ = fs::remove_file(&self.0);
    }
}
