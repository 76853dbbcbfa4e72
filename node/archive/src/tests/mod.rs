//! Tests of the archive over a faulty store: nothing is lost, order is kept, the alarm starts and ends.

mod faulty;
mod world;

use std::{sync::Arc, time::Duration};

use object_store::{local::LocalFileSystem, path::Path};
use proptest::prelude::*;

use super::{
    ArchiveError, ArchiveTarget,
    keep::RetentionPolicy,
    keeper,
    read::{RestoreFiles, Until},
};
use conclave_base::runtime::Clock as _;
use conclave_config as config;
use conclave_store::LogRecord;
use world::{World, stamp_of};

fn read(fetched: &RestoreFiles) -> Vec<LogRecord> {
    fetched.records().collect::<Result<_, _>>().unwrap()
}

fn revoked(fetched: &RestoreFiles, after: u64) -> Vec<u64> {
    fetched.revocations(after).map(|record| record.unwrap().index).collect()
}

async fn latest(world: &World) -> RestoreFiles {
    world.restore(Until::Latest).await.unwrap()
}

/// A world with a snapshot at entry 9 and the log to entry 59.
async fn sixty() -> (World, world::Archiving) {
    let world = World::new();
    let mut one = world.node(1);
    world.write(10);
    one.catch_up().await;
    one.keeper.tick().await;
    world.write(50);
    one.catch_up().await;
    (world, one)
}

#[tokio::test]
async fn the_log_comes_back_to_any_point() {
    let (world, one) = sixty().await;
    let fetched = latest(&world).await;
    assert_eq!(
        (fetched.plan.snapshot.last, fetched.plan.last_index, fetched.journal_complete_to),
        (9, 59, 59)
    );
    assert_eq!(read(&fetched), world.records(10, 59));
    assert_eq!(one.node.hold().archived, Some(59));

    for index in 9..60 {
        let fetched = world.restore(Until::Index(index)).await.unwrap();
        assert_eq!(read(&fetched), world.records(10, index), "to entry {index}");
        let later: Vec<u64> = (index + 1..60).filter(|index| index % 5 == 0).collect();
        assert_eq!(revoked(&fetched, index), later, "what was taken away after entry {index}");
        let fetched = world.restore(Until::TimeMs(stamp_of(index) + 3)).await.unwrap();
        assert_eq!(read(&fetched), world.records(10, index), "to the time of entry {index}");
    }
    let beyond = world.restore(Until::Index(60)).await;
    assert!(matches!(beyond, Err(ArchiveError::TooShort { last: 59, .. })));
    let early = world.restore(Until::Index(8)).await;
    assert!(matches!(early, Err(ArchiveError::NoSnapshot { .. })));
}

#[tokio::test]
async fn a_missing_segment_is_named_with_what_can_still_be_had() {
    let (world, _one) = sixty().await;
    let segments: Vec<Path> =
        world.store.written().into_iter().filter(|path| path.as_ref().contains("/log/")).collect();
    world.store.remove(&segments[4]).await;
    let refused = world.restore(Until::Latest).await.err().unwrap();
    let ArchiveError::Hole { from, to, reachable } = refused else { panic!("{refused}") };
    assert_eq!(to - from, 6, "one segment");
    assert_eq!(reachable + 1, from);
    let fetched = world.restore(Until::Index(reachable)).await.unwrap();
    assert_eq!(read(&fetched), world.records(10, reachable));
    assert!(matches!(world.restore(Until::Index(to)).await, Err(ArchiveError::Hole { .. })));
}

#[tokio::test]
async fn an_altered_or_exchanged_segment_is_found() {
    let (world, _one) = sixty().await;
    let segments: Vec<Path> =
        world.store.written().into_iter().filter(|path| path.as_ref().contains("/log/")).collect();
    let (good, other) = (world.store.bytes(&segments[4]).await, world.store.bytes(&segments[5]).await);
    world.store.overwrite(&segments[4], other).await;
    let Err(ArchiveError::Broken { source, reachable }) = world.restore(Until::Latest).await else {
        panic!()
    };
    assert!(matches!(*source, ArchiveError::Misplaced { .. }));
    let fetched = world.restore(Until::Index(reachable)).await.unwrap();
    assert_eq!(read(&fetched), world.records(10, reachable), "what lies before it can be had");
    for at in [0, 9, 40, 150, good.len() - 1] {
        let mut altered = good.clone();
        altered[at] ^= 4;
        world.store.overwrite(&segments[4], altered).await;
        assert!(world.restore(Until::Latest).await.is_err(), "byte {at}");
    }
    world.store.overwrite(&segments[4], good).await;
    assert_eq!(latest(&world).await.plan.last_index, 59);
}

