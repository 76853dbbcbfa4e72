//! Reads a snapshot chunk by chunk, each verified before it is returned. The whole is verified only once the iterator
//! has ended without an error: install nothing before that.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::header::{Stored, damaged, take};
use super::merkle::Merkle;
use super::write::encode_trailer;
use conclave_crypto::file_seal::{self, FileKey, Frame, TAG_BYTES};
use conclave_crypto::keys::KeyId;

use super::{MAX_CHUNK_BYTES, MAX_TABLES, SealingKey, SnapshotError, SnapshotFile, SnapshotHeader};

const BUFFER_BYTES: usize = 256 * 1024;
/// The most that zstd may add to bytes it cannot shrink, and the tag.
const MAX_SEALED_BYTES: usize = MAX_CHUNK_BYTES + MAX_CHUNK_BYTES / 128 + 1024 + TAG_BYTES;
const FRAME_HEAD_BYTES: u64 = 13;

/// An open snapshot with a verified header.
pub struct SnapshotReader {
    path: PathBuf,
    input: BufReader<File>,
    header: SnapshotHeader,
    key: FileKey,
    size_bytes: u64,
    offset: u64,
    sequence: u64,
    plain_bytes: u64,
    tables: BTreeMap<u32, Merkle>,
    ended: bool,
    secret_id: KeyId,
}

/// The contents of a whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub file: SnapshotFile,
    pub chunks: u64,
    pub plain_bytes: u64,
    /// The Merkle root of each table's plain chunks: equal states in equal chunks have equal roots.
    pub roots: BTreeMap<u32, [u8; 32]>,
}

/// The header of a file before anything is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    pub header: SnapshotHeader,
    pub size_bytes: u64,
    /// True if this key is the one that it is sealed under; `None` if no key was given.
    pub opens: Option<bool>,
    /// The name of the key that it is sealed under, in hex.
    pub key_id: String,
}

impl Peeked {
    /// Reads only the header. Without the key nothing in it is verified.
    pub fn read(path: &Path, key: Option<&SealingKey>) -> Result<Self, SnapshotError> {
        let mut file = File::open(path).map_err(SnapshotError::io("open", path))?;
        let size_bytes = file.metadata().map_err(SnapshotError::io("stat", path))?.len();
        let (stored, _) = Stored::read(path, &mut file)?;
        let opens = key.map(|key| key.named(&stored.key_id).map(|key| key.is_some())).transpose()?;
        let key_id = format!("{:032x}", u128::from_be_bytes(stored.key_id));
        Ok(Self { header: stored.header, size_bytes, opens, key_id })
    }
}

impl Peeked {
    /// True if the file is sealed under the current key of this ring.
    pub fn is_under(&self, key: &SealingKey) -> Result<bool, SnapshotError> {
        Ok(format!("{:032x}", u128::from_be_bytes(key.id()?)) == self.key_id)
    }
}

impl SnapshotReader {
    /// Opens a file and verifies its header.
    pub fn open(path: &Path, key: &SealingKey) -> Result<Self, SnapshotError> {
        let file = File::open(path).map_err(SnapshotError::io("open", path))?;
        let size_bytes = file.metadata().map_err(SnapshotError::io("stat", path))?.len();
        let mut input = BufReader::with_capacity(BUFFER_BYTES, file);
        let (stored, bytes) = Stored::read(path, &mut input)?;
        let Some(key) = key.named(&stored.key_id)? else {
            let key_id = format!("{:032x}", u128::from_be_bytes(stored.key_id));
            return Err(SnapshotError::OtherKey { path: path.to_owned(), key_id });
        };
        let secret_id = key.secret_id();
        let key = FileKey::derive(key, file_seal::SNAPSHOT_LABEL, &stored.salt, &bytes)?;
        let mut tag: [u8; TAG_BYTES] = take(&mut input).map_err(|_| damaged(path, "it ends too early"))?;
        let frame = Frame { kind: file_seal::HEADER, table: 0, plain_len: 0, sequence: 0 };
        if key.open(frame, &mut tag).is_none() {
            return Err(damaged(path, "it was altered"));
        }
        let offset = (bytes.len() + TAG_BYTES) as u64;
        let (path, tables) = (path.to_owned(), BTreeMap::new());
        let header = stored.header;
        Ok(Self {
            path,
            input,
            header,
            key,
            size_bytes,
            offset,
            sequence: 0,
            plain_bytes: 0,
            tables,
            ended: false,
            secret_id,
        })
    }

    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// The name of the secret in the ring that this file was written under.
    pub const fn secret_id(&self) -> KeyId {
        self.secret_id
    }

