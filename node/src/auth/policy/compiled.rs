//! Compiled policies, by version. Derived from the state alone: a version never means two things.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use conclave_policy::Policy;
use conclave_proto::command::v1 as pb;
use conclave_state::policy::Version;

use super::translate;

/// Most versions kept; beyond, all are compiled anew when they are next asked for.
const MAX_KEPT: usize = 1_024;

#[derive(Default)]
pub(super) struct Compiled {
    by_version: RwLock<BTreeMap<u64, Entry>>,
}

struct Entry {
    row: Arc<pb::Policy>,
    /// None: it does not compile on this version of the program, and denies.
    policy: Arc<Option<Policy>>,
}

impl Compiled {
    pub(super) fn get(&self, version: &Version) -> Arc<Option<Policy>> {
        let kept = self.by_version.read().unwrap_or_else(PoisonError::into_inner);
        // The very row: after a snapshot was taken in, a number alone would not say that.
        if let Some(entry) =
            kept.get(&version.version).filter(|entry| Arc::ptr_eq(&entry.row, &version.policy))
        {
            return Arc::clone(&entry.policy);
        }
        drop(kept);
        let policy = translate::spec(&version.policy)
            .and_then(|spec| Policy::compile(&spec).map_err(|e| e.to_string()));
        let policy = policy.inspect_err(|why| {
            tracing::error!(policy.version = version.version, "a policy denies everybody: {why}")
        });
        let policy = Arc::new(policy.ok());
        let mut kept = self.by_version.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        let entry = Entry { row: Arc::clone(&version.policy), policy: Arc::clone(&policy) };
        kept.insert(version.version, entry);
        policy
    }
}
