//! Damage of every kind to the files: the log opens complete or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use conclave_store::{Flush, LogId, LogStore, Op, SledLog, StoreError};

use super::{all, append, record};

const ENTRIES: u64 = 400;

fn entries() -> Vec<conclave_store::LogRecord> {
    (0..ENTRIES).map(|i| record(1, i, format!("entry {i} {}", "x".repeat(200)).as_bytes())).collect()
}

/// A log with entries in many batches and a vote.
fn build(root: &Path) {
    let mut log = SledLog::create(root).unwrap();
    for batch in entries().chunks(7) {
        append(&mut log, batch.to_vec()).unwrap();
    }
    log.commit(vec![Op::SaveVote(b"vote".to_vec())], Flush::Durable).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Checks that the log opens complete or is refused: the only two valid results.
fn complete_or_refused(root: &Path, what: &str) -> bool {
    match SledLog::open(root) {
        Ok(log) => {
            assert_eq!(all(&log), entries(), "{what}: opened, but not complete");
            assert_eq!(log.state().vote.as_deref(), Some(&b"vote"[..]), "{what}: opened without its vote");
            true
        }
        Err(StoreError::Damaged { .. }) => false,
        Err(other) => panic!("{what}: damage must be called damage: {other}"),
    }
}

fn db(root: &Path) -> PathBuf {
    root.join("log-000001/db")
}

#[test]
fn a_log_with_a_flipped_byte_opens_complete_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    build(&good);
    let bytes = fs::read(db(&good)).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let mut refused = 0;
    for n in 0..60 {
        let bad = dir.path().join(format!("flip-{n}"));
        copy(&good, &bad);
        let mut bytes = bytes.clone();
        let at = used * (n + 1) / 61;
        bytes[at] ^= 0x10;
        fs::write(db(&bad), bytes).unwrap();
        refused += usize::from(!complete_or_refused(&bad, &format!("byte {at} flipped")));
        fs::remove_dir_all(&bad).unwrap();
    }
    assert!(refused > 0, "at least some of these bytes matter");
}

#[test]
fn a_log_cut_short_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    build(&good);
    let bytes = fs::read(db(&good)).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for cut in [used - 1, used - 40, used - 700, used / 2, used / 10, 100, 0] {
        let bad = dir.path().join(format!("cut-{cut}"));
        copy(&good, &bad);
        // A power loss leaves zeros as often as a short file.
        let mut zeroed = bytes.clone();
        zeroed[cut..].fill(0);
        fs::write(db(&bad), zeroed).unwrap();
        assert!(
            !complete_or_refused(&bad, &format!("zeroed from byte {cut}")),
            "zeroed from byte {cut}: not noticed"
        );
        fs::remove_dir_all(&bad).unwrap();
        copy(&good, &bad);
        fs::write(db(&bad), &bytes[..cut]).unwrap();
        assert!(!complete_or_refused(&bad, &format!("cut at byte {cut}")), "cut at byte {cut}: not noticed");
    }
}

/// An operator restores last night's copy of the engine's directory: the vote and the tail are older.
#[test]
fn an_older_copy_of_the_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("log");
    build(&root);
    let old = dir.path().join("old");
    copy(&root.join("log-000001"), &old);
    let mut log = SledLog::open(&root).unwrap();
    log.commit(vec![Op::SaveVote(b"newer".to_vec())], Flush::Durable).unwrap();
    drop(log);
    fs::remove_dir_all(root.join("log-000001")).unwrap();
    copy(&old, &root.join("log-000001"));
    let error = SledLog::open(&root).err().unwrap();
    assert!(error.to_string().contains("lost 1 batches that had been reported durable"), "{error}");
    assert!(error.to_string().contains("must not vote") && error.to_string().contains("rejoin"), "{error}");
}

type Edit<'a> = &'a dyn Fn(&sled::Db);

