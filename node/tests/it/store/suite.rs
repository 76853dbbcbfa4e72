//! openraft's own storage suite over both stores.

use std::io;

use conclave_node::cluster::log_store::LogStorage;
use conclave_node::cluster::types::{Config, LogId, Outcome, SnapshotMeta, StoredMembership};
use conclave_node::store::{LogWriter, MemLog, SledLog};
use futures_util::{Stream, TryStreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, RaftSnapshotBuilder, StorageError};

/// The least state machine the suite accepts: it knows how far it got and who the members are.
#[derive(Clone, Default)]
struct Applied {
    last: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

impl RaftSnapshotBuilder<Config> for Applied {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Config, ()>, io::Error> {
        Ok(SnapshotOf::<Config, ()> { meta: self.meta(), snapshot: () })
    }
}

impl Applied {
    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() }
    }
}

impl RaftStateMachine<Config> for Applied {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Config>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.last = Some(entry.log_id());
            if let Some(membership) = entry.get_membership() {
                self.membership = StoredMembership::new(Some(entry.log_id()), membership);
            }
            if let Some(responder) = responder {
                responder.send(Outcome::default());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.snapshot = Some(self.meta());
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): ()) -> Result<(), io::Error> {
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Config, ()>>, io::Error> {
        Ok(self.snapshot.clone().map(|meta| SnapshotOf::<Config, ()> { meta, snapshot: () }))
    }
}

struct OnDisk;
struct InMemory;
struct InMemoryInline;

impl StoreBuilder<Config, LogStorage, Applied, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStorage, Applied), StorageError<Config>> {
        let dir = tempfile::tempdir().unwrap();
        let writer = LogWriter::start(SledLog::create(&dir.path().join("log")).unwrap()).unwrap();
        Ok((dir, LogStorage::new(writer).unwrap(), Applied::default()))
    }
}

impl StoreBuilder<Config, LogStorage, Applied, ()> for InMemory {
    async fn build(&self) -> Result<((), LogStorage, Applied), StorageError<Config>> {
        let writer = LogWriter::start(MemLog::new()).unwrap();
        Ok(((), LogStorage::new(writer).unwrap(), Applied::default()))
    }
}

impl StoreBuilder<Config, LogStorage, Applied, ()> for InMemoryInline {
    async fn build(&self) -> Result<((), LogStorage, Applied), StorageError<Config>> {
        Ok(((), LogStorage::new(LogWriter::inline(MemLog::new())).unwrap(), Applied::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_over_sled() {
    Suite::<Config, LogStorage, Applied, _, _>::test_all(OnDisk).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_over_memory() {
    Suite::<Config, LogStorage, Applied, _, _>::test_all(InMemory).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_over_memory_without_a_thread() {
    Suite::<Config, LogStorage, Applied, _, _>::test_all(InMemoryInline).await.unwrap();
}
