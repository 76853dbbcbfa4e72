//! The store from outside: the rules of the log on disk and in memory, damage, snapshots.

#[cfg(test)]
mod damage;
#[cfg(test)]
mod data_dir;
#[cfg(test)]
mod log;
#[cfg(test)]
mod snapshot;
#[cfg(test)]
mod writer;

#[cfg(test)]
use conclave_store::{Flush, LogRecord, LogStore, Op, StoreError};

#[cfg(test)]
fn record(term: u64, index: u64, payload: &[u8]) -> LogRecord {
    LogRecord { term, index, payload: payload.to_vec() }
}

#[cfg(test)]
fn append(store: &mut impl LogStore, records: Vec<LogRecord>) -> Result<(), StoreError> {
    store.commit(vec![Op::Append(records)], Flush::Durable)
}

/// Every entry of a log.
#[cfg(test)]
fn all(store: &impl LogStore) -> Vec<LogRecord> {
    store.reader().read(0, u64::MAX, usize::MAX).unwrap()
}
