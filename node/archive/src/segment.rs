//! Sealed pieces of the log. Pure: bytes in, bytes out. Integers are big-endian.
//!
//! ```text
//! "CNCLSEGM" | format u16 | kind u8 | cluster 16 | epoch u64 | first term, index | last term, index | first ms | last ms
//!   | has before u8 | before 32 | after 32 | entries u32 | plain length u32 | sealed length u32 | key id 16 | salt 32
//! tag 16
//! sealed          zstd, AES-256-GCM: (term u64 | index u64 | length u32 | payload)*
//! ```
//!
//! The key is for this file alone, derived from the sealing key, the salt and the header (`store::snapshot::seal`);
//! both tags cover the header. So nothing can be altered, cut off, added or put under another header unnoticed.
//!
//! `before` and `after` are the digests of the log's entries just before the first and at the last index covered. They
//! link a segment to its neighbours: if one segment follows another, the `after` of the first is the `before` of the
//! second, whichever node cut them. A missing segment is detected by its indexes, an exchanged one by these digests.
//!
//! A segment of the *log* contains every entry it covers; a segment of the *journal* contains only revocations.

use super::{ArchiveError, names::ObjectKind};
use conclave_crypto::hex;
use conclave_crypto::{
    file_seal::{self, FileKey, Frame, KEY_ID_BYTES, SealingKey, TAG_BYTES},
    mac::sha256_of,
};
use conclave_store::{LogId, LogRecord, log::MAX_PAYLOAD_BYTES};

const MAGIC: &[u8; 8] = b"CNCLSEGM";
const FORMAT: u16 = 1;
const LABEL: &[u8] = b"conclave archive segment v1 file key";
const SALT_BYTES: usize = 32;
const HEADER_BYTES: usize =
    8 + 2 + 1 + 16 + 8 + 16 + 16 + 8 + 8 + 1 + 32 + 32 + 4 + 4 + 4 + KEY_ID_BYTES + SALT_BYTES;
/// zstd's own default, as for snapshots.
const ZSTD_LEVEL: i32 = 3;

/// The payload of one segment when the archive is behind. A second of writes has a fraction of it, and an object of
/// this size is written within a second over 40 Mbit/s.
pub const SEGMENT_BYTES: usize = 4 * 1024 * 1024;
/// The entries of one segment: with their lengths they stay below `MAX_PLAIN_BYTES` however small they are.
pub const SEGMENT_ENTRIES: usize = 10_000;
/// The most bytes of a segment, including the entry that passes the limit.
const MAX_PLAIN_BYTES: usize = SEGMENT_BYTES + MAX_PAYLOAD_BYTES + SEGMENT_ENTRIES * RECORD_HEAD_BYTES;
const RECORD_HEAD_BYTES: usize = 8 + 8 + 4;
/// The most bytes of an object that is read as a segment: zstd adds less than a hundredth to bytes it cannot shrink.
pub const MAX_SEGMENT_BYTES: usize =
    HEADER_BYTES + TAG_BYTES + MAX_PLAIN_BYTES + MAX_PLAIN_BYTES / 100 + 1024;

/// The contents that a segment covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    pub kind: ObjectKind,
    pub cluster: [u8; 16],
    pub epoch: u64,
    pub first: LogId,
    pub last: LogId,
    /// The stamps of the first and the last stamped entry covered, Unix milliseconds.
    pub first_ms: u64,
    pub last_ms: u64,
    /// The digest of the entry before the first; `None` if it is not known.
    pub before: Option<[u8; 32]>,
    /// The digest of the last entry covered.
    pub after: [u8; 32],
}

/// An opened segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub header: SegmentHeader,
    pub records: Vec<LogRecord>,
}

/// The digest that links an entry to its neighbour.
pub fn digest(record: &LogRecord) -> [u8; 32] {
    sha256_of(&[&record.term.to_be_bytes(), &record.index.to_be_bytes(), &record.payload])
}

