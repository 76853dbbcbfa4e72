//! Selects the objects that may be removed from the archive. Pure: existing objects in, removable objects out.
//!
//! Snapshots are kept as grandfather, father and son: the last one of each of the most recent hours, days, weeks and
//! months that have one. The newest is always kept, and so is the base of every chain that reaches into the window in
//! which each point in time can be restored. Segments are removed if no point in that window needs them. The journal is
//! removed once nothing that it could have revoked can still be valid, and no earlier snapshot is left.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use super::names::{Object, ObjectKind};
use conclave_config::Keep;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The first of January 1970 was a Thursday; weeks begin on Mondays.
const DAYS_BEFORE_MONDAY: u64 = 3;

/// The retention times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionPolicy {
    pub keep: Keep,
    /// The longest lifetime of a session or a refresh token, milliseconds.
    pub journal_ms: u64,
}

/// The objects of `objects` that may be removed.
pub fn expired<'a>(objects: &'a [Object], policy: &RetentionPolicy, now_ms: u64) -> Vec<&'a Object> {
    let window = now_ms.saturating_sub(millis(policy.keep.log));
    let of = |kind: ObjectKind| objects.iter().filter(move |object| object.kind == kind);
    let bases = bases(objects, window);
    let kept = kept_snapshots(&of(ObjectKind::Snapshot).collect::<Vec<_>>(), &policy.keep);
    let is_base = |object: &Object| bases.iter().any(|base| base.name == object.name);
    let newest_epoch_with_base = bases.iter().map(|base| base.epoch).max();
    let needed = |segment: &Object| match bases.iter().find(|base| base.epoch == segment.epoch) {
        Some(base) => segment.last > base.first,
        // There is no snapshot of its lineage: it is useless once a later lineage has one.
        None => newest_epoch_with_base.is_none_or(|epoch| epoch <= segment.epoch),
    };
    let stays = |snapshot: &Object| kept.contains(snapshot.name.as_str()) || is_base(snapshot);
    let oldest =
        of(ObjectKind::Snapshot).filter(|snapshot| stays(snapshot)).map(|snapshot| snapshot.at_ms).min();
    // The revocations since the oldest snapshot must be known as long as that snapshot can be restored.
    let journal_from = now_ms.saturating_sub(policy.journal_ms).min(window).min(oldest.unwrap_or(0));
    objects
        .iter()
        .filter(|object| match object.kind {
            ObjectKind::Snapshot => !stays(object),
            ObjectKind::Log => object.at_ms < window && !needed(object),
            ObjectKind::RevocationJournal => object.at_ms < journal_from,
        })
        .collect()
}

/// For each lineage with objects in the window: the snapshot that the window begins with.
fn bases(objects: &[Object], window: u64) -> Vec<&Object> {
    let epochs: BTreeSet<u64> = objects.iter().map(|object| object.epoch).collect();
    let newest = epochs.last().copied();
    let base = |epoch: u64| {
        let reaches = |object: &&Object| object.epoch == epoch && object.at_ms >= window;
        if Some(epoch) != newest && !objects.iter().any(|object| reaches(&object)) {
            return None;
        }
        let snapshots = || objects.iter().filter(|o| o.kind == ObjectKind::Snapshot && o.epoch == epoch);
        let before =
            snapshots().filter(|snapshot| snapshot.at_ms <= window).max_by_key(|s| (s.at_ms, s.first));
        before.or_else(|| snapshots().min_by_key(|snapshot| snapshot.first))
    };
    epochs.into_iter().filter_map(base).collect()
}

