//! The encoding of entries, votes and memberships on disk. It is our own, so that a new release of openraft never
//! changes the content of an old disk. Integers are big-endian, lengths come first, and the first byte is the version.
//!
//! ```text
//! entry       1 | kind u8 | body             kind 0 blank: empty; 1 normal: the payload; 2: a membership
//! membership  configs u16 × (ids u16 × id u64) | members u16 × (id u64 | addr u16+ | url u16+ | incarnation 16)
//! stored      1 | has id u8 | term u64 | index u64 | membership
//! vote        1 | term u64 | node u64 | committed u8
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use openraft::EntryPayload;
use openraft::impls::leader_id_std::LeaderId;
use openraft::type_config::alias::CommittedLeaderIdOf;

use crate::types::{Config, Member, NodeId, Payload, RaftLogEntry, RaftLogId, StoredMembership, Vote};
use conclave_store as store;

type Membership = openraft::Membership<NodeId, Member>;

const VERSION: u8 = 1;
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Encodes an entry as a record.
pub(super) fn encode_entry(entry: &RaftLogEntry) -> store::LogRecord {
    let mut payload = vec![VERSION];
    match &entry.payload {
        EntryPayload::Blank => payload.push(BLANK),
        EntryPayload::Normal(Payload(bytes)) => {
            payload.push(NORMAL);
            payload.extend_from_slice(bytes);
        }
        EntryPayload::Membership(membership) => {
            payload.push(MEMBERSHIP);
            put_membership(&mut payload, membership);
        }
    }
    let store::LogId { term, index } = plain(entry.log_id);
    store::LogRecord { term, index, payload }
}

/// Decodes the entry of a record.
pub(crate) fn decode_entry(record: &store::LogRecord) -> io::Result<RaftLogEntry> {
    let log_id = raft_id(record.id());
    let mut input = Input(&record.payload);
    input.version()?;
    let payload = match input.u8()? {
        BLANK => input.end().map(|()| EntryPayload::Blank)?,
        NORMAL => EntryPayload::Normal(Payload(input.0.to_vec())),
        MEMBERSHIP => {
            let membership = input.membership()?;
            input.end()?;
            EntryPayload::Membership(membership)
        }
        kind => return Err(bad(format!("entry kind {kind} is unknown to this release"))),
    };
    Ok(RaftLogEntry { log_id, payload })
}

/// The encoded `conclave.command.v1.LogEntry` of a record; `None` for a blank or a membership.
pub fn command_entry(record: &store::LogRecord) -> Option<&[u8]> {
    record.payload.strip_prefix(&[VERSION, NORMAL])
}

pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&vote.leader_id.term.to_be_bytes());
    out.extend_from_slice(&vote.leader_id.voted_for.to_be_bytes());
    out.push(u8::from(vote.committed));
    out
}

pub(super) fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    let mut input = Input(bytes);
    input.version()?;
    let leader_id = LeaderId { term: input.u64()?, voted_for: input.u64()? };
    let committed = input.flag()?;
    input.end()?;
    Ok(Vote { leader_id, committed })
}

/// Encodes a membership with the log id of its entry, as the header of a snapshot carries it.
pub fn encode_stored_membership(stored: &StoredMembership) -> Vec<u8> {
    let id = (*stored.log_id()).map(plain);
    let mut out = vec![VERSION, u8::from(id.is_some())];
    let id = id.unwrap_or(store::LogId { term: 0, index: 0 });
    out.extend_from_slice(&id.term.to_be_bytes());
    out.extend_from_slice(&id.index.to_be_bytes());
    put_membership(&mut out, stored.membership());
    out
}

pub fn decode_stored_membership(bytes: &[u8]) -> io::Result<StoredMembership> {
    let mut input = Input(bytes);
    input.version()?;
    let present = input.flag()?;
    let id = store::LogId { term: input.u64()?, index: input.u64()? };
    let membership = input.membership()?;
    input.end()?;
    Ok(StoredMembership::new(present.then(|| raft_id(id)), membership))
}

/// Converts openraft's log id to the store's.
pub(super) fn plain(id: RaftLogId) -> store::LogId {
    store::LogId { term: id.leader_id.term, index: id.index }
}

/// Converts the store's log id to openraft's.
pub(crate) fn raft_id(id: store::LogId) -> RaftLogId {
    RaftLogId::new(CommittedLeaderIdOf::<Config>::new(id.term), id.index)
}

fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    let configs = membership.get_joint_config();
    put_count(out, configs.len());
    for config in configs {
        put_count(out, config.len());
        for id in config {
            out.extend_from_slice(&id.to_be_bytes());
        }
    }
    put_count(out, membership.nodes().count());
    for (id, member) in membership.nodes() {
        out.extend_from_slice(&id.to_be_bytes());
        put_text(out, &member.cluster_addr);
        put_text(out, &member.api_url);
        out.extend_from_slice(&member.incarnation);
    }
}

/// Counts and texts beyond 65,535 do not occur: an address is checked when a member joins, and the log refuses an entry
/// that large.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn bad(detail: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail.into())
}

