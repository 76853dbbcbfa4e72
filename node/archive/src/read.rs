//! Reads an archive back, without a cluster: the objects for a point in time, and their files.
//!
//! ```ignore
//! let archive = read::open(&config.archive, &keys).await?;
//! let fetched = archive.restore(Until::TimeMs(at), &directory, &mut |progress| show(progress)).await?;
//! install(&fetched.snapshot);
//! for record in fetched.records() { apply(&record?); }
//! for record in fetched.revocations(last_applied) { apply(&record?); }
//! ```
//!
//! A plan takes the newest snapshot at or below the point, the segments from the snapshot to the point, and the journal
//! after the snapshot to its end. Names make the plan. Fetching verifies every object: its seal, that it matches its
//! name, and that each segment follows the one before. If two objects cover an entry, a damaged one is skipped. It
//! needs memory for one segment.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    ArchiveError, ArchiveTarget, coverage,
    names::{self, Object, ObjectKind},
    segment::{self, SEGMENT_ENTRIES, Segment},
    shipper::{self, stamp},
};
use conclave_config as config;
use conclave_crypto::{hex, keys::ClusterKeys};
use conclave_store::{
    LogRecord,
    snapshot::{SealingKey, SnapshotFile, SnapshotReader},
};

/// The time for which a lineage may have written after the next one began because of differing clocks, and not because
/// it was still in use.
const CLOCKS_APART_MS: u64 = 60_000;

/// The point to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The end of the archive.
    Latest,
    /// This entry, and none after it.
    Index(u64),
    /// The entries stamped up to this time, Unix milliseconds. A time after the archive's end means its end.
    TimeMs(u64),
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("at all"),
            Self::Index(index) => write!(f, "at or before entry {index}"),
            Self::TimeMs(at) => write!(f, "at or before {at} ms (Unix time)"),
        }
    }
}

/// An archive to read from.
pub struct Reader {
    target: ArchiveTarget,
    key: Arc<SealingKey>,
    cluster: [u8; 16],
    lineage: Option<u64>,
}

/// The objects for a point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePlan {
    pub until: Until,
    pub cluster: [u8; 16],
    /// The lineage of the snapshot and the segments.
    pub epoch: u64,
    pub snapshot: Object,
    /// Sorted by index; some may cover the same entries. Empty if the snapshot is the point.
    pub segments: Vec<Object>,
    /// The objects that cover revocations after the snapshot, of this lineage and of later ones; sorted by lineage and
    /// index.
    pub revocation_journal: Vec<Object>,
    /// The last entry that can be restored; for a time, the last entry of its segment.
    pub last_index: u64,
    /// Up to this entry of this lineage every revocation is known.
    pub journal_complete_to: u64,
}

/// The progress of a fetch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DownloadProgress {
    pub objects: u64,
    pub objects_total: u64,
    pub bytes: u64,
    pub bytes_total: u64,
}

/// The verified files of a plan.
pub struct RestoreFiles {
    pub plan: RestorePlan,
    pub snapshot: SnapshotFile,
    /// Like [`RestorePlan::journal_complete_to`], less the parts that turned out damaged.
    pub journal_complete_to: u64,
    log: Vec<Local>,
    revocation_journal: Vec<Local>,
    key: Arc<SealingKey>,
}

struct Local {
    path: PathBuf,
    name: String,
}

/// Opens the archive of this configuration (`target` may come from the command line instead).
///
/// # Errors
/// An error if it cannot be reached, or holds more than one cluster.
pub async fn open(settings: &config::ArchiveConfig, keys: &ClusterKeys) -> Result<Reader, ArchiveError> {
    let key = Arc::new(SealingKey::ring(keys));
    if let Some((above, cluster)) = one_of_several(settings) {
        let target = ArchiveTarget::open(&above)?;
        if target.clusters().await?.contains(&cluster) {
            return Ok(Reader { target, key, cluster, lineage: None });
        }
    }
    Reader::over(ArchiveTarget::open(settings)?, key).await
}

/// Splits `target/cluster` into the target above it, and the cluster.
fn one_of_several(settings: &config::ArchiveConfig) -> Option<(config::ArchiveConfig, [u8; 16])> {
    let (above, last) = settings.target.as_deref()?.trim_end_matches('/').rsplit_once('/')?;
    let cluster = names::parse_cluster(last)?;
    Some((config::ArchiveConfig { target: Some(above.to_owned()), ..settings.clone() }, cluster))
}

