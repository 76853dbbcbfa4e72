//! The simulator finds nothing in the correct rules, and finds each known bug; each invariant catches a bug by itself.

use conclave_chaos::{
    oracle::Oracle,
    report,
    rules::{self, mutation::ReplicaMutation},
};

/// Seeds within which a bug must show.
const WAIT_LIMIT: u64 = 60;

fn caught_by(invariant: &str, mutation: ReplicaMutation) -> Option<u64> {
    (1..=WAIT_LIMIT).find(|seed| {
        rules::run(*seed, mutation, Oracle::only(invariant)).is_err_and(|seen| seen.invariant == invariant)
    })
}

#[test]
fn fifty_histories_break_no_promise() {
    let report = report::run(1, 50, ReplicaMutation::None);
    assert!(report.failed.is_empty(), "{}", report.table());
    // Histories in which nothing happens would pass as well.
    let json = report.json();
    for count in ["repeated_requests", "restarts", "snapshots_taken_over", "leader_changes"] {
        assert!(json["counts"][count].as_u64().unwrap() > 50, "{}", report.table());
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let run = || rules::run(7, ReplicaMutation::None, Oracle::default()).unwrap();
    assert_eq!(run(), run());
}

#[test]
fn every_known_bug_is_caught_and_told_how_to_see_it_again() {
    for (name, mutation) in ReplicaMutation::ALL.iter().filter(|(name, _)| *name != "none") {
        let report = report::run(1, 10, *mutation);
        let (seed, _) = report.failed.first().unwrap_or_else(|| panic!("{name} was not caught"));
        assert!(
            report.table().contains(&format!("--seed {seed} --seeds 1 --mutate {name}")),
            "{}",
            report.table()
        );
    }
}

#[test]
fn each_invariant_sees_its_bug_without_the_help_of_the_others() {
    for (invariant, mutation) in [
        ("equal-digests", ReplicaMutation::OwnClock),
        ("equal-digests", ReplicaMutation::EntrySkipped),
        ("replays-change-nothing", ReplicaMutation::RequestsForgotten),
        ("codes-once", ReplicaMutation::SnapshotTooOld),
        ("one-live-refresh-token", ReplicaMutation::SnapshotTooOld),
        ("revoked-stays-revoked", ReplicaMutation::EntrySkipped),
        ("users-stay", ReplicaMutation::SnapshotOmitsUsers),
    ] {
        let seed = caught_by(invariant, mutation);
        assert!(seed.is_some(), "{invariant} does not see {}", mutation.name());
    }
}
