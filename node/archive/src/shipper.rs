//! Ships the log: on the leader, a moment after it was applied, in order, each piece sealed. Beside it, the shipper
//! writes the journal of revocations.
//!
//! A new leader reads from the archive how far it is; the position is stored nowhere else. So two leaders that overlap
//! only write some entries twice, under different names. An object is valid only once its write was acknowledged, and a
//! leader continues only after that. So an object that a leader leaves half-written is always its last, and the next
//! leader verifies the last object before it continues.
//!
//! The journal of a batch is written before its log: if the log is complete, so is the journal.

use std::{sync::Arc, time::Duration};

use conclave_proto::command::v1::LogEntry;
use conclave_state::{Class, class_of};
use prost::Message as _;

use super::{
    ArchiveError, ArchiveTarget, coverage,
    names::{NewName, Object, ObjectKind},
    progress::{ArchiveProgress, ArchiveTask},
    segment::{self, MAX_SEGMENT_BYTES, SEGMENT_BYTES, SEGMENT_ENTRIES, Segment, SegmentHeader},
    source::Source,
};
use conclave_base::runtime::Runtime;
use conclave_cluster::command_entry;
use conclave_store::{LogId, LogRecord, snapshot::SealingKey};

/// The interval at which new entries are looked for: a second less the time of a write to the archive.
pub(crate) const PERIOD: Duration = Duration::from_millis(750);
/// The longest pause after failures, so that a target that can be reached again is noticed soon.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The interval at which a node that does not lead reads how far the archive is, to know what its log must keep.
const FOLLOW_PERIOD: Duration = Duration::from_secs(10);

/// The end of the archive.
struct Position {
    /// The next entry to ship.
    next: u64,
    /// The digest of the entry before it, if known.
    before: Option<[u8; 32]>,
    /// The first entry that no object of the journal covers yet.
    journal_next: u64,
    /// The last stamp seen.
    last_ms: u64,
}

/// The task that ships.
pub(crate) struct Shipper {
    source: Arc<dyn Source>,
    target: ArchiveTarget,
    key: Arc<SealingKey>,
    runtime: Runtime,
    progress: Arc<ArchiveProgress>,
    position: Option<Position>,
    failures: u32,
    followed: Option<Duration>,
}

impl Shipper {
    pub(crate) fn new(
        source: Arc<dyn Source>,
        target: ArchiveTarget,
        key: Arc<SealingKey>,
        runtime: Runtime,
        progress: Arc<ArchiveProgress>,
    ) -> Self {
        Self { source, target, key, runtime, progress, position: None, failures: 0, followed: None }
    }

    /// Runs one round. Returns the time to wait before the next. If it is dropped midway, at worst something is written
    /// twice.
    pub(crate) async fn tick(&mut self) -> Duration {
        let outcome = if self.source.leads() { self.ship().await } else { self.follow().await };
        match outcome {
            Ok(()) => {
                self.failures = 0;
                self.progress.record_success(ArchiveTask::Log);
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                // The archive is read again: the failed write may have arrived.
                self.position = None;
                self.progress.record_failure(ArchiveTask::Log, &error, &*self.runtime.clock);
            }
        }
        self.progress.publish(&*self.source, &*self.runtime.clock);
        let doubled = PERIOD.saturating_mul(1 << self.failures.min(8));
        if self.failures == 0 { PERIOD } else { doubled.min(MAX_PAUSE) }
    }

    /// Ships all applied entries.
    async fn ship(&mut self) -> Result<(), ArchiveError> {
        let mut position = match self.position.take() {
            Some(position) => position,
            None => self.find().await?,
        };
        loop {
            let (applied, now) = (self.source.applied(), self.runtime.clock.monotonic());
            if position.next > applied {
                self.progress.known().caught_up = now;
                break;
            }
            position = self.ship_next(position).await?;
            self.progress.publish(&*self.source, &*self.runtime.clock);
        }
        self.position = Some(position);
        Ok(())
    }

