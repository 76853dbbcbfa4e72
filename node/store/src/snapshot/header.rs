//! The header of a snapshot file: its log id and membership, and the key that opens it. Integers are big-endian.

use std::io::{self, Read};
use std::path::Path;

use super::{MAX_MEMBERSHIP_BYTES, SnapshotError};
use crate::LogId;
use conclave_crypto::file_seal::KEY_ID_BYTES;

pub(super) const MAGIC: &[u8; 8] = b"CNCLSNAP";
pub(super) const FORMAT: u16 = 1;
pub(super) const SALT_BYTES: usize = 32;
const FIXED_BYTES: usize = 16 + 8 + 1 + 8 + 8 + 8 + KEY_ID_BYTES + SALT_BYTES + 4;

/// The origin of a snapshot: cluster, lineage and last entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHeader {
    pub cluster: [u8; 16],
    pub lineage_epoch: u64,
    /// The last entry the state contains; `None` for the state before the first.
    pub last: Option<LogId>,
    /// The membership as of `last`, opaque here.
    pub membership: Vec<u8>,
    /// Unix time in milliseconds, for display.
    pub created_at_ms: u64,
}

/// The header as stored in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub header: SnapshotHeader,
    pub key_id: [u8; KEY_ID_BYTES],
    pub salt: [u8; SALT_BYTES],
}

impl Stored {
    /// The bytes up to the tag, which authenticates exactly these.
    pub(super) fn encode(&self) -> Vec<u8> {
        let header = &self.header;
        let len = FIXED_BYTES + header.membership.len();
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&FORMAT.to_be_bytes());
        out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&header.cluster);
        out.extend_from_slice(&header.lineage_epoch.to_be_bytes());
        let last = header.last.unwrap_or(LogId { term: 0, index: 0 });
        out.push(u8::from(header.last.is_some()));
        out.extend_from_slice(&last.term.to_be_bytes());
        out.extend_from_slice(&last.index.to_be_bytes());
        out.extend_from_slice(&header.created_at_ms.to_be_bytes());
        out.extend_from_slice(&self.key_id);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&u32::try_from(header.membership.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&header.membership);
        out
    }

    /// Reads a header and the bytes it was read from. Nothing in it is verified yet.
    pub(super) fn read(path: &Path, input: &mut impl Read) -> Result<(Self, Vec<u8>), SnapshotError> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => damaged(path, "it ends too early"),
            _ => SnapshotError::io("read", path)(e),
        };
        let not_ours = |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => SnapshotError::NotASnapshot { path: path.to_owned() },
            _ => SnapshotError::io("read", path)(e),
        };
        let magic: [u8; 8] = take(input).map_err(not_ours)?;
        if magic != *MAGIC {
            return Err(SnapshotError::NotASnapshot { path: path.to_owned() });
        }
        let format = u16::from_be_bytes(take(input).map_err(failed)?);
        if format != FORMAT {
            return Err(SnapshotError::UnknownFormat { path: path.to_owned(), format, known: FORMAT });
        }
        let len = u32::from_be_bytes(take(input).map_err(failed)?) as usize;
        let Some(membership) = len.checked_sub(FIXED_BYTES).filter(|len| *len <= MAX_MEMBERSHIP_BYTES) else {
            return Err(damaged(path, &format!("a header of {len} bytes")));
        };
        let stored = Self::read_body(path, input, membership).map_err(failed)??;
        let bytes = stored.encode();
        Ok((stored, bytes))
    }

    fn read_body(
        path: &Path,
        input: &mut impl Read,
        membership_len: usize,
    ) -> io::Result<Result<Self, SnapshotError>> {
        let cluster = take(input)?;
        let lineage_epoch = u64::from_be_bytes(take(input)?);
        let present: [u8; 1] = take(input)?;
        let last = LogId { term: u64::from_be_bytes(take(input)?), index: u64::from_be_bytes(take(input)?) };
        let created_at_ms = u64::from_be_bytes(take(input)?);
        let (key_id, salt) = (take(input)?, take(input)?);
        let len = u32::from_be_bytes(take(input)?) as usize;
        // There is exactly one encoding per header: the tag is checked over the re-encoded bytes.
        if present[0] > 1 || len != membership_len || (present[0] == 0 && (last.term, last.index) != (0, 0)) {
            return Ok(Err(damaged(path, "its fields do not fit together")));
        }
        let mut membership = vec![0; len];
        input.read_exact(&mut membership)?;
        let last = (present[0] == 1).then_some(last);
        let header = SnapshotHeader { cluster, lineage_epoch, last, membership, created_at_ms };
        Ok(Ok(Self { header, key_id, salt }))
    }
}

pub(super) fn take<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut out = [0; N];
    input.read_exact(&mut out)?;
    Ok(out)
}

pub(super) fn damaged(path: &Path, detail: &str) -> SnapshotError {
    SnapshotError::DamagedHeader { path: path.to_owned(), detail: detail.to_owned() }
}