#[tokio::test]
async fn a_segment_of_another_history_does_not_fit() {
    let (world, _one) = sixty().await;
    // A copy of the cluster: another entry 30, and everything else equal.
    let copy = World::new();
    let mut two = copy.node(2);
    copy.write(10);
    two.catch_up().await;
    copy.write(50);
    copy.alter(30);
    two.catch_up().await;
    let until_30 = |world: &World| {
        let ends_there =
            |path: &Path| path.as_ref().contains("/log/") && path.as_ref().contains("-00000000000000000030-");
        world.store.written().into_iter().find(ends_there).unwrap()
    };
    let foreign = copy.store.bytes(&until_30(&copy)).await;
    world.store.overwrite(&until_30(&world), foreign).await;
    let refused = world.restore(Until::Latest).await.err().unwrap();
    assert!(refused.to_string().contains("a segment was exchanged"), "{refused}");
}

#[tokio::test]
async fn an_archive_that_is_away_raises_the_alarm_and_loses_nothing() {
    let (world, mut one) = sixty().await;
    world.store.faults().away = true;
    world.write(30);
    let mut pause = one.shipper.tick().await;
    for _ in 0..6 {
        world.clock.advance(Duration::from_secs(3));
        let next = one.shipper.tick().await;
        assert!(next >= pause, "it asks less and less often");
        pause = next;
    }
    assert!(pause <= Duration::from_secs(5), "but is there soon when it is back");
    let status = one.node.status();
    assert_eq!((status.behind_entries, status.archived_index), (30, 59));
    assert!(status.behind_ms > 15_000, "{status:?}");
    assert!(status.last_error.contains("away"), "{status:?}");
    assert_eq!(one.node.hold().archived, Some(59), "the log keeps the rest");

    world.store.faults().away = false;
    one.catch_up().await;
    let status = one.node.status();
    assert_eq!((status.behind_ms, status.last_error.as_str()), (0, ""));
    assert_eq!(read(&latest(&world).await), world.records(10, 89));
}

#[tokio::test]
async fn a_call_that_hangs_leaves_nothing_undone_when_it_is_given_up() {
    let (world, mut one) = sixty().await;
    world.write(3);
    world.store.faults().hangs = true;
    {
        let mut tick = Box::pin(one.shipper.tick());
        assert!(futures_util::poll!(&mut tick).is_pending());
    }
    world.store.faults().hangs = false;
    one.catch_up().await;
    assert_eq!(read(&latest(&world).await), world.records(10, 62));
}

#[tokio::test]
async fn what_left_the_log_before_it_was_archived_is_said_and_bridged_by_a_snapshot() {
    let (world, mut one) = sixty().await;
    world.store.faults().away = true;
    world.write(40);
    one.shipper.tick().await;
    world.purge_before(80);
    world.write(5);
    world.store.faults().away = false;
    one.catch_up().await;
    assert_eq!(one.node.status().gap_before_index, 80);
    assert!(matches!(
        world.restore(Until::Latest).await,
        Err(ArchiveError::Hole { from: 60, to: 79, reachable: 59 })
    ));
    let old = world.restore(Until::Index(40)).await.unwrap();
    // The last piece of the journal before the gap covers the entries up to the end of its batch.
    assert_eq!(old.journal_complete_to, 58, "what was taken away in the gap is unknown");

    one.keeper.tick().await;
    assert_eq!(one.node.status().gap_before_index, 0);
    world.write(5);
    one.catch_up().await;
    let fetched = latest(&world).await;
    assert_eq!((fetched.plan.snapshot.last, fetched.journal_complete_to), (104, 109));
    assert_eq!(read(&fetched), world.records(105, 109));
}

#[tokio::test]
async fn a_copy_of_the_cluster_does_not_write_behind_it() {
    let (world, _one) = sixty().await;
    world.alter(59);
    world.write(5);
    let before = world.store.written().len();
    let mut copy = world.node(2);
    copy.shipper.tick().await;
    assert!(
        copy.node.status().last_error.contains("another copy of this cluster"),
        "{:?}",
        copy.node.status()
    );
    assert_eq!(world.store.written().len(), before);
}

#[tokio::test]
async fn a_restored_cluster_begins_anew_and_its_journal_counts_for_the_old_lineage() {
    let (world, mut one) = sixty().await;
    world.begin_lineage(1);
    one.node.lead(false);
    one.shipper.tick().await;
    one.keeper.tick().await;
    one.node.lead(true);
    world.write(10);
    one.catch_up().await;
    let fetched = latest(&world).await;
    assert_eq!((fetched.plan.epoch, fetched.plan.last_index), (0, 59), "no snapshot of the new lineage yet");
    assert_eq!(revoked(&fetched, 59), [60, 65]);
    one.keeper.tick().await;
    world.write(3);
    one.catch_up().await;
    let fetched = latest(&world).await;
    assert_eq!((fetched.plan.epoch, fetched.plan.snapshot.last), (1, 69));
    assert_eq!(read(&fetched), world.records(70, 72));
}

