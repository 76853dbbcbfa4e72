//! A log that grows without a cluster, and its archive.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use conclave_proto::{
    cluster::v1 as pb,
    command::v1::{Command, LogEntry, RevokeSession, Sweep, command::Body},
};
use prost::Message as _;

use super::super::{
    ArchiveError, ArchiveTarget,
    keep::RetentionPolicy,
    keeper::Keeper,
    progress::ArchiveProgress,
    read::{Reader, RestoreFiles, Until},
    shipper::Shipper,
    source::{Source, Taken},
};
use super::faulty::Faulty;
use conclave_base::runtime::{
    Runtime,
    testing::{FixedClock, SeededEntropy},
};
use conclave_config::{Keep, ScheduleConfig};
use conclave_store::{
    LogId, LogRecord,
    retention::ArchiveHold,
    snapshot::{SealingKey, SnapshotHeader, SnapshotWriter},
};

pub(super) const START_MS: u64 = 1_800_000_000_000;
pub(super) const CLUSTER: [u8; 16] = [7; 16];

/// The log of a cluster.
#[derive(Default)]
struct Log {
    records: Vec<LogRecord>,
    first: u64,
    epoch: u64,
    secret_since_ms: u64,
}

/// The part of one node.
pub(super) struct Node {
    log: Arc<Mutex<Log>>,
    id: u64,
    leads: Mutex<bool>,
    said: Mutex<(ArchiveHold, pb::ArchiveStatus)>,
    runtime: Runtime,
}

pub(super) struct World {
    log: Arc<Mutex<Log>>,
    pub clock: Arc<FixedClock>,
    pub store: Faulty,
}

/// A node with its archive tasks.
pub(super) struct Archiving {
    pub node: Arc<Node>,
    pub shipper: Shipper,
    pub keeper: Keeper,
}

impl World {
    pub(super) fn new() -> Self {
        Self { log: Arc::default(), clock: FixedClock::at(START_MS), store: Faulty::default() }
    }

    /// Another copy of the cluster, which begins empty and writes to the same target.
    pub(super) fn copy(&self) -> Self {
        Self { log: Arc::default(), clock: Arc::clone(&self.clock), store: self.store.clone() }
    }

    pub(super) fn key() -> SealingKey {
        SealingKey::new([1; 32])
    }

    pub(super) fn target(&self) -> ArchiveTarget {
        ArchiveTarget::over(Arc::new(self.store.clone()))
    }

    /// A node that leads.
    pub(super) fn node(&self, id: u64) -> Archiving {
        self.node_at(id, self.target())
    }

    pub(super) fn node_at(&self, id: u64, target: ArchiveTarget) -> Archiving {
        let runtime = Runtime { clock: self.clock.clone(), entropy: SeededEntropy::new(id) };
        let node = Arc::new(Node {
            log: Arc::clone(&self.log),
            id,
            leads: Mutex::new(true),
            said: Mutex::default(),
            runtime: runtime.clone(),
        });
        let progress = Arc::new(ArchiveProgress::new("memory", 1 << 30));
        let source: Arc<dyn Source> = Arc::<Node>::clone(&node);
        let shipper = Shipper::new(
            Arc::clone(&source),
            target.clone(),
            Arc::new(Self::key()),
            runtime.clone(),
            Arc::clone(&progress),
        );
        let keeper = Keeper {
            source,
            target,
            runtime,
            progress,
            schedule: ScheduleConfig::Every(3_600_000),
            policy: RetentionPolicy { keep: Keep::default(), journal_ms: 86_400_000 },
        };
        Archiving { node, shipper, keeper }
    }

    /// Adds entries, stamped a millisecond apart; every fifth one is a revocation.
    pub(super) fn write(&self, count: u64) {
        let mut log = self.log.lock().unwrap();
        for _ in 0..count {
            let index = log.first + log.records.len() as u64;
            self.clock.advance(Duration::from_millis(1));
            let body = if index.is_multiple_of(5) {
                Body::RevokeSession(RevokeSession::default())
            } else {
                Body::Sweep(Sweep { limit: 1 })
            };
            let command =
                Command { request_id: index.to_be_bytes().to_vec(), body: Some(body) }.encode_to_vec();
            let entry = LogEntry { at_ms: stamp_of(index), command };
            let payload = [&[1, 1], entry.encode_to_vec().as_slice()].concat();
            log.records.push(LogRecord { term: 1 + index / 50, index, payload });
        }
    }

    /// Purges the entries before `first`.
    pub(super) fn purge_before(&self, first: u64) {
        let mut log = self.log.lock().unwrap();
        log.records.retain(|record| record.index >= first);
        log.first = first;
    }