impl Reader {
    /// Creates a reader over a target that is open already.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn over(target: ArchiveTarget, key: Arc<SealingKey>) -> Result<Self, ArchiveError> {
        let clusters = target.clusters().await?;
        match clusters.as_slice() {
            [cluster] => Ok(Self { target, key, cluster: *cluster, lineage: None }),
            [] => Err(ArchiveError::NoSnapshot { until: Until::Latest.to_string() }),
            several => {
                let clusters = several.iter().map(|cluster| hex::encode(cluster)).collect();
                Err(ArchiveError::SeveralClusters { clusters })
            }
        }
    }

    /// Restricts the reader to this lineage of the cluster; with `None`, the newest that has a snapshot is used.
    #[must_use]
    pub fn of_lineage(self, lineage: Option<u64>) -> Self {
        Self { lineage, ..self }
    }

    /// Plans the restore of this point.
    ///
    /// # Errors
    /// [`ArchiveError::NoSnapshot`], [`ArchiveError::Hole`], [`ArchiveError::TooShort`], or an error of the target.
    pub async fn plan(&self, until: Until) -> Result<RestorePlan, ArchiveError> {
        self.plan_without(until, &BTreeSet::new()).await
    }

    /// Like [`plan`](Self::plan), but skips these snapshots.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn plan_without(
        &self,
        until: Until,
        bad: &BTreeSet<String>,
    ) -> Result<RestorePlan, ArchiveError> {
        let mut snapshots = self.target.list_all(&self.cluster, ObjectKind::Snapshot).await?;
        let mut revocation_journal =
            self.target.list_all(&self.cluster, ObjectKind::RevocationJournal).await?;
        if let Some(lineage) = self.lineage {
            snapshots.retain(|object| object.epoch == lineage);
            revocation_journal.retain(|object| object.epoch == lineage);
        } else {
            self.refuse_two_at_once(&snapshots, &revocation_journal).await?;
        }
        let fits = |snapshot: &&Object| match until {
            Until::Latest => true,
            Until::Index(index) => snapshot.last <= index,
            Until::TimeMs(at) => snapshot.at_ms <= at,
        };
        // Sorted by lineage and index: the last one is the newest of the newest lineage.
        let mut usable = snapshots.into_iter().filter(|snapshot| !bad.contains(&snapshot.name));
        let snapshot = usable.rfind(|snapshot| fits(&snapshot));
        let snapshot = snapshot.ok_or_else(|| ArchiveError::NoSnapshot { until: until.to_string() })?;
        let epoch = snapshot.epoch;
        let from = snapshot.last.saturating_add(1);
        let offset = from.saturating_sub(SEGMENT_ENTRIES as u64);
        let mut segments = self.target.list(&self.cluster, ObjectKind::Log, epoch, Some(offset)).await?;
        segments.retain(|segment| segment.last >= from);
        let whole_to = coverage::reach(&segments, from).0.saturating_sub(1);
        let last_index = goal(until, &segments, from, whole_to)?;
        segments.retain(|segment| segment.first <= last_index);
        revocation_journal
            .retain(|object| object.epoch > epoch || (object.epoch == epoch && object.last >= from));
        let of_this_lineage = revocation_journal.iter().filter(|object| object.epoch == epoch);
        let journal_complete_to = complete_to(of_this_lineage, from, whole_to);
        let cluster = self.cluster;
        Ok(RestorePlan {
            until,
            cluster,
            epoch,
            snapshot,
            segments,
            revocation_journal,
            last_index,
            journal_complete_to,
        })
    }

    /// Refuses an archive in which two lineages continued in parallel. A restore ends a lineage. If the old one went
    /// on, the next one does not contain all of it: either the cluster was restored for a test with these settings, or
    /// the old one was not stopped. The right one cannot be determined from here.
    async fn refuse_two_at_once(
        &self,
        snapshots: &[Object],
        revocation_journal: &[Object],
    ) -> Result<(), ArchiveError> {
        let Some(newest) = snapshots.last().map(|snapshot| snapshot.epoch) else { return Ok(()) };
        let of_newest = snapshots.iter().filter(|snapshot| snapshot.epoch == newest);
        let began_ms = of_newest.map(|snapshot| snapshot.at_ms).min().unwrap_or(u64::MAX);
        let all = || snapshots.iter().chain(revocation_journal);
        let earlier: BTreeSet<u64> =
            all().map(|object| object.epoch).filter(|epoch| *epoch < newest).collect();
        for earlier in earlier {
            let of_it = || all().filter(|object| object.epoch == earlier);
            let known = of_it().map(|object| object.last).max();
            let tail = self.target.list(&self.cluster, ObjectKind::Log, earlier, known).await?;
            let wrote_ms = of_it().chain(&tail).map(|object| object.at_ms).max().unwrap_or(0);
            if wrote_ms > began_ms.saturating_add(CLOCKS_APART_MS) {
                return Err(ArchiveError::SeveralLives { earlier, newest });
            }
        }
        Ok(())
    }

    /// Plans and fetches. A snapshot that turns out damaged is skipped for an older one.
    ///
    /// # Errors
    /// [`ArchiveError`]; the directory then contains some files, none of which may be used.
    pub async fn restore(
        &self,
        until: Until,
        into: &Path,
        progress: &mut (dyn FnMut(DownloadProgress) + Send),
    ) -> Result<RestoreFiles, ArchiveError> {
        let mut bad = BTreeSet::new();
        loop {
            let plan = self.plan_without(until, &bad).await?;
            let name = plan.snapshot.name.clone();
            match self.fetch(plan, into, progress).await {
                Err(ArchiveError::Snapshot(error)) if error.is_damage() => {
                    tracing::warn!(%error, "passing over a snapshot of the archive that cannot be used");
                    bad.insert(name);
                }
                outcome => return outcome,
            }
        }
    }

    /// Fetches the files of a plan into a directory and verifies them.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn fetch(
        &self,
        plan: RestorePlan,
        into: &Path,
        progress: &mut (dyn FnMut(DownloadProgress) + Send),
    ) -> Result<RestoreFiles, ArchiveError> {
        std::fs::create_dir_all(into).map_err(ArchiveError::io("create", into))?;
        let objects = || plan.segments.iter().chain(&plan.revocation_journal).chain([&plan.snapshot]);
        let mut done = DownloadProgress {
            objects_total: objects().count() as u64,
            bytes_total: objects().map(|object| object.size_bytes).sum(),
            ..DownloadProgress::default()
        };
        let snapshot = self.snapshot(&plan.snapshot, into, &mut done, progress).await?;
        let log = self.log(&plan, into, &mut done, progress).await?;
        let (revocation_journal, journal_complete_to) =
            self.revocation_journal(&plan, into, &mut done, progress).await?;
        Ok(RestoreFiles {
            plan,
            snapshot,
            journal_complete_to,
            log,
            revocation_journal,
            key: Arc::clone(&self.key),
        })
    }

    async fn snapshot(
        &self,
        object: &Object,
        into: &Path,
        done: &mut DownloadProgress,
        progress: &mut (dyn FnMut(DownloadProgress) + Send),
    ) -> Result<SnapshotFile, ArchiveError> {
        let path = into.join(file_name(object));
        // It is left from an earlier attempt, and nothing in it was verified.
        let _ = std::fs::remove_file(&path);
        let mut step = |bytes| {
            done.bytes += bytes;
            progress(*done);
        };
        self.target.get_file(&object.name, &path, &mut step).await?;
        done.objects += 1;
        let (key, at) = (Arc::clone(&self.key), path.clone());
        let verify = move || SnapshotReader::open(&at, &key).and_then(SnapshotReader::verify);
        let summary =
            tokio::task::spawn_blocking(verify).await.map_err(|e| ArchiveError::Log(e.to_string()))??;
        let header = &summary.file.header;
        let found = (header.cluster, header.lineage_epoch, header.last.map_or(0, |last| last.index));
        if found != (self.cluster, object.epoch, object.last) {
            let found = format!("lineage {}, entry {}", found.1, found.2);
            let meant = format!("lineage {}, entry {}", object.epoch, object.last);
            return Err(ArchiveError::Misplaced { name: object.name.clone(), found, meant });
        }
        Ok(summary.file)
    }

    /// Walks the log. Of the objects that cover the next entry, the one that reaches furthest is tried first.
    async fn log(
        &self,
        plan: &RestorePlan,
        into: &Path,
        done: &mut DownloadProgress,
        progress: &mut (dyn FnMut(DownloadProgress) + Send),
    ) -> Result<Vec<Local>, ArchiveError> {
        let (mut files, mut last) = (Vec::new(), None);
        let mut next = plan.snapshot.last.saturating_add(1);
        while next <= plan.last_index {
            let covering = |segment: &&Object| (segment.first..=segment.last).contains(&next);
            let mut candidates: Vec<&Object> = plan.segments.iter().filter(covering).collect();
            candidates.sort_by_key(|segment| std::cmp::Reverse(segment.last));
            let (segment, bytes, object) = self.first_good(&candidates, next, last).await?;
            files.push(keep(object, &bytes, into, done, progress)?);
            last = segment.records.last().map(segment::digest);
            next = segment.header.last.index.saturating_add(1);
        }
        Ok(files)
    }

    async fn first_good<'a>(
        &self,
        candidates: &[&'a Object],
        next: u64,
        last: Option<[u8; 32]>,
    ) -> Result<(Segment, Vec<u8>, &'a Object), ArchiveError> {
        let mut failed = None;
        for object in candidates {
            let opened = shipper::fetch(&self.target, object, &self.key, self.cluster).await;
            match opened.and_then(|(segment, bytes)| Ok((follows(segment, object, next, last)?, bytes))) {
                Ok((segment, bytes)) => return Ok((segment, bytes, object)),
                // An object under another key may be damaged as well.
                Err(error) if error.is_damage() || matches!(error, ArchiveError::OtherKey { .. }) => {
                    tracing::warn!(%error, "passing over an object of the archive that cannot be used");
                    failed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let reachable = next.saturating_sub(1);
        Err(match failed {
            Some(error) => ArchiveError::Broken { source: Box::new(error), reachable },
            None => ArchiveError::Hole { from: next, to: next, reachable },
        })
    }

    async fn revocation_journal(
        &self,
        plan: &RestorePlan,
        into: &Path,
        done: &mut DownloadProgress,
        progress: &mut (dyn FnMut(DownloadProgress) + Send),
    ) -> Result<(Vec<Local>, u64), ArchiveError> {
        let (mut files, mut good) = (Vec::new(), Vec::new());
        for object in &plan.revocation_journal {
            match shipper::fetch(&self.target, object, &self.key, self.cluster).await {
                Ok((_, bytes)) => {
                    files.push(keep(object, &bytes, into, done, progress)?);
                    good.push(object);
                }
                Err(error) if error.is_damage() => {
                    tracing::warn!(%error, "passing over an object of the journal that cannot be used");
                }
                Err(error) => return Err(error),
            }
        }
        let of_this_lineage = good.into_iter().filter(|object| object.epoch == plan.epoch);
        let from = plan.snapshot.last.saturating_add(1);
        Ok((
            files,
            complete_to(of_this_lineage, from, plan.journal_complete_to).min(plan.journal_complete_to),
        ))
    }
}

fn keep(
    object: &Object,
    bytes: &[u8],
    into: &Path,
    done: &mut DownloadProgress,
    progress: &mut (dyn FnMut(DownloadProgress) + Send),
) -> Result<Local, ArchiveError> {
    let path = into.join(file_name(object));
    std::fs::write(&path, bytes).map_err(ArchiveError::io("write", &path))?;
    done.objects += 1;
    done.bytes += bytes.len() as u64;
    progress(*done);
    Ok(Local { path, name: object.name.clone() })
}

impl RestoreFiles {
    /// The entries after the snapshot up to the point, in order and without a gap.
    pub fn records(&self) -> impl Iterator<Item = Result<LogRecord, ArchiveError>> + '_ {
        let from = self.plan.snapshot.last.saturating_add(1);
        let (until, last) = (self.plan.until, self.plan.last_index);
        in_order(&self.log, &self.key, from)
            .take_while(move |(_, record)| {
                record.as_ref().map_or(true, |record| is_within(record, until, last))
            })
            .map(|(_, record)| record)
    }

    /// The revocations after entry `after` of the plan's lineage, in order. No entry is returned twice.
    pub fn revocations(&self, after: u64) -> impl Iterator<Item = Result<LogRecord, ArchiveError>> + '_ {
        let own_lineage = self.plan.epoch;
        let is_behind = move |(epoch, record): &(u64, Result<LogRecord, ArchiveError>)| {
            *epoch > own_lineage || record.as_ref().map_or(true, |record| record.index > after)
        };
        in_order(&self.revocation_journal, &self.key, 0).filter(is_behind).map(|(_, record)| record)
    }
}