/// The names of the snapshots that are kept because of their age.
fn kept_snapshots<'a>(snapshots: &[&'a Object], keep: &Keep) -> BTreeSet<&'a str> {
    let mut newest_first = snapshots.to_vec();
    newest_first.sort_by_key(|snapshot| (snapshot.at_ms, snapshot.epoch, snapshot.first));
    newest_first.reverse();
    let mut kept: BTreeSet<&str> =
        newest_first.first().map(|newest| newest.name.as_str()).into_iter().collect();
    let rules: [(u32, Period); 4] =
        [(keep.hourly, hour), (keep.daily, day), (keep.weekly, week), (keep.monthly, month)];
    for (count, period) in rules {
        let mut seen = BTreeSet::new();
        for snapshot in &newest_first {
            if seen.len() >= count as usize {
                break;
            }
            if seen.insert(period(snapshot.at_ms)) {
                kept.insert(&snapshot.name);
            }
        }
    }
    kept
}

/// A function that returns the number of a time's hour, day, week or month.
type Period = fn(u64) -> u64;

const fn hour(at_ms: u64) -> u64 {
    at_ms / HOUR_MS
}

const fn day(at_ms: u64) -> u64 {
    at_ms / DAY_MS
}

const fn week(at_ms: u64) -> u64 {
    (at_ms / DAY_MS + DAYS_BEFORE_MONDAY) / 7
}

