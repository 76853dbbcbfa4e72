//! Decides when to take a snapshot and which entries may then leave the log: pure functions (docs/design/storage.md).

/// A tail smaller than this is cheap to replay, whatever the snapshot's size.
pub const MIN_TAIL_BYTES: u64 = 64 * 1024 * 1024;

/// Entries kept behind a snapshot, so that a follower that was unreachable for a moment catches up from the log.
pub const KEEP_ENTRIES: u64 = 10_000;

/// Snapshots kept: if the newest is unreadable, a node can start from the one before it and the log after that one.
pub const KEEP_SNAPSHOTS: usize = 2;

/// The inputs of the rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionInputs {
    /// Payload bytes of the entries after the newest snapshot, or of the whole log if there is none.
    pub tail_bytes: u64,
    /// Size of the newest snapshot file, 0 without one.
    pub last_snapshot_bytes: u64,
    /// The last index covered by the *oldest* of the [`KEEP_SNAPSHOTS`] snapshots held; `None` while fewer are held.
    pub oldest_snapshot_index: Option<u64>,
    /// The last index of the log.
    pub last_index: u64,
}

/// The actions that are due now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPlan {
    pub take_snapshot: bool,
    /// Entries up to and including this index may be purged.
    pub purge_upto: Option<u64>,
}

/// Applies the rule. A snapshot is due once the tail exceeds max(64 MiB, half the last snapshot). The half keeps the
/// cost of writing snapshots within a constant factor of the writes themselves, however large the state grows.
pub fn plan(held: &RetentionInputs) -> RetentionPlan {
    let limit = MIN_TAIL_BYTES.max(held.last_snapshot_bytes / 2);
    let purge_upto = held
        .oldest_snapshot_index
        .and_then(|covered| held.last_index.checked_sub(KEEP_ENTRIES).map(|spare| covered.min(spare)));
    RetentionPlan { take_snapshot: held.tail_bytes > limit, purge_upto }
}

/// The log entries that an archive still lacks (the `archive` room keeps this current).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArchiveHold {
    /// The archive has every entry up to this one; `None` while it has none.
    pub archived: Option<u64>,
    /// The bytes that may wait here for the archive.
    pub limit_bytes: u64,
}

/// The divisor of the free disk: entries waiting for the archive may take one part of this many. A full disk would
/// stop the node.
const HOLD_DISK_SHARE: u64 = 10;

/// The index up to which the log may be purged while an archive is behind: the last entry that the archive has, unless
/// more than the limit, or more than a tenth of the free disk, waits. Then the log is purged anyway, and the archive
/// starts again with a whole snapshot.
pub fn purge_beside_archive(
    upto: u64,
    hold: &ArchiveHold,
    waiting_bytes: u64,
    disk_free_bytes: u64,
) -> Option<u64> {
    if waiting_bytes > hold.limit_bytes.min(disk_free_bytes / HOLD_DISK_SHARE) {
        return Some(upto);
    }
    hold.archived.map(|archived| upto.min(archived))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_above_64_mib_or_half_the_last_one() {
        let due = |tail_bytes, last_snapshot_bytes| {
            plan(&RetentionInputs { tail_bytes, last_snapshot_bytes, ..RetentionInputs::default() })
                .take_snapshot
        };
        assert!(!due(MIN_TAIL_BYTES, 0));
        assert!(due(MIN_TAIL_BYTES + 1, 0));
        assert!(due(MIN_TAIL_BYTES + 1, 2 * MIN_TAIL_BYTES));
        assert!(!due(MIN_TAIL_BYTES + 1, 4 * MIN_TAIL_BYTES), "half of a large snapshot counts");
        assert!(due(2 * MIN_TAIL_BYTES + 1, 4 * MIN_TAIL_BYTES));
    }

    #[test]
    fn the_log_keeps_ten_thousand_entries_and_reaches_back_to_the_older_snapshot() {
        let upto = |oldest_snapshot_index, last_index| {
            plan(&RetentionInputs { oldest_snapshot_index, last_index, ..RetentionInputs::default() })
                .purge_upto
        };
        assert_eq!(upto(None, 1_000_000), None, "one snapshot alone might be unreadable");
        assert_eq!(upto(Some(5_000), 9_999), None);
        assert_eq!(upto(Some(5_000), 12_000), Some(2_000), "slow followers need the last 10,000");
        assert_eq!(upto(Some(5_000), 1_000_000), Some(5_000), "the older snapshot needs the rest");
    }

    #[test]
    fn the_log_waits_for_the_archive_within_a_bound() {
        let hold = ArchiveHold { archived: Some(40), limit_bytes: 1_000 };
        let (free, full) = (1_000_000, 5_000);
        assert_eq!(purge_beside_archive(90, &hold, 1_000, free), Some(40), "what the archive lacks stays");
        assert_eq!(purge_beside_archive(30, &hold, 1_000, free), Some(30), "it holds nothing else back");
        assert_eq!(
            purge_beside_archive(90, &hold, 1_001, free),
            Some(90),
            "beyond the bound the log goes on"
        );
        assert_eq!(purge_beside_archive(90, &hold, 501, full), Some(90), "a full disk would stop the node");
        let nothing_yet = ArchiveHold { archived: None, ..hold };
        assert_eq!(purge_beside_archive(90, &nothing_yet, 10, free), None);
    }
}
