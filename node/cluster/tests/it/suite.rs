//! openraft's own storage suite: our log over both stores, and the replicated state with its snapshot files.

use std::sync::Arc;

use conclave_base::runtime::Runtime;
use conclave_cluster::Lineage;
use conclave_cluster::log_store::LogStorage;
use conclave_cluster::testing::{LocalSnapshots, StateMachine};
use conclave_cluster::types::Config;
use conclave_store::snapshot::{SealingKey, SnapshotDir};
use conclave_store::{LogWriter, MemLog, SledLog};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

struct OnDisk;
struct InMemory;
struct InMemoryInline;

type Built = Result<(tempfile::TempDir, LogStorage, StateMachine), StorageError<Config>>;

fn built(log: impl FnOnce(&std::path::Path) -> LogWriter) -> Built {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = LocalSnapshots {
        dir: Arc::new(SnapshotDir::open(&dir.path().join("snapshots")).unwrap()),
        key: Arc::new(SealingKey::new([7; 32])),
        lineage: Lineage { cluster: [1; 16], epoch: 1 },
        runtime: Runtime::system(),
    };
    let (machine, _) = StateMachine::open(snapshots).unwrap();
    let log = LogStorage::new(log(&dir.path().join("log"))).unwrap();
    Ok((dir, log, machine))
}

impl StoreBuilder<Config, LogStorage, StateMachine, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Built {
        built(|path| LogWriter::start(SledLog::create(path).unwrap()).unwrap())
    }
}

impl StoreBuilder<Config, LogStorage, StateMachine, tempfile::TempDir> for InMemory {
    async fn build(&self) -> Built {
        built(|_| LogWriter::start(MemLog::new()).unwrap())
    }
}

impl StoreBuilder<Config, LogStorage, StateMachine, tempfile::TempDir> for InMemoryInline {
    async fn build(&self) -> Built {
        built(|_| LogWriter::inline(MemLog::new()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_over_sled() {
    Suite::<Config, LogStorage, StateMachine, _, _>::test_all(OnDisk).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_over_memory() {
    Suite::<Config, LogStorage, StateMachine, _, _>::test_all(InMemory).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_over_memory_without_a_thread() {
    Suite::<Config, LogStorage, StateMachine, _, _>::test_all(InMemoryInline).await.unwrap();
}