fn month(at_ms: u64) -> u64 {
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(0);
    let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    u64::try_from(date.year()).unwrap_or(0) * 12 + u64::from(u8::from(date.month()))
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 20_700 * DAY_MS + 5 * HOUR_MS;

    fn object(kind: ObjectKind, epoch: u64, first: u64, last: u64, at_ms: u64) -> Object {
        Object {
            name: format!("{kind:?}/{epoch}/{first}-{last}-{at_ms}"),
            kind,
            epoch,
            first,
            last,
            at_ms,
            size_bytes: 1,
        }
    }

    fn policy() -> RetentionPolicy {
        RetentionPolicy { keep: Keep::default(), journal_ms: 30 * DAY_MS }
    }

    #[test]
    fn a_year_of_nightly_snapshots_leaves_days_weeks_and_months() {
        let nightly: Vec<_> = (0..365)
            .map(|ago| object(ObjectKind::Snapshot, 0, 1_000 - ago, 1_000 - ago, NOW - ago * DAY_MS))
            .collect();
        // Without hourly snapshots: there is one each night.
        let keep = Keep { hourly: 0, log: Duration::ZERO, ..Keep::default() };
        let gone = expired(&nightly, &RetentionPolicy { keep, ..policy() }, NOW);
        let left = nightly.len() - gone.len();
        // 7 days, 5 weeks of which one or two begin in those days, and 12 months of which one or two end in those
        // weeks.
        assert!((19..=24).contains(&left), "{left}");
        assert!(!gone.iter().any(|snapshot| snapshot.at_ms == NOW));
    }

    #[test]
    fn segments_stay_from_the_base_of_the_window_on() {
        let week = 7 * DAY_MS;
        let objects = [
            object(ObjectKind::Snapshot, 0, 100, 100, NOW - week - 2 * DAY_MS),
            object(ObjectKind::Snapshot, 0, 200, 200, NOW - week - DAY_MS),
            object(ObjectKind::Snapshot, 0, 300, 300, NOW - DAY_MS),
            object(ObjectKind::Log, 0, 101, 200, NOW - week - DAY_MS),
            object(ObjectKind::Log, 0, 190, 201, NOW - week - DAY_MS),
            object(ObjectKind::Log, 0, 201, 300, NOW - DAY_MS),
            object(ObjectKind::RevocationJournal, 0, 1, 50, NOW - 31 * DAY_MS),
            object(ObjectKind::RevocationJournal, 0, 51, 60, NOW - 29 * DAY_MS),
        ];
        let with_old = [&objects[..], &[object(ObjectKind::Snapshot, 0, 1, 1, NOW - 40 * DAY_MS)]].concat();
        let monthly = Keep { hourly: 0, daily: 0, weekly: 0, monthly: 12, ..Keep::default() };
        let gone = expired(&with_old, &RetentionPolicy { keep: monthly, ..policy() }, NOW);
        assert!(
            !gone.iter().any(|object| object.kind == ObjectKind::RevocationJournal),
            "an old snapshot needs it"
        );
        let keep = Keep { hourly: 1, daily: 1, weekly: 0, monthly: 0, ..Keep::default() };
        let gone = expired(&objects, &RetentionPolicy { keep, ..policy() }, NOW);
        let gone: Vec<_> = gone.iter().map(|object| (object.kind, object.first)).collect();
        assert_eq!(
            gone,
            [(ObjectKind::Snapshot, 100), (ObjectKind::Log, 101), (ObjectKind::RevocationJournal, 1)]
        );
    }

    #[test]
    fn a_life_that_is_over_goes_once_the_window_has_passed_it() {
        let old = object(ObjectKind::Log, 0, 1, 10, NOW - 8 * DAY_MS);
        let young = object(ObjectKind::Log, 0, 11, 20, NOW - 6 * DAY_MS);
        let first = object(ObjectKind::Snapshot, 0, 5, 5, NOW - 8 * DAY_MS);
        let next = object(ObjectKind::Snapshot, 1, 20, 20, NOW - 5 * DAY_MS);
        let names = |objects: &[Object], now| -> Vec<String> {
            let keep = Keep { hourly: 1, daily: 0, weekly: 0, monthly: 0, ..Keep::default() };
            expired(objects, &RetentionPolicy { keep, ..policy() }, now)
                .iter()
                .map(|o| o.name.clone())
                .collect()
        };
        let all = [old, young, first, next];
        assert_eq!(names(&all, NOW), Vec::<String>::new(), "the window still reaches into it");
        assert_eq!(names(&all, NOW + 3 * DAY_MS).len(), 3);
    }

    proptest! {
        #[test]
        fn nothing_goes_that_a_kept_point_in_time_needs(
            days in prop::collection::vec(0..4_000_u64, 1..40), hourly in 0..30_u32, daily in 0..10_u32,
            weekly in 0..6_u32, monthly in 0..13_u32, log_days in 0..40_u64,
        ) {
            // Snapshots at any hours of the past half year, and a segment from each to the next.
            let mut hours = days;
            hours.sort_unstable_by(|a, b| b.cmp(a));
            hours.dedup();
            let at = |hour: &u64| NOW - hour * HOUR_MS;
            let mut objects = Vec::new();
            for (position, hour) in hours.iter().enumerate() {
                let index = 100 * (position as u64 + 1);
                objects.push(object(ObjectKind::Snapshot, 0, index, index, at(hour)));
                let until = hours.get(position + 1).map_or(NOW, &at);
                objects.push(object(ObjectKind::Log, 0, index + 1, index + 100, until));
            }
            let keep = Keep { hourly, daily, weekly, monthly, log: Duration::from_secs(log_days * 86_400) };
            let policy = RetentionPolicy { keep, journal_ms: 0 };
            let gone: BTreeSet<_> = expired(&objects, &policy, NOW).iter().map(|o| o.name.clone()).collect();
            let left: Vec<_> = objects.iter().filter(|o| !gone.contains(&o.name)).cloned().collect();
            let newest = objects.iter().filter(|o| o.kind == ObjectKind::Snapshot).max_by_key(|o| o.at_ms).unwrap();
            prop_assert!(left.contains(newest));
            // Every index from the first kept snapshot at or before the window to the end is there.
            let window = NOW - log_days * DAY_MS;
            let base = left.iter().filter(|o| o.kind == ObjectKind::Snapshot && o.at_ms <= window).max_by_key(|o| o.at_ms);
            let first = left.iter().filter(|o| o.kind == ObjectKind::Snapshot).min_by_key(|o| o.at_ms).unwrap();
            let mut next = base.unwrap_or(first).first + 1;
            let from = next;
            for segment in left.iter().filter(|o| o.kind == ObjectKind::Log && o.last >= from) {
                prop_assert!(segment.first <= next, "a hole before {}", segment.first);
                next = segment.last + 1;
            }
            prop_assert_eq!(next, 100 * hours.len() as u64 + 101);
            let again = expired(&left, &policy, NOW);
            prop_assert!(again.iter().all(|o| o.kind != ObjectKind::Snapshot), "what stays once stays");
        }
    }
}