    async fn ship_next(&self, position: Position) -> Result<Position, ArchiveError> {
        let mut records = self.source.entries(position.next, SEGMENT_BYTES).await?;
        records.truncate(SEGMENT_ENTRIES);
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(position) };
        let position = if first.index > position.next { self.gap(&position, first.index) } else { position };
        let stamps = || records.iter().filter_map(stamp);
        let now_ms = if position.last_ms == 0 { self.runtime.clock.now_ms() } else { position.last_ms };
        let header = SegmentHeader {
            kind: ObjectKind::Log,
            cluster: self.source.cluster(),
            epoch: self.source.epoch(),
            first: first.id(),
            last: last.id(),
            first_ms: stamps().next().unwrap_or(now_ms),
            last_ms: stamps().next_back().unwrap_or(now_ms),
            before: position.before,
            after: segment::digest(last),
        };
        let journal_next = self.write_revocation_journal(&header, &records, position.journal_next).await?;
        self.put(&header, &records).await?;
        self.progress.known().archived = Some(last.index);
        Ok(Position {
            next: last.index.saturating_add(1),
            before: Some(header.after),
            journal_next,
            last_ms: header.last_ms,
        })
    }

    /// Writes the revocations among these entries to the journal, as an object that covers everything since `from`.
    /// Returns the first entry that the journal does not cover.
    async fn write_revocation_journal(
        &self,
        header: &SegmentHeader,
        records: &[LogRecord],
        from: u64,
    ) -> Result<u64, ArchiveError> {
        let revokes =
            |record: &&LogRecord| command_entry(record).and_then(class_of) == Some(Class::Revocation);
        let revocations: Vec<LogRecord> = records.iter().filter(revokes).cloned().collect();
        if revocations.is_empty() {
            return Ok(from);
        }
        let first = LogId { index: from.min(header.first.index), ..header.first };
        let header =
            SegmentHeader { kind: ObjectKind::RevocationJournal, first, before: None, ..header.clone() };
        self.put(&header, &revocations).await?;
        Ok(header.last.index.saturating_add(1))
    }

    async fn put(&self, header: &SegmentHeader, records: &[LogRecord]) -> Result<(), ArchiveError> {
        let entropy = &self.runtime.entropy;
        let bytes = segment::seal(header, records, &self.key, |salt| entropy.fill(salt))?;
        let name = NewName {
            cluster: header.cluster,
            kind: header.kind,
            epoch: header.epoch,
            first: header.first.index,
            last: header.last.index,
            at_ms: header.last_ms,
            node: self.source.node(),
            random: u64::from_be_bytes(entropy.bytes()),
        };
        self.target.put_new(&name.text(), bytes).await
    }

    /// Handles entries that left the log before they were archived: a new chain begins, which must start with a
    /// snapshot.
    fn gap(&self, position: &Position, first: u64) -> Position {
        tracing::error!(
            raft.index = first,
            "entries {} to {} left the log before they were in the archive; a snapshot follows, and points in time between \
             the last one and it cannot be restored",
            position.next,
            first.saturating_sub(1)
        );
        self.progress.known().chain_from = first;
        Position { next: first, before: None, journal_next: first, last_ms: position.last_ms }
    }

    /// Reads from the archive how far it is.
    async fn find(&self) -> Result<Position, ArchiveError> {
        let need = self.source.first_index().unwrap_or(0);
        let mut segments = self.tail(ObjectKind::Log, need).await?;
        let mut runs = coverage::runs(&segments);
        let (end, last) = loop {
            let (end, touched) = coverage::reach(&segments, need);
            if !touched {
                break (need, None);
            }
            let Some(at) = segments.iter().position(|segment| segment.last.saturating_add(1) == end) else {
                break (need, None);
            };
            match self.prove(segments.swap_remove(at)).await? {
                Some(segment) => break (end, Some(segment)),
                // A half-written object is treated as missing.
                None => {
                    segments.sort_by_key(|segment| (segment.first, segment.last));
                    runs = coverage::runs(&segments);
                }
            }
        };
        if let Some(segment) = &last {
            self.same_history(segment).await?;
        }
        let spoken_for = self.journal_end(need, end).await?;
        // If the log is complete and has no journal, nothing was revoked.
        let whole_from = |runs: &[coverage::Run]| {
            runs.iter().find(|run| run.last.saturating_add(1) == end).map_or(need, |run| run.first)
        };
        let mut journal_next = spoken_for.unwrap_or(0).max(whole_from(&runs));
        if last.is_some() && spoken_for != Some(journal_next) {
            // Only the end of the log was listed; it may be complete from much earlier on.
            let (cluster, epoch) = (self.source.cluster(), self.source.epoch());
            let all = self.target.list(&cluster, ObjectKind::Log, epoch, None).await?;
            journal_next = spoken_for.unwrap_or(0).max(whole_from(&coverage::runs(&all)));
        }
        let mut known = self.progress.known();
        if !known.found {
            known.caught_up = self.runtime.clock.monotonic();
        }
        known.found = true;
        known.archived = end.checked_sub(1);
        if last.is_none() {
            known.chain_from = need;
        }
        Ok(Position {
            next: end,
            before: last.as_ref().map(|segment| segment.header.after),
            journal_next,
            last_ms: last.map_or(0, |segment| segment.header.last_ms),
        })
    }

    /// The segments that may cover `need` or later entries.
    async fn tail(&self, kind: ObjectKind, need: u64) -> Result<Vec<Object>, ArchiveError> {
        let (cluster, epoch) = (self.source.cluster(), self.source.epoch());
        let from = need.saturating_sub(SEGMENT_ENTRIES as u64);
        let found = self.target.list(&cluster, kind, epoch, Some(from)).await?;
        if found.is_empty() && from > 0 {
            return self.target.list(&cluster, kind, epoch, None).await;
        }
        Ok(found)
    }

    /// The index after the last one that the journal covers. An object of the journal beyond the log's end may be
    /// half-written.
    async fn journal_end(&self, need: u64, end: u64) -> Result<Option<u64>, ArchiveError> {
        let journal = self.tail(ObjectKind::RevocationJournal, need).await?;
        Ok(journal.iter().map(|object| object.last.saturating_add(1)).filter(|next| *next <= end).max())
    }

    /// Returns the segment if it is complete.
    async fn prove(&self, object: Object) -> Result<Option<Segment>, ArchiveError> {
        match fetch(&self.target, &object, &self.key, self.source.cluster()).await {
            Ok((segment, _)) => Ok(Some(segment)),
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "passing over an object of the archive that cannot be used");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Checks that the archive's last entry is the one in this log.
    async fn same_history(&self, segment: &Segment) -> Result<(), ArchiveError> {
        let index = segment.header.last.index;
        let applied = self.source.applied();
        if applied < index {
            return Err(ArchiveError::AheadOfCluster { archived: index, applied });
        }
        let own = self.source.entries(index, 1).await?;
        match own.first().filter(|record| record.index == index) {
            Some(record) if segment::digest(record) != segment.header.after => {
                Err(ArchiveError::OtherHistory { index })
            }
            _ => Ok(()),
        }
    }

    /// Tracks the archive on a node that does not lead, so that its log keeps what the archive lacks: it may lead next.
    async fn follow(&mut self) -> Result<(), ArchiveError> {
        self.position = None;
        let now = self.runtime.clock.monotonic();
        self.progress.known().found = false;
        if self.followed.is_some_and(|at| now.saturating_sub(at) < FOLLOW_PERIOD) {
            return Ok(());
        }
        self.followed = Some(now);
        let need = self.source.first_index().unwrap_or(0);
        let (end, touched) = coverage::reach(&self.tail(ObjectKind::Log, need).await?, need);
        let mut known = self.progress.known();
        known.archived = if touched { end.checked_sub(1) } else { known.archived };
        known.caught_up = now;
        Ok(())
    }
}