/// Seals `records` under `header`. `random` gives the salt: random bytes that never repeat.
///
/// # Errors
/// An error if there is more than a segment may hold.
pub fn seal(
    header: &SegmentHeader,
    records: &[LogRecord],
    key: &SealingKey,
    random: impl FnOnce(&mut [u8]),
) -> Result<Vec<u8>, ArchiveError> {
    let plain = encode_records(records);
    if plain.len() > MAX_PLAIN_BYTES || records.len() > SEGMENT_ENTRIES {
        let (size, limit) = (plain.len() as u64, MAX_PLAIN_BYTES as u64);
        return Err(ArchiveError::TooLarge { name: "a segment".into(), size, limit });
    }
    let mut salt = [0; SALT_BYTES];
    random(&mut salt);
    let compressed = zstd::bulk::compress(&plain, ZSTD_LEVEL)
        .map_err(|e| ArchiveError::Log(format!("it cannot be compressed: {e}")))?;
    let lengths = Lengths {
        entries: narrow(records.len()),
        plain: narrow(plain.len()),
        sealed: narrow(compressed.len() + TAG_BYTES),
    };
    let mut out = encode_header(header, lengths, &key.id()?, &salt);
    let file = FileKey::derive(key, LABEL, &salt, &out)?;
    let mut tag = Vec::new();
    file.seal(head_frame(), &mut tag)?;
    let mut sealed = compressed;
    file.seal(body_frame(lengths), &mut sealed)?;
    out.append(&mut tag);
    out.append(&mut sealed);
    Ok(out)
}

/// Opens a segment and checks that it contains what its header lists. `name` is for the errors.
///
/// # Errors
/// The fault, and its position.
pub fn open(name: &str, bytes: &[u8], key: &SealingKey) -> Result<Segment, ArchiveError> {
    let (header, lengths, file) = open_header(name, bytes, key)?;
    let body = bytes.get(HEADER_BYTES + TAG_BYTES..).unwrap_or_default();
    if body.len() != lengths.sealed as usize {
        let detail = format!("{} bytes where {} were written", body.len(), lengths.sealed);
        return Err(damaged(name, "its end", detail));
    }
    let mut sealed = body.to_vec();
    let compressed = file
        .open(body_frame(lengths), &mut sealed)
        .ok_or_else(|| damaged(name, "its entries", "they were altered"))?;
    let plain = zstd::bulk::decompress(compressed, lengths.plain as usize)
        .map_err(|e| damaged(name, "its entries", e.to_string()))?;
    let records = decode_records(&plain)
        .filter(|records| records.len() == lengths.entries as usize && plain.len() == lengths.plain as usize)
        .ok_or_else(|| damaged(name, "its entries", "they do not fit its header"))?;
    if !covers(&header, &records) {
        return Err(damaged(name, "its entries", "they are not those that its header names"));
    }
    Ok(Segment { header, records })
}