    /// Reads and verifies all of it, and keeps nothing.
    pub fn verify(mut self) -> Result<Summary, SnapshotError> {
        for chunk in self.by_ref() {
            chunk?;
        }
        let roots = self.tables.iter().map(|(table, merkle)| (*table, merkle.root())).collect();
        let file = SnapshotFile { path: self.path, header: self.header, size_bytes: self.size_bytes };
        Ok(Summary { file, chunks: self.sequence, plain_bytes: self.plain_bytes, roots })
    }

    /// The next chunk; `None` once the trailer has proved that there is none.
    fn step(&mut self) -> Result<Option<(u32, Vec<u8>)>, SnapshotError> {
        let (frame, mut sealed) = self.read_frame()?;
        let opened = self.key.open(frame, &mut sealed).ok_or_else(|| self.damaged("it was altered"))?;
        let plain = zstd::bulk::decompress(opened, frame.plain_len as usize)
            .ok()
            .filter(|plain| plain.len() == frame.plain_len as usize)
            .ok_or_else(|| self.damaged("it does not unpack to its length"))?;
        if frame.kind == file_seal::TRAILER {
            return self.end(&plain).map(|()| None);
        }
        if !self.tables.contains_key(&frame.table) && self.tables.len() >= MAX_TABLES {
            return Err(self.damaged("it begins one table too many"));
        }
        self.tables.entry(frame.table).or_default().push(&plain);
        self.plain_bytes += u64::from(frame.plain_len);
        self.offset += FRAME_HEAD_BYTES + sealed.len() as u64;
        self.sequence += 1;
        Ok(Some((frame.table, plain)))
    }

    fn read_frame(&mut self) -> Result<(Frame, Vec<u8>), SnapshotError> {
        let [kind] = take(&mut self.input).map_err(|e| self.failed(e))?;
        let table = self.read_u32()?;
        let plain_len = self.read_u32()?;
        let sealed_len = self.read_u32()? as usize;
        if !matches!(kind, file_seal::CHUNK | file_seal::TRAILER) {
            return Err(self.damaged("it is of no known kind"));
        }
        if plain_len as usize > MAX_CHUNK_BYTES || !(TAG_BYTES..=MAX_SEALED_BYTES).contains(&sealed_len) {
            return Err(self.damaged("its length is out of bounds"));
        }
        let mut sealed = vec![0; sealed_len];
        self.input.read_exact(&mut sealed).map_err(|e| self.failed(e))?;
        Ok((Frame { kind, table, plain_len, sequence: self.sequence }, sealed))
    }

    fn read_u32(&mut self) -> Result<u32, SnapshotError> {
        take(&mut self.input).map(u32::from_be_bytes).map_err(|e| self.failed(e))
    }

    /// Checks the trailer: the file must contain exactly the chunks that it lists, and nothing after it.
    fn end(&mut self, trailer: &[u8]) -> Result<(), SnapshotError> {
        if trailer != encode_trailer(self.sequence, self.plain_bytes, &self.tables) {
            return Err(self.damaged("the trailer does not match the chunks before it"));
        }
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.damaged("there are bytes behind the trailer")),
            Err(e) => Err(self.failed(e)),
        }
    }

    fn failed(&self, error: io::Error) -> SnapshotError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("the file ends here"),
            _ => SnapshotError::io("read", &self.path)(error),
        }
    }

    fn damaged(&self, detail: &str) -> SnapshotError {
        let (path, chunk, offset) = (self.path.clone(), self.sequence, self.offset);
        SnapshotError::Damaged { path, chunk, offset, detail: detail.to_owned() }
    }
}

impl Iterator for SnapshotReader {
    type Item = Result<(u32, Vec<u8>), SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}