    pub(super) fn alter(&self, index: u64) {
        let mut log = self.log.lock().unwrap();
        log.records.iter_mut().find(|record| record.index == index).unwrap().payload.push(0);
    }

    /// Restores the cluster: its log continues in another lineage.
    pub(super) fn begin_lineage(&self, epoch: u64) {
        let mut log = self.log.lock().unwrap();
        log.first += log.records.len() as u64;
        log.records.clear();
        log.epoch = epoch;
    }

    /// Switches to another secret from here on.
    pub(super) fn change_secret(&self, ahead_ms: u64) {
        let at_ms = stamp_of(self.last()) + ahead_ms;
        self.log.lock().unwrap().secret_since_ms = at_ms;
    }

    pub(super) fn records(&self, from: u64, to: u64) -> Vec<LogRecord> {
        let log = self.log.lock().unwrap();
        log.records.iter().filter(|record| (from..=to).contains(&record.index)).cloned().collect()
    }

    pub(super) fn last(&self) -> u64 {
        let log = self.log.lock().unwrap();
        log.first + log.records.len() as u64 - 1
    }

    pub(super) async fn reader(&self) -> Reader {
        Reader::over(self.target(), Arc::new(Self::key())).await.unwrap()
    }

    pub(super) async fn restore(&self, until: Until) -> Result<RestoreFiles, ArchiveError> {
        self.restore_lineage(until, None).await
    }

    pub(super) async fn restore_lineage(
        &self,
        until: Until,
        lineage: Option<u64>,
    ) -> Result<RestoreFiles, ArchiveError> {
        let directory = tempfile::tempdir().unwrap().keep();
        self.reader().await.of_lineage(lineage).restore(until, &directory, &mut |_| ()).await
    }
}

pub(super) fn stamp_of(index: u64) -> u64 {
    START_MS + 10 * index
}

impl Archiving {
    /// Ships the log, whatever the state of snapshots.
    pub(super) async fn catch_up_log(&mut self) {
        self.shipper.tick().await;
        assert_eq!(self.node.status().behind_entries, 0);
    }

    /// Ships until nothing is left.
    pub(super) async fn catch_up(&mut self) {
        for _ in 0..40 {
            self.shipper.tick().await;
            let status = self.node.status();
            if status.behind_entries == 0 && status.last_error.is_empty() {
                return;
            }
        }
        panic!("it does not catch up: {:?}", self.node.status());
    }
}

impl Node {
    pub(super) fn lead(&self, leads: bool) {
        *self.leads.lock().unwrap() = leads;
    }

    pub(super) fn status(&self) -> pb::ArchiveStatus {
        self.said.lock().unwrap().1.clone()
    }

    pub(super) fn hold(&self) -> ArchiveHold {
        self.said.lock().unwrap().0
    }
}

#[async_trait]
impl Source for Node {
    fn leads(&self) -> bool {
        *self.leads.lock().unwrap()
    }

    fn node(&self) -> u64 {
        self.id
    }

    fn cluster(&self) -> [u8; 16] {
        CLUSTER
    }

    fn epoch(&self) -> u64 {
        self.log.lock().unwrap().epoch
    }

    fn applied(&self) -> u64 {
        let log = self.log.lock().unwrap();
        (log.first + log.records.len() as u64).saturating_sub(1)
    }

    fn secret_since_ms(&self) -> u64 {
        self.log.lock().unwrap().secret_since_ms
    }

    fn first_index(&self) -> Option<u64> {
        Some(self.log.lock().unwrap().first)
    }

    /// Returns seven at a time, so that a history has many segments.
    async fn entries(&self, from: u64, _max_bytes: usize) -> Result<Vec<LogRecord>, ArchiveError> {
        let log = self.log.lock().unwrap();
        Ok(log.records.iter().filter(|record| record.index >= from).take(7).cloned().collect())
    }

    async fn take_snapshot(&self) -> Result<Taken, ArchiveError> {
        let dir = tempfile::tempdir().unwrap();
        let applied = self.applied();
        let header = SnapshotHeader {
            cluster: CLUSTER,
            lineage_epoch: self.epoch(),
            last: Some(LogId { term: 1 + applied / 50, index: applied }),
            membership: Vec::new(),
            created_at_ms: stamp_of(applied),
        };
        let fill = |salt: &mut [u8]| self.runtime.entropy.fill(salt);
        let mut writer = SnapshotWriter::create(dir.path(), header, &World::key(), fill)?;
        writer.chunk(1, &[9; 3_000])?;
        Ok(Taken { file: writer.finish()?, held: Box::new(dir) })
    }

    fn report(&self, hold: ArchiveHold, status: pb::ArchiveStatus) {
        *self.said.lock().unwrap() = (hold, status);
    }
}
