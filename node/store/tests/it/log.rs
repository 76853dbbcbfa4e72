//! The rules of the log, equal for the disk and for memory, and the contents of a reopened disk log.

use conclave_store::log::MAX_PAYLOAD_BYTES;
use conclave_store::{Flush, LogId, LogRecord, LogStore, MemLog, Op, SledLog, StoreError};
use proptest::prelude::*;

use super::{all, append, record};

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn commit(store: &mut impl LogStore, ops: Vec<Op>) {
    store.commit(ops, Flush::Durable).unwrap();
}

#[test]
fn a_reopened_log_knows_entries_vote_committed_and_purged() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("log");
    let mut log = SledLog::create(&root).unwrap();
    let records: Vec<_> = (0..50).map(|i| record(1, i, format!("entry {i}").as_bytes())).collect();
    append(&mut log, records.clone()).unwrap();
    commit(
        &mut log,
        vec![Op::SaveVote(b"vote".to_vec()), Op::SaveCommitted(Some(id(1, 40))), Op::Purge(id(1, 9))],
    );
    commit(&mut log, vec![Op::TruncateAfter(Some(44)), Op::Append(vec![record(2, 45, b"anew")])]);
    let state = log.state();
    drop(log);

    let log = SledLog::open(&root).unwrap();
    assert_eq!(log.state(), state);
    assert_eq!(state.vote.as_deref(), Some(&b"vote"[..]));
    assert_eq!((state.committed, state.purged), (Some(id(1, 40)), Some(id(1, 9))));
    assert_eq!((state.first_index, state.last), (Some(10), Some(id(2, 45))));
    let mut expected = records[10..45].to_vec();
    expected.push(record(2, 45, b"anew"));
    assert_eq!(all(&log), expected);
}

#[test]
fn a_log_purged_to_its_end_or_beyond_goes_on_behind_it_after_a_restart() {
    for upto in [4, 100] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("log");
        let mut log = SledLog::create(&root).unwrap();
        append(&mut log, (0..5).map(|i| record(1, i, b"x")).collect()).unwrap();
        commit(&mut log, vec![Op::Purge(id(3, upto))]);
        drop(log);
        let mut log = SledLog::open(&root).unwrap();
        assert_eq!((log.state().last, log.state().last_or_purged()), (None, Some(id(3, upto))));
        assert!(matches!(append(&mut log, vec![record(3, upto + 2, b"y")]), Err(StoreError::Misuse(_))));
        drop(log);
        let mut log = SledLog::open(&root).unwrap();
        append(&mut log, vec![record(3, upto + 1, b"y")]).unwrap();
        drop(log);
        assert_eq!(all(&SledLog::open(&root).unwrap()), [record(3, upto + 1, b"y")]);
    }
}

#[test]
fn holes_overlaps_old_terms_and_oversized_entries_are_refused_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let bad = [
        record(2, 7, b""),
        record(2, 5, b""),
        record(1, 6, b""),
        record(2, 6, &vec![0; MAX_PAYLOAD_BYTES + 1]),
    ];
    for (n, bad) in bad.into_iter().enumerate() {
        let mut log = SledLog::create(&dir.path().join(n.to_string())).unwrap();
        append(&mut log, vec![record(2, 5, b"first")]).unwrap();
        let error = append(&mut log, vec![bad.clone()]).unwrap_err();
        assert!(matches!(error, StoreError::Misuse(_) | StoreError::TooLarge { .. }), "{error}");
        let error = append(&mut log, vec![record(2, 6, b"fine")]).unwrap_err();
        assert!(matches!(error, StoreError::Stopped(_)), "an error is for ever: {error}");
        let mut mem = MemLog::new();
        append(&mut mem, vec![record(2, 5, b"first")]).unwrap();
        append(&mut mem, vec![bad]).unwrap_err();
    }
}

/// A page of sled larger than 128 KiB would go to a file of its own that sled never syncs.
#[test]
fn the_largest_entries_come_back_and_stay_in_the_one_file_that_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("log");
    let mut log = SledLog::create(&root).unwrap();
    let large = |i: u64| record(1, i, &vec![u8::try_from(i % 251).unwrap(); MAX_PAYLOAD_BYTES]);
    let blobs = || std::fs::read_dir(root.join("log-000001/blobs")).unwrap().count();
    for round in 0..12 {
        append(&mut log, (round * 20..(round + 1) * 20).map(large).collect()).unwrap();
        commit(
            &mut log,
            vec![
                Op::TruncateAfter(Some(round * 20 + 9)),
                Op::Append((round * 20 + 10..(round + 1) * 20).map(large).collect()),
            ],
        );
        if round > 2 {
            commit(&mut log, vec![Op::Purge(id(1, round * 20 - 40))]);
        }
        assert_eq!(blobs(), 0, "round {round}");
    }
    drop(log);
    let log = SledLog::open(&root).unwrap();
    assert_eq!(blobs(), 0);
    assert_eq!(all(&log), (181..240).map(large).collect::<Vec<_>>());
}