/// The records of files in order with their lineage. Each index of a lineage appears once.
fn in_order<'a>(
    files: &'a [Local],
    key: &'a SealingKey,
    from: u64,
) -> impl Iterator<Item = (u64, Result<LogRecord, ArchiveError>)> + 'a {
    let (mut epoch_before, mut next) = (None, from);
    files
        .iter()
        .flat_map(move |file| match read(file, key) {
            Ok(segment) => {
                let epoch = segment.header.epoch;
                segment.records.into_iter().map(|record| (epoch, Ok(record))).collect::<Vec<_>>()
            }
            Err(error) => vec![(0, Err(error))],
        })
        .filter(move |(epoch, record)| {
            let Ok(record) = record else { return true };
            if epoch_before != Some(*epoch) {
                next = if epoch_before.is_none() { from } else { 0 };
                epoch_before = Some(*epoch);
            }
            let is_new = record.index >= next;
            next = next.max(record.index.saturating_add(1));
            is_new
        })
}

fn read(file: &Local, key: &SealingKey) -> Result<Segment, ArchiveError> {
    let bytes = std::fs::read(&file.path).map_err(ArchiveError::io("read", &file.path))?;
    segment::open(&file.name, &bytes, key)
}

fn is_within(record: &LogRecord, until: Until, last_index: u64) -> bool {
    record.index <= last_index
        && match until {
            Until::Latest | Until::Index(_) => true,
            Until::TimeMs(at) => stamp(record).is_none_or(|stamp| stamp <= at),
        }
}