#[test]
fn entries_changed_behind_the_chain_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    build(&good);
    let at = |index: u64| [&b"r"[..], &index.to_be_bytes(), &[0, 0]].concat();
    let get = |db: &sled::Db, index| db.get(at(index)).unwrap().unwrap();
    let (last, beyond) = (ENTRIES - 1, ENTRIES);
    // An entry of another history: complete, in its place, of the right term.
    let mut other = SledLog::create(&dir.path().join("other")).unwrap();
    let mut forged = entries()[..=9].to_vec();
    forged[9].payload = b"forged".to_vec();
    append(&mut other, forged).unwrap();
    drop(other);
    let other = sled::open(dir.path().join("other/log-000001")).unwrap();
    let forged = other.get(at(9)).unwrap().unwrap();
    let edits: [(&str, Edit); 8] = [
        ("an entry of another history", &|db| drop(db.insert(at(9), forged.clone()).unwrap())),
        ("an entry in the middle removed", &|db| drop(db.remove(at(77)).unwrap())),
        ("the first entry removed", &|db| drop(db.remove(at(0)).unwrap())),
        ("the last entry removed", &|db| drop(db.remove(at(last)).unwrap())),
        ("an entry replaced by its neighbour", &|db| drop(db.insert(at(9), get(db, 8)).unwrap())),
        ("an entry torn", &|db| drop(db.insert(at(last), &get(db, last)[..90]).unwrap())),
        ("an entry added behind the last", &|db| drop(db.insert(at(beyond), get(db, last)).unwrap())),
        ("the facts removed", &|db| drop(db.remove("f").unwrap())),
    ];
    for (n, (what, edit)) in edits.into_iter().enumerate() {
        let bad = dir.path().join(n.to_string());
        copy(&good, &bad);
        let engine = sled::open(bad.join("log-000001")).unwrap();
        edit(&engine);
        engine.flush().unwrap();
        drop(engine);
        assert!(!complete_or_refused(&bad, what), "{what}: not noticed");
    }
}

#[test]
fn a_missing_log_or_pointer_or_mark_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    build(&good);
    for (n, gone) in ["current", "mark", "log-000001", "log-000001/db"].into_iter().enumerate() {
        let bad = dir.path().join(n.to_string());
        copy(&good, &bad);
        if bad.join(gone).is_dir() {
            fs::remove_dir_all(bad.join(gone)).unwrap();
        } else {
            fs::remove_file(bad.join(gone)).unwrap();
        }
        assert!(SledLog::open(&bad).is_err(), "{gone} missing");
        assert!(SledLog::create(&bad).is_err(), "{gone} missing: nor may a new log take its place");
    }
    assert!(SledLog::open(&dir.path().join("nowhere")).is_err());
}

#[test]
fn what_a_crash_leaves_of_sleds_start_up_snapshot_does_not_keep_the_log_shut() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("log");
    build(&root);
    let left = root.join("log-000001/snap.00000000000000FF.generating");
    fs::write(&left, b"five!").unwrap();
    assert!(complete_or_refused(&root, "a leftover start-up snapshot"));
    assert!(!left.exists());
}

#[test]
fn a_rewrite_cut_off_at_any_point_leaves_one_good_copy() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    build(&good);
    // Before the pointer moved: an incomplete or a complete next directory exists beside the current one.
    for (name, fill) in [("half", false), ("complete", true)] {
        let root = dir.path().join(name);
        copy(&good, &root);
        let next = root.join("log-000002");
        if fill {
            copy(&good.join("log-000001"), &next);
        } else {
            fs::create_dir(&next).unwrap();
        }
        fs::write(root.join("current.tmp"), b"2").unwrap();
        assert!(complete_or_refused(&root, name));
        assert!(!next.exists(), "{name}");
        SledLog::open(&root).unwrap().rewrite().unwrap();
        assert!(complete_or_refused(&root, name));
    }
    // After: the old directory is still there.
    let root = dir.path().join("after");
    copy(&good, &root);
    fs::rename(root.join("log-000001"), root.join("log-000002")).unwrap();
    fs::create_dir(root.join("log-000001")).unwrap();
    fs::write(root.join("current"), b"2\n").unwrap();
    assert!(complete_or_refused(&root, "after"));
    assert!(!root.join("log-000001").exists());
}

#[test]
fn a_creation_cut_off_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("log");
    drop(SledLog::create(&root).unwrap());
    fs::remove_file(root.join("current")).unwrap();
    let mut log = SledLog::create(&root).unwrap();
    append(&mut log, vec![record(1, 0, b"first")]).unwrap();
    assert_eq!(log.state().last, Some(LogId { term: 1, index: 0 }));
}