#[tokio::test]
async fn another_secret_gets_a_snapshot_of_its_own_at_once() {
    let (world, mut one) = sixty().await;
    one.keeper.tick().await;
    one.catch_up().await;
    assert_eq!(one.node.status().last_snapshot_index, 9, "none is due");
    let snapshots = |world: &World| {
        world.store.written().iter().filter(|path| path.as_ref().contains("/snapshots/")).count()
    };
    // The second change is in a log whose time is ahead of the clock: one snapshot is still enough.
    for (times, ahead_ms) in [(2, 0), (3, 600_000)] {
        world.write(1);
        world.change_secret(ahead_ms);
        for _ in 0..3 {
            one.catch_up().await;
            one.keeper.tick().await;
            assert_eq!(snapshots(&world), times);
        }
    }
}

#[tokio::test]
async fn a_copy_that_was_restored_for_a_try_does_not_pass_for_the_cluster() {
    let (world, mut one) = sixty().await;
    let trial = world.copy();
    trial.begin_lineage(9);
    trial.write(10);
    let mut two = trial.node(2);
    two.catch_up().await;
    two.keeper.tick().await;
    assert_eq!(latest(&world).await.plan.epoch, 9, "the old lineage is over, as far as anybody can tell");

    // More than a minute later the old lineage still writes.
    world.write(7_000);
    one.catch_up().await;
    let refused = world.restore(Until::Latest).await.err().unwrap();
    assert!(matches!(refused, ArchiveError::SeveralLives { earlier: 0, newest: 9 }), "{refused}");
    let own = world.restore_lineage(Until::Latest, Some(0)).await.unwrap();
    assert_eq!((own.plan.epoch, own.plan.last_index, own.journal_complete_to), (0, 7_059, 7_059));
    assert_eq!(revoked(&own, 7_050), [7_055], "and nothing of the copy's journal");
    assert_eq!(world.restore_lineage(Until::Latest, Some(9)).await.unwrap().plan.epoch, 9);
}

#[tokio::test]
async fn a_damaged_snapshot_is_passed_over_for_an_older_one() {
    let (world, mut one) = sixty().await;
    world.clock.advance(Duration::from_hours(2));
    one.keeper.tick().await;
    world.write(5);
    one.catch_up().await;
    assert_eq!(latest(&world).await.plan.snapshot.last, 59);
    let newest =
        world.store.written().into_iter().rfind(|path| path.as_ref().contains("/snapshots/")).unwrap();
    let mut bytes = world.store.bytes(&newest).await;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    world.store.overwrite(&newest, bytes).await;
    let fetched = latest(&world).await;
    assert_eq!(fetched.plan.snapshot.last, 9);
    assert_eq!(read(&fetched), world.records(10, 64));
}

#[tokio::test]
async fn a_snapshot_that_fails_is_told_until_one_succeeds() {
    let (world, mut one) = sixty().await;
    world.clock.advance(Duration::from_hours(2));
    world.store.faults().away = true;
    one.keeper.tick().await;
    world.store.faults().away = false;
    one.catch_up_log().await;
    assert!(one.node.status().last_error.contains("snapshot"), "{:?}", one.node.status());
    one.keeper.tick().await;
    one.catch_up().await;
    assert_eq!(one.node.status().last_snapshot_index, 59);
}

#[tokio::test]
async fn what_is_locked_stays_and_keeps_nothing_else_there() {
    let (world, one) = sixty().await;
    // Long after: everything before the newest snapshot may be removed.
    world.clock.advance(Duration::from_hours(24 * 400));
    let policy = RetentionPolicy { keep: one.keeper.policy.keep.clone(), journal_ms: 0 };
    world.store.faults().locked = Some(String::new());
    one.keeper.tick().await;
    let now_ms = world.clock.now_ms();
    let prune = |dry_run| {
        let (target, policy) = (world.target(), policy.clone());
        async move { keeper::prune(&target, world::CLUSTER, &policy, now_ms, dry_run).await.unwrap() }
    };
    let expected = prune(true).await;
    assert!(expected.segments > 0 && expected.revocation_journal > 0, "{expected:?}");
    world.store.faults().locked = Some("/log/".into());
    let pruned = prune(false).await;
    assert_eq!(
        (pruned.left, pruned.segments, pruned.revocation_journal),
        (expected.segments, 0, expected.revocation_journal)
    );
    world.store.faults().locked = None;
    let later = prune(false).await;
    assert_eq!((later.left, later.segments, later.revocation_journal), (0, expected.segments, 0));
}