#[test]
fn a_read_is_bounded_by_bytes_but_gives_at_least_one_entry() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = SledLog::create(&dir.path().join("log")).unwrap();
    let mut mem = MemLog::new();
    let records: Vec<_> = (0..10).map(|i| record(1, i, &[0; 100])).collect();
    append(&mut log, records.clone()).unwrap();
    append(&mut mem, records).unwrap();
    for reader in [log.reader(), mem.reader()] {
        let count = |from, to, bytes| reader.read(from, to, bytes).unwrap().len();
        assert_eq!(
            [count(2, 9, 350), count(2, 9, 1), count(2, 4, 10_000), count(8, 99, 10_000)],
            [3, 1, 2, 2]
        );
        assert_eq!(count(5, 5, 100), 0);
    }
}

#[test]
fn a_rewritten_log_is_the_same_log_and_leaves_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("log");
    let mut log = SledLog::create(&root).unwrap();
    append(&mut log, (0..100).map(|i| record(1, i, &vec![1; 9000])).collect()).unwrap();
    commit(&mut log, vec![Op::SaveVote(b"v".to_vec()), Op::Purge(id(1, 89))]);
    let (state, entries) = (log.state(), all(&log));
    let reader = log.reader();
    log.rewrite().unwrap();
    assert_eq!(reader.read(0, u64::MAX, usize::MAX).unwrap(), entries, "a reader follows the rewrite");
    append(&mut log, vec![record(1, 100, b"after")]).unwrap();
    drop((log, reader));
    let dirs: Vec<_> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("log-"))
        .collect();
    assert_eq!(dirs, ["log-000002"]);
    let log = SledLog::open(&root).unwrap();
    assert_eq!(log.state().vote, state.vote);
    assert_eq!(all(&log)[..10], entries[..]);
    assert_eq!(all(&log)[10], record(1, 100, b"after"));
}

#[test]
fn a_log_far_larger_on_disk_than_its_entries_is_rewritten_when_the_writer_is_idle() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("log");
    let mut log = SledLog::create(&root).unwrap();
    for round in 0..50_u64 {
        let at = round * 32;
        append(&mut log, (at..at + 32).map(|i| record(1, i, &vec![7; MAX_PAYLOAD_BYTES])).collect()).unwrap();
    }
    log.idle().unwrap();
    assert!(root.join("log-000001").exists(), "all of it is alive");
    commit(&mut log, vec![Op::Purge(id(1, 1590))]);
    log.idle().unwrap();
    assert!(!root.join("log-000001").exists() && root.join("log-000002").exists());
    assert_eq!(all(&log).len(), 9);
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Append(usize, usize),
    Truncate(u64),
    Purge(u64),
    Vote(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_usize, prop_oneof![0..200_usize, 5000..5200_usize, Just(MAX_PAYLOAD_BYTES)]).prop_map(|(n, size)| Step::Append(n, size)),
        1 => (0..8_u64).prop_map(Step::Truncate),
        1 => (0..12_u64).prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Memory is the model: after any history, restarts included, the disk holds the same.
    #[test]
    fn disk_and_memory_agree_after_any_history(steps in prop::collection::vec(step(), 1..25)) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("log");
        let mut disk = SledLog::create(&root).unwrap();
        let mut mem = MemLog::new();
        for (term, step) in (1..).zip(steps) {
            let ops = match step {
                Step::Reopen => {
                    drop(disk);
                    disk = SledLog::open(&root).unwrap();
                    continue;
                }
                other => ops(&other, term, &mem),
            };
            disk.commit(ops.clone(), Flush::Durable).unwrap();
            mem.commit(ops, Flush::Durable).unwrap();
            prop_assert_eq!(disk.state(), mem.state());
        }
        prop_assert_eq!(all(&disk), all(&mem));
        prop_assert!(disk.reader().bytes_after(0) >= mem.reader().bytes_after(0));
    }
}

fn ops(step: &Step, term: u64, mem: &MemLog) -> Vec<Op> {
    let state = mem.state();
    let last = state.last_or_purged().map_or(0, |id| id.index);
    match *step {
        Step::Append(n, size) => {
            let next = state.next_index().unwrap_or(1);
            let fresh: Vec<LogRecord> =
                (next..next + n as u64).map(|i| record(term, i, &vec![9; size])).collect();
            vec![Op::Append(fresh)]
        }
        Step::Truncate(back) => vec![Op::TruncateAfter(Some(
            last.saturating_sub(back).max(state.purged.map_or(0, |id| id.index)),
        ))],
        Step::Purge(back) => {
            let upto = (last + 4).saturating_sub(back);
            let floor = state.last_or_purged().map_or(1, |id| id.term);
            let term =
                all(mem).iter().find(|record| record.index == upto).map_or(floor, |record| record.term);
            vec![Op::Purge(id(term, upto))]
        }
        Step::Vote(byte) => vec![Op::SaveVote(vec![byte; 17])],
        Step::Reopen => vec![],
    }
}