/// Reads and opens an object, and checks that it matches its name. Also returns its bytes.
///
/// # Errors
/// [`ArchiveError`].
pub(crate) async fn fetch(
    target: &ArchiveTarget,
    object: &Object,
    key: &SealingKey,
    cluster: [u8; 16],
) -> Result<(Segment, Vec<u8>), ArchiveError> {
    let name = object.name.clone();
    if object.size_bytes == 0 {
        return Err(ArchiveError::NotASegment { name });
    }
    let bytes = target.get(&name, MAX_SEGMENT_BYTES).await?;
    let segment = segment::open(&name, &bytes, key)?;
    let header = &segment.header;
    let found = (header.cluster, header.epoch, header.kind, header.first.index, header.last.index);
    let meant = (cluster, object.epoch, object.kind, object.first, object.last);
    if found != meant {
        let words = |(_, epoch, kind, first, last): ([u8; 16], u64, ObjectKind, u64, u64)| {
            format!("{} of lineage {epoch}, entries {first} to {last}", kind.folder())
        };
        return Err(ArchiveError::Misplaced { name, found: words(found), meant: words(meant) });
    }
    Ok((segment, bytes))
}

/// The leader's stamp of an entry; blanks and memberships have none.
pub(crate) fn stamp(record: &LogRecord) -> Option<u64> {
    command_entry(record).and_then(|bytes| LogEntry::decode(bytes).ok()).map(|entry| entry.at_ms)
}