/// A cursor that never reads past its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| bad("ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> io::Result<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn count(&mut self) -> io::Result<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn flag(&mut self) -> io::Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(bad(format!("flag holds {other}"))),
        }
    }

    fn version(&mut self) -> io::Result<()> {
        match self.u8()? {
            VERSION => Ok(()),
            other => Err(bad(format!("version {other} is unknown to this release"))),
        }
    }

    fn end(&self) -> io::Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(bad(format!("{} bytes too many", self.0.len()))) }
    }

    fn text(&mut self) -> io::Result<String> {
        let len = usize::from(self.count()?);
        let (text, rest) = self.0.split_at_checked(len).ok_or_else(|| bad("ends too early"))?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| bad("text is not utf-8"))
    }

    fn member(&mut self) -> io::Result<(NodeId, Member)> {
        let id = self.u64()?;
        let (cluster_addr, api_url) = (self.text()?, self.text()?);
        Ok((id, Member { cluster_addr, api_url, incarnation: self.take()? }))
    }

    fn membership(&mut self) -> io::Result<Membership> {
        let mut configs = Vec::new();
        for _ in 0..self.count()? {
            let ids = self.count()?;
            configs.push((0..ids).map(|_| self.u64()).collect::<io::Result<BTreeSet<_>>>()?);
        }
        let count = self.count()?;
        let members = (0..count).map(|_| self.member()).collect::<io::Result<BTreeMap<_, _>>>()?;
        if configs.is_empty() && members.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(configs, members).map_err(|e| bad(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member() -> impl Strategy<Value = Member> {
        (".{0,20}", ".{0,20}", any::<[u8; 16]>()).prop_map(|(cluster_addr, api_url, incarnation)| Member {
            cluster_addr,
            api_url,
            incarnation,
        })
    }

    prop_compose! {
        fn membership()(
            members in prop::collection::btree_map(any::<u64>(), member(), 1..6),
            joint in any::<bool>(),
        ) -> Membership {
            let ids: BTreeSet<_> = members.keys().copied().collect();
            let half: BTreeSet<_> = ids.iter().take(ids.len().div_ceil(2)).copied().collect();
            Membership::new(if joint { vec![half, ids] } else { vec![half] }, members).unwrap()
        }
    }

    fn payload() -> impl Strategy<Value = EntryPayload<Payload, NodeId, Member>> {
        prop_oneof![
            Just(EntryPayload::Blank),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| EntryPayload::Normal(Payload(bytes))),
            membership().prop_map(EntryPayload::Membership),
        ]
    }

    proptest! {
        #[test]
        fn an_entry_comes_back(term: u64, index: u64, payload in payload()) {
            let entry = RaftLogEntry { log_id: raft_id(store::LogId { term, index }), payload };
            prop_assert_eq!(decode_entry(&encode_entry(&entry)).unwrap(), entry);
        }

        #[test]
        fn an_entry_cut_short_is_refused_or_a_shorter_payload(membership in membership(), at: prop::sample::Index) {
            let log_id = raft_id(store::LogId { term: 1, index: 1 });
            let mut record = encode_entry(&RaftLogEntry { log_id, payload: EntryPayload::Membership(membership) });
            record.payload.truncate(at.index(record.payload.len()));
            prop_assert!(decode_entry(&record).is_err());
        }

        #[test]
        fn a_vote_comes_back(term: u64, voted_for: u64, committed: bool) {
            let vote = Vote { leader_id: LeaderId { term, voted_for }, committed };
            prop_assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
        }

        #[test]
        fn a_stored_membership_comes_back(id in prop::option::of(any::<(u64, u64)>()), membership in membership()) {
            let id = id.map(|(term, index)| raft_id(store::LogId { term, index }));
            let stored = StoredMembership::new(id, membership);
            prop_assert_eq!(decode_stored_membership(&encode_stored_membership(&stored)).unwrap(), stored);
        }
    }

    #[test]
    fn an_empty_membership_comes_back() {
        let stored = StoredMembership::default();
        assert_eq!(decode_stored_membership(&encode_stored_membership(&stored)).unwrap(), stored);
    }

    /// Disks written by this release must be readable for ever, so new bytes may be added here and none changed.
    #[test]
    fn the_bytes_on_disk_are_frozen() {
        let log_id = raft_id(store::LogId { term: 2, index: 3 });
        let normal = RaftLogEntry { log_id, payload: EntryPayload::Normal(Payload(vec![7, 8])) };
        assert_eq!(encode_entry(&normal).payload, [1, 1, 7, 8]);
        let member = Member { cluster_addr: "a".into(), api_url: "b".into(), incarnation: [9; 16] };
        let membership = Membership::new(vec![BTreeSet::from([5])], BTreeMap::from([(5, member)])).unwrap();
        let entry = RaftLogEntry { log_id, payload: EntryPayload::Membership(membership) };
        let mut expected = vec![1, 2, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5];
        expected.extend([0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 1, b'a', 0, 1, b'b']);
        expected.extend([9; 16]);
        assert_eq!(encode_entry(&entry).payload, expected);
        let vote = Vote { leader_id: LeaderId { term: 4, voted_for: 6 }, committed: true };
        assert_eq!(encode_vote(&vote), [1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 6, 1]);
    }
}