fn open_header(
    name: &str,
    bytes: &[u8],
    key: &SealingKey,
) -> Result<(SegmentHeader, Lengths, FileKey), ArchiveError> {
    if !bytes.starts_with(MAGIC) {
        return Err(ArchiveError::NotASegment { name: name.to_owned() });
    }
    let short = || damaged(name, "its header", "it ends too early");
    let (head, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(short)?;
    let mut tag = *rest.first_chunk::<TAG_BYTES>().ok_or_else(short)?;
    let mut input = Input(head);
    let parsed = input.header().ok_or_else(|| damaged(name, "its header", "its fields do not fit together"));
    let (format, fields) = parsed?;
    let Some((header, lengths, key_id, salt)) = fields else {
        return Err(ArchiveError::UnknownFormat { name: name.to_owned(), format, known: FORMAT });
    };
    let Some(key) = key.named(&key_id)? else {
        return Err(ArchiveError::OtherKey { name: name.to_owned(), key_id: hex::encode(&key_id) });
    };
    let file = FileKey::derive(key, LABEL, &salt, head)?;
    if file.open(head_frame(), &mut tag).is_none() {
        return Err(damaged(name, "its header", "it was altered"));
    }
    let is_bounded = lengths.plain as usize <= MAX_PLAIN_BYTES && lengths.entries as usize <= SEGMENT_ENTRIES;
    if !is_bounded {
        return Err(damaged(name, "its header", "its lengths are out of bounds"));
    }
    Ok((header, lengths, file))
}

/// True if the records are those that the header lists.
fn covers(header: &SegmentHeader, records: &[LogRecord]) -> bool {
    let (first, last) = (header.first.index, header.last.index);
    let ascending = records.windows(2).all(|pair| match pair {
        [a, b] => a.index < b.index && a.term <= b.term,
        _ => true,
    });
    let within = records.iter().all(|record| (first..=last).contains(&record.index));
    let whole = || {
        records.first().is_some_and(|record| record.id() == header.first)
            && records
                .last()
                .is_some_and(|record| record.id() == header.last && digest(record) == header.after)
            && records.len() as u64 == (last - first).saturating_add(1)
    };
    first <= last && ascending && within && (header.kind == ObjectKind::RevocationJournal || whole())
}

#[derive(Clone, Copy)]
struct Lengths {
    entries: u32,
    plain: u32,
    sealed: u32,
}

const fn head_frame() -> Frame {
    Frame { kind: file_seal::HEADER, table: 0, plain_len: 0, sequence: 0 }
}

const fn body_frame(lengths: Lengths) -> Frame {
    Frame { kind: file_seal::CHUNK, table: 0, plain_len: lengths.plain, sequence: 0 }
}

fn encode_header(
    header: &SegmentHeader,
    lengths: Lengths,
    key_id: &[u8; KEY_ID_BYTES],
    salt: &[u8; SALT_BYTES],
) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&FORMAT.to_be_bytes());
    out.push(match header.kind {
        ObjectKind::Log | ObjectKind::Snapshot => 0,
        ObjectKind::RevocationJournal => 1,
    });
    out.extend_from_slice(&header.cluster);
    let numbers = [
        header.epoch,
        header.first.term,
        header.first.index,
        header.last.term,
        header.last.index,
        header.first_ms,
        header.last_ms,
    ];
    out.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    out.push(u8::from(header.before.is_some()));
    out.extend_from_slice(&header.before.unwrap_or_default());
    out.extend_from_slice(&header.after);
    out.extend(
        [lengths.entries, lengths.plain, lengths.sealed].iter().flat_map(|length| length.to_be_bytes()),
    );
    out.extend_from_slice(key_id);
    out.extend_from_slice(salt);
    out
}

fn encode_records(records: &[LogRecord]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        out.extend_from_slice(&record.term.to_be_bytes());
        out.extend_from_slice(&record.index.to_be_bytes());
        out.extend_from_slice(&narrow(record.payload.len()).to_be_bytes());
        out.extend_from_slice(&record.payload);
    }
    out
}

fn decode_records(plain: &[u8]) -> Option<Vec<LogRecord>> {
    let mut input = Input(plain);
    let mut records = Vec::new();
    while !input.0.is_empty() {
        let (term, index, length) = (input.u64()?, input.u64()?, input.u32()? as usize);
        let (payload, rest) = input.0.split_at_checked(length)?;
        input.0 = rest;
        records.push(LogRecord { term, index, payload: payload.to_vec() });
    }
    Some(records)
}

/// Lengths here are bounded far below.
fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn damaged(name: &str, at: &'static str, detail: impl Into<String>) -> ArchiveError {
    ArchiveError::Damaged { name: name.to_owned(), at, detail: detail.into() }
}

type Fields = (SegmentHeader, Lengths, [u8; KEY_ID_BYTES], [u8; SALT_BYTES]);

