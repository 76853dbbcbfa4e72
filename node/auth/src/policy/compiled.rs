//! Compiled policies, by version. They are derived from the state alone, and a version never changes its meaning.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use conclave_policy::Policy;
use conclave_proto::command::v1 as pb;
use conclave_state::policy::Version;

use super::translate;

/// Maximum number of versions kept; beyond it all are dropped and compiled again on demand.
const MAX_KEPT: usize = 1_024;

#[derive(Default)]
pub(super) struct CompiledPolicies {
    by_version: RwLock<BTreeMap<u64, Entry>>,
}

struct Entry {
    row: Arc<pb::Policy>,
    /// `None` if it does not compile on this version of the program; it then denies.
    policy: Arc<Option<Policy>>,
}

impl CompiledPolicies {
    pub(super) fn get(&self, version: &Version) -> Arc<Option<Policy>> {
        let kept = self.by_version.read().unwrap_or_else(PoisonError::into_inner);
        // Compares the row itself: after a snapshot was installed, an equal version number would not be enough.
        if let Some(entry) =
            kept.get(&version.version).filter(|entry| Arc::ptr_eq(&entry.row, &version.policy))
        {
            return Arc::clone(&entry.policy);
        }
        drop(kept);
        let policy = translate::spec(&version.policy)
            .and_then(|spec| Policy::compile(&spec).map_err(|e| e.to_string()));
        let policy = policy.inspect_err(|why| {
            tracing::error!(
                policy.version = version.version,
                "a policy does not compile and denies every request: {why}"
            )
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
