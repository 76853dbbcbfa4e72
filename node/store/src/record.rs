//! The encoding of an entry and of the log's facts on disk. Pure: bytes in, bytes out.
//!
//! Integers are big-endian. An entry is
//!
//! ```text
//! version u8 = 1 | crc32c u32 | previous crc32c u32 | term u64 | index u64 | payload length u32 | payload
//! ```
//!
//! where the checksum covers everything after it, so it covers the previous entry's checksum too. The entries form a
//! chain: none can be lost, exchanged or altered without breaking it. The facts ([`Facts`]) hold both ends of the
//! chain.

use super::log::{LogId, LogRecord, LogState, MAX_PAYLOAD_BYTES, MAX_VOTE_BYTES};

const VERSION: u8 = 1;
pub(super) const HEADER_BYTES: usize = 1 + 4 + 4 + 8 + 8 + 4;

/// An entry with the two checksums that link it into the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chained {
    pub record: LogRecord,
    pub crc: u32,
    pub previous: u32,
}

/// Encodes a record that follows the checksum `previous`. Returns its bytes and its own checksum.
pub(super) fn encode(record: &LogRecord, previous: u32) -> (Vec<u8>, u32) {
    let mut out = Vec::with_capacity(HEADER_BYTES + record.payload.len());
    out.push(VERSION);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&previous.to_be_bytes());
    out.extend_from_slice(&record.term.to_be_bytes());
    out.extend_from_slice(&record.index.to_be_bytes());
    let len = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&record.payload);
    let crc = out.get(5..).map_or(0, crc32c::crc32c);
    if let Some(slot) = out.get_mut(1..5) {
        slot.copy_from_slice(&crc.to_be_bytes());
    }
    (out, crc)
}

/// Decodes one record. The text of an error describes what is wrong with it.
pub(super) fn decode(bytes: &[u8]) -> Result<Chained, String> {
    let mut input = Input(bytes);
    input.version()?;
    let crc = input.u32()?;
    let actual = crc32c::crc32c(input.0);
    if actual != crc {
        return Err(format!("checksum is {actual:08x}, {crc:08x} was written"));
    }
    let previous = input.u32()?;
    let (term, index) = (input.u64()?, input.u64()?);
    let len = input.u32()? as usize;
    if len > MAX_PAYLOAD_BYTES || len != input.0.len() {
        return Err(format!("payload of {} bytes where {len} were written", input.0.len()));
    }
    Ok(Chained { record: LogRecord { term, index, payload: input.0.to_vec() }, crc, previous })
}

/// The facts beside the entries, rewritten with every batch and atomically with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Counts the batches of this log for ever; see `sled_log::mark`.
    pub sequence: u64,
    pub state: LogState,
    /// The value that the first entry's `previous` must have: the checksum of the entry purged last.
    pub anchor_crc: u32,
    /// The checksum of the last entry, `anchor_crc` if there is none.
    pub last_crc: u32,
}

impl Facts {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, 0, 0, 0, 0];
        out.extend_from_slice(&self.sequence.to_be_bytes());
        put_log_id(&mut out, self.state.purged);
        put_u64(&mut out, self.state.first_index);
        put_log_id(&mut out, self.state.last);
        put_log_id(&mut out, self.state.committed);
        out.extend_from_slice(&self.anchor_crc.to_be_bytes());
        out.extend_from_slice(&self.last_crc.to_be_bytes());
        out.push(u8::from(self.state.vote.is_some()));
        out.extend_from_slice(self.state.vote.as_deref().unwrap_or_default());
        let crc = out.get(5..).map_or(0, crc32c::crc32c);
        if let Some(slot) = out.get_mut(1..5) {
            slot.copy_from_slice(&crc.to_be_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut input = Input(bytes);
        input.version()?;
        let crc = input.u32()?;
        if crc32c::crc32c(input.0) != crc {
            return Err("checksum of the log's facts does not match".to_owned());
        }
        let sequence = input.u64()?;
        let purged = input.log_id()?;
        let first_index = input.option_u64()?;
        let last = input.log_id()?;
        let committed = input.log_id()?;
        let (anchor_crc, last_crc) = (input.u32()?, input.u32()?);
        let vote = match input.u8()? {
            0 => None,
            _ if input.0.len() > MAX_VOTE_BYTES => return Err("vote too long".to_owned()),
            _ => Some(input.0.to_vec()),
        };
        let state = LogState { purged, first_index, last, vote, committed };
        Ok(Self { sequence, state, anchor_crc, last_crc })
    }
}

fn put_u64(out: &mut Vec<u8>, value: Option<u64>) {
    out.push(u8::from(value.is_some()));
    out.extend_from_slice(&value.unwrap_or_default().to_be_bytes());
}

fn put_log_id(out: &mut Vec<u8>, id: Option<LogId>) {
    put_u64(out, id.map(|id| id.term));
    out.extend_from_slice(&id.map_or(0, |id| id.index).to_be_bytes());
}

/// A cursor that never reads past its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or("ends too early")?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_be_bytes)
    }

    fn version(&mut self) -> Result<(), String> {
        match self.u8()? {
            VERSION => Ok(()),
            other => Err(format!("record version {other} is unknown to this release")),
        }
    }

    fn option_u64(&mut self) -> Result<Option<u64>, String> {
        let present = self.u8()? != 0;
        let value = self.u64()?;
        Ok(present.then_some(value))
    }

    fn log_id(&mut self) -> Result<Option<LogId>, String> {
        let term = self.option_u64()?;
        let index = self.u64()?;
        Ok(term.map(|term| LogId { term, index }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn log_id()(term: u64, index: u64) -> LogId { LogId { term, index } }
    }

    proptest! {
        #[test]
        fn a_record_comes_back_with_its_place_in_the_chain(
            term: u64, index: u64, previous: u32, payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let record = LogRecord { term, index, payload };
            let (bytes, crc) = encode(&record, previous);
            prop_assert_eq!(decode(&bytes), Ok(Chained { record, crc, previous }));
        }

        #[test]
        fn a_record_with_one_bit_changed_is_refused(
            payload in prop::collection::vec(any::<u8>(), 0..100), at: prop::sample::Index, bit in 0..8_u8,
        ) {
            let (mut bytes, _) = encode(&LogRecord { term: 3, index: 9, payload }, 7);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
            prop_assert!(decode(&bytes[..at]).is_err());
        }

        #[test]
        fn facts_come_back(
            sequence: u64, purged in prop::option::of(log_id()), first_index: Option<u64>,
            last in prop::option::of(log_id()), committed in prop::option::of(log_id()),
            vote in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), anchor_crc: u32, last_crc: u32,
        ) {
            let state = LogState { purged, first_index, last, vote, committed };
            let facts = Facts { sequence, state, anchor_crc, last_crc };
            prop_assert_eq!(Facts::decode(&facts.encode()), Ok(facts));
        }
    }
}
