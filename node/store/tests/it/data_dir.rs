//! The data directory: its ownership, and its exclusive use.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use conclave_store::{DataDir, DataDirIdentity, Flush, LogStore, Op, StoreError};

fn identity() -> DataDirIdentity {
    DataDirIdentity {
        cluster: None,
        lineage_epoch: 0,
        node_id: 2,
        joined: false,
        incarnation: [7; 16],
        secret_check: [9; 16],
    }
}

#[test]
fn a_fresh_directory_is_set_up_once_and_known_again() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a/b");
    let mut dir = DataDir::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(dir.identity(), None);
    assert!(dir.open_log().is_err());
    let mut log = dir.initialize(identity()).unwrap();
    log.commit(vec![Op::SaveVote(b"v".to_vec())], Flush::Durable).unwrap();
    drop(log);
    dir.save_identity(DataDirIdentity { cluster: Some([1; 16]), lineage_epoch: 3, ..identity() }).unwrap();
    assert!(dir.initialize(identity()).is_err());
    drop(dir);

    let dir = DataDir::open(&path).unwrap();
    assert_eq!(
        dir.identity(),
        Some(&DataDirIdentity { cluster: Some([1; 16]), lineage_epoch: 3, ..identity() })
    );
    assert_eq!(dir.open_log().unwrap().state().vote.as_deref(), Some(&b"v"[..]));
}

#[test]
fn a_directory_in_use_is_refused_and_names_the_process() {
    let temp = tempfile::tempdir().unwrap();
    let held = DataDir::open(temp.path()).unwrap();
    let error = DataDir::open(temp.path()).unwrap_err().to_string();
    let pid = std::process::id();
    assert!(error.contains(&format!("is in use by another conclave process (pid {pid})")), "{error}");
    drop(held);
    DataDir::open(temp.path()).unwrap();
}

#[test]
fn a_directory_with_other_files_is_refused_untouched() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("holiday.jpg"), b"x").unwrap();
    let error = DataDir::open(temp.path()).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }));
    assert!(
        error.to_string().contains("holiday.jpg") && error.to_string().contains("empty or new directory"),
        "{error}"
    );
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn an_identity_cut_short_or_changed_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    drop(DataDir::open(temp.path()).unwrap().initialize(identity()).unwrap());
    let file = temp.path().join("identity");
    let good = fs::read(&file).unwrap();
    for at in 0..good.len() {
        fs::write(&file, &good[..at]).unwrap();
        assert!(
            matches!(DataDir::open(temp.path()).unwrap_err(), StoreError::BadIdentity { .. }),
            "cut at {at}"
        );
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, bad).unwrap();
        assert!(
            matches!(DataDir::open(temp.path()).unwrap_err(), StoreError::BadIdentity { .. }),
            "byte {at}"
        );
    }
    fs::write(&file, good).unwrap();
    assert_eq!(DataDir::open(temp.path()).unwrap().identity(), Some(&identity()));
}

/// An empty log under an old identity would vote a second time in the same term.
#[test]
fn an_identity_whose_log_is_gone_gets_no_new_one() {
    let temp = tempfile::tempdir().unwrap();
    drop(DataDir::open(temp.path()).unwrap().initialize(identity()).unwrap());
    fs::remove_dir_all(temp.path().join("log")).unwrap();
    let error = DataDir::open(temp.path()).unwrap().open_log().err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn a_set_up_cut_off_before_the_identity_begins_again() {
    let temp = tempfile::tempdir().unwrap();
    drop(DataDir::open(temp.path()).unwrap().initialize(identity()).unwrap());
    fs::remove_file(temp.path().join("identity")).unwrap();
    fs::remove_file(temp.path().join("log/current")).unwrap();
    drop(DataDir::open(temp.path()).unwrap().initialize(identity()).unwrap());
}

#[test]
fn a_restore_that_was_cut_short_after_it_counted_is_ended_before_the_identity_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    let mut dir = DataDir::open(&path).unwrap();
    let old = DataDirIdentity { cluster: Some([1; 16]), ..identity() };
    drop(dir.initialize(old.clone()).unwrap());
    let new = DataDirIdentity { node_id: 4, joined: true, lineage_epoch: 9, ..old };
    let build = |log: &std::path::Path, _: &std::path::Path| conclave_store::SledLog::create(log).map(drop);
    let aside = dir.replace_contents(new.clone(), "1", build).unwrap().expect("what was there is kept");
    drop(dir);
    assert_eq!(DataDir::peek(&path).unwrap(), Some(new.clone()));
    // The state before the last steps of it.
    fs::create_dir(path.join("restoring")).unwrap();
    fs::rename(path.join("identity"), path.join("restoring/identity")).unwrap();
    fs::rename(aside.join("identity"), path.join("identity")).unwrap();
    fs::write(path.join("restored.mark"), aside.file_name().unwrap().as_encoded_bytes()).unwrap();
    assert_eq!(DataDir::peek(&path).unwrap(), Some(new), "not the one that lies there");
}
