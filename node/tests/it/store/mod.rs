//! The store room from outside: the log's rules on disk and in memory, crashes, damage, system calls, snapshots.

mod adapter;
mod child;
mod damage;
mod data_dir;
mod kill;
mod log;
mod snapshot;
mod strace;
mod suite;
mod writer;

use conclave_node::store::{Flush, LogRecord, LogStore, Op, StoreError};

pub fn record(term: u64, index: u64, payload: &[u8]) -> LogRecord {
    LogRecord { term, index, payload: payload.to_vec() }
}

pub fn append(store: &mut impl LogStore, records: Vec<LogRecord>) -> Result<(), StoreError> {
    store.commit(vec![Op::Append(records)], Flush::Durable)
}

/// Every entry of a log.
pub fn all(store: &impl LogStore) -> Vec<LogRecord> {
    store.reader().read(0, u64::MAX, usize::MAX).unwrap()
}