/// The segment, if it continues directly after what was read: its entry before `next` is the one read last.
fn follows(
    segment: Segment,
    object: &Object,
    next: u64,
    last: Option<[u8; 32]>,
) -> Result<Segment, ArchiveError> {
    let before = match next.checked_sub(segment.header.first.index) {
        Some(0) | None => segment.header.before,
        Some(skipped) => {
            let at = usize::try_from(skipped - 1).unwrap_or(usize::MAX);
            segment.records.get(at).map(segment::digest)
        }
    };
    match (before, last) {
        (Some(before), Some(last)) if before != last => Err(ArchiveError::Damaged {
            name: object.name.clone(),
            at: "its beginning",
            detail: format!("it does not follow entry {}: a segment was exchanged", next.saturating_sub(1)),
        }),
        _ => Ok(segment),
    }
}

/// The last index to fetch, if the log reaches that far.
fn goal(until: Until, segments: &[Object], from: u64, whole_to: u64) -> Result<u64, ArchiveError> {
    let beyond = segments.iter().find(|segment| segment.first > whole_to.saturating_add(1));
    let hole = |goal: u64| match beyond {
        Some(segment) if goal > whole_to => Err(ArchiveError::Hole {
            from: whole_to.saturating_add(1),
            to: segment.first.saturating_sub(1),
            reachable: whole_to,
        }),
        _ => Ok(goal),
    };
    match until {
        Until::Latest => hole(segments.iter().map(|segment| segment.last).max().unwrap_or(whole_to)),
        Until::Index(index) => {
            let index = hole(index)?;
            let until = || format!("entry {index}");
            if index > whole_to {
                Err(ArchiveError::TooShort { last: whole_to, until: until() })
            } else {
                Ok(index)
            }
        }
        Until::TimeMs(at) => {
            // To the end of the first segment that contains a later entry, or of all segments.
            let later =
                segments.iter().filter(|segment| segment.at_ms > at).map(|segment| segment.last).min();
            let end = later.or_else(|| segments.iter().map(|segment| segment.last).max());
            hole(end.unwrap_or_else(|| from.saturating_sub(1)))
        }
    }
}

/// The index up to which the journal is complete. If the log is complete and has no journal, nothing was revoked.
fn complete_to<'a>(revocation_journal: impl Iterator<Item = &'a Object>, from: u64, whole_to: u64) -> u64 {
    let mut next = from;
    for object in revocation_journal {
        if object.first > next {
            return next.saturating_sub(1);
        }
        next = next.max(object.last.saturating_add(1));
    }
    whole_to.max(next.saturating_sub(1))
}

fn file_name(object: &Object) -> String {
    let file = object.name.rsplit('/').next().unwrap_or_default();
    format!("{}-{}-{file}", object.kind.folder(), object.epoch)
}