#[tokio::test]
async fn a_node_that_does_not_lead_keeps_what_the_archive_lacks() {
    let (world, mut one) = sixty().await;
    let mut two = world.node(2);
    two.node.lead(false);
    two.shipper.tick().await;
    assert_eq!(two.node.hold().archived, Some(59));
    world.write(20);
    one.catch_up().await;
    two.shipper.tick().await;
    assert_eq!(two.node.hold().archived, Some(59), "it does not ask all the time");
    world.clock.advance(Duration::from_secs(11));
    two.shipper.tick().await;
    assert_eq!(two.node.hold().archived, Some(79));
}

#[tokio::test]
async fn a_directory_that_is_gone_is_not_made_anew() {
    let parent = tempfile::tempdir().unwrap();
    let place = parent.path().join("backups");
    let url = format!("file://{}", place.display());
    let settings = config::ArchiveConfig { target: Some(url), ..config::ArchiveConfig::default() };
    assert!(matches!(ArchiveTarget::open(&settings), Err(ArchiveError::Away { .. })));
    std::fs::create_dir(&place).unwrap();
    let target = ArchiveTarget::open(&settings).unwrap();
    let world = World::new();
    let mut one = world.node_at(1, target.clone());
    world.write(10);
    one.catch_up().await;
    let away = parent.path().join("unmounted");
    std::fs::rename(&place, &away).unwrap();
    world.write(5);
    one.shipper.tick().await;
    assert!(one.node.status().last_error.contains("does not exist"), "{:?}", one.node.status());
    assert!(!place.exists());
    std::fs::rename(&away, &place).unwrap();
    one.catch_up().await;
    one.keeper.tick().await;
    world.write(2);
    one.catch_up().await;
    let reader = super::read::Reader::over(target, Arc::new(World::key())).await.unwrap();
    let fetched = reader.restore(Until::Latest, &parent.path().join("into"), &mut |_| ()).await.unwrap();
    assert_eq!(read(&fetched), world.records(15, 16));
    // The file store uses equal names.
    assert!(LocalFileSystem::new_with_prefix(&place).is_ok());
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64),
    Tick(usize),
    Away(bool),
    HalfWritten,
    Unanswered,
    Lag(usize),
    Lead(usize, bool),
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..25_u64).prop_map(Step::Write),
        4 => (0..2_usize).prop_map(Step::Tick),
        1 => any::<bool>().prop_map(Step::Away),
        1 => Just(Step::HalfWritten),
        1 => Just(Step::Unanswered),
        1 => (0..4_usize).prop_map(Step::Lag),
        2 => (0..2_usize, any::<bool>()).prop_map(|(node, leads)| Step::Lead(node, leads)),
        1 => Just(Step::Snapshot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Two nodes that lead in turn, or both at once, over a store that is unreachable, loses the end of writes, does
    /// not answer and lists late. In the end every entry is there once, in order, and so are all revocations.
    #[test]
    fn nothing_is_lost_and_order_is_kept(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            world.write(3);
            let mut nodes = [world.node(1), world.node(2)];
            nodes[0].catch_up().await;
            nodes[0].keeper.tick().await;
            let damages = steps.iter().any(|step| matches!(step, Step::HalfWritten));
            for step in steps {
                match step {
                    Step::Write(count) => world.write(count),
                    Step::Tick(node) => {
                        nodes[node].shipper.tick().await;
                    }
                    Step::Away(away) => world.store.faults().away = away,
                    Step::HalfWritten => world.store.faults().half_written = 1,
                    Step::Unanswered => world.store.faults().unanswered = 1,
                    Step::Lag(hidden) => world.store.faults().hidden = hidden,
                    Step::Lead(node, leads) => nodes[node].node.lead(leads),
                    Step::Snapshot => {
                        nodes[0].keeper.tick().await;
                    }
                }
                let held = nodes.iter().filter_map(|node| node.node.hold().archived).max();
                prop_assert!(held <= Some(world.last()));
            }
            *world.store.faults() = faulty::Faults::default();
            nodes[1].node.lead(true);
            nodes[1].catch_up().await;
            let last = world.last();
            let fetched = world.restore(Until::Index(last)).await.unwrap();
            let first = fetched.plan.snapshot.last + 1;
            prop_assert_eq!(read(&fetched), world.records(first, last));
            let fetched = world.restore(Until::Index(2)).await.unwrap();
            // A damaged piece of the journal covers nothing, even if nothing is missing: then less is claimed, never
            // more.
            prop_assert!(fetched.journal_complete_to == last || (damages && fetched.journal_complete_to < last));
            let all: Vec<u64> = (3..=last).filter(|index| index % 5 == 0).collect();
            prop_assert_eq!(revoked(&fetched, 2), all);
            Ok(())
        })?;
    }
}