/// A cursor that never reads past its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.take::<1>()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn log_id(&mut self) -> Option<LogId> {
        Some(LogId { term: self.u64()?, index: self.u64()? })
    }

    /// Reads the format, and the fields if the format is known. Nothing in them is verified yet.
    fn header(&mut self) -> Option<(u16, Option<Fields>)> {
        self.take::<8>()?;
        let format = self.take().map(u16::from_be_bytes)?;
        if format != FORMAT {
            return Some((format, None));
        }
        let kind = if self.flag()? { ObjectKind::RevocationJournal } else { ObjectKind::Log };
        let (cluster, epoch) = (self.take()?, self.u64()?);
        let (first, last) = (self.log_id()?, self.log_id()?);
        let (first_ms, last_ms) = (self.u64()?, self.u64()?);
        let (has_before, before) = (self.flag()?, self.take()?);
        let header = SegmentHeader {
            kind,
            cluster,
            epoch,
            first,
            last,
            first_ms,
            last_ms,
            before: has_before.then_some(before),
            after: self.take()?,
        };
        let lengths = Lengths { entries: self.u32()?, plain: self.u32()?, sealed: self.u32()? };
        Some((format, Some((header, lengths, self.take()?, self.take()?))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<LogRecord> {
        (7..12_u8)
            .map(|n| LogRecord { term: u64::from(n / 4), index: n.into(), payload: vec![n; 20] })
            .collect()
    }

    fn header(records: &[LogRecord]) -> SegmentHeader {
        SegmentHeader {
            kind: ObjectKind::Log,
            cluster: [3; 16],
            epoch: 2,
            first: records[0].id(),
            last: records.last().unwrap().id(),
            first_ms: 10,
            last_ms: 20,
            before: Some([9; 32]),
            after: digest(records.last().unwrap()),
        }
    }

    fn key(byte: u8) -> SealingKey {
        SealingKey::new([byte; 32])
    }

    fn sealed(header: &SegmentHeader, records: &[LogRecord]) -> Vec<u8> {
        seal(header, records, &key(1), |salt| salt.fill(5)).unwrap()
    }

    #[test]
    fn a_segment_comes_back() {
        let records = records();
        let bytes = sealed(&header(&records), &records);
        assert_eq!(open("a", &bytes, &key(1)).unwrap(), Segment { header: header(&records), records });
        assert!(!bytes.windows(20).any(|window| window == [8; 20]), "nothing lies in clear");
        assert!(matches!(open("a", &bytes, &key(2)), Err(ArchiveError::OtherKey { .. })));
    }

    #[test]
    fn every_altered_byte_and_every_cut_is_found() {
        let records = records();
        let bytes = sealed(&header(&records), &records);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut altered = bytes.clone();
                altered[at] ^= 1 << bit;
                assert!(open("a", &altered, &key(1)).is_err(), "byte {at}, bit {bit}");
            }
            assert!(open("a", &bytes[..at], &key(1)).is_err(), "cut at {at}");
        }
        assert!(open("a", &[bytes.as_slice(), &[0]].concat(), &key(1)).is_err(), "a byte too many");
    }

    #[test]
    fn a_body_under_another_header_is_found() {
        let records = records();
        let one = sealed(&header(&records), &records);
        let other = sealed(&SegmentHeader { epoch: 3, ..header(&records) }, &records);
        let exchanged = [&one[..HEADER_BYTES + TAG_BYTES], &other[HEADER_BYTES + TAG_BYTES..]].concat();
        assert!(matches!(
            open("a", &exchanged, &key(1)),
            Err(ArchiveError::Damaged { at: "its entries", .. })
        ));
    }

    #[test]
    fn a_segment_of_the_log_holds_all_it_covers_and_one_of_the_journal_some() {
        let records = records();
        let some = [records[1].clone(), records[3].clone()];
        assert!(open("a", &sealed(&header(&records), &some), &key(1)).is_err());
        let journal = SegmentHeader { kind: ObjectKind::RevocationJournal, ..header(&records) };
        assert_eq!(open("a", &sealed(&journal, &some), &key(1)).unwrap().records, some);
        let outside = [LogRecord { index: 99, ..records[0].clone() }];
        assert!(open("a", &sealed(&journal, &outside), &key(1)).is_err());
    }
}
