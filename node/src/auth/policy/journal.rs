//! Decisions that can be explained later: every deny, and a sample of what was let in. In memory, on the node that decided; the id
//! names it.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use conclave_policy::Why;
use conclave_state::{ids::ApplicationId, user::User};

use super::circumstances::{Asked, Circumstances};
use crate::runtime::Entropy;

/// Most decisions kept, the youngest: with paths and explanations about 4 MB at the worst.
const MAX_KEPT: usize = 2_048;
/// Longest path kept; the query never is, for it may hold secrets.
const MAX_PATH_BYTES: usize = 512;

/// A decision as it was made.
#[derive(Clone, Debug)]
pub struct Decision {
    pub id: String,
    pub at_ms: u64,
    pub application: ApplicationId,
    pub slug: String,
    /// The person as they were then.
    pub user: Arc<User>,
    pub allowed: bool,
    /// The policy's version; 0 = the access rule.
    pub version: u64,
    /// The row that decided, from 0.
    pub row: Option<usize>,
    pub why: Why,
    pub around: Remembered,
}

/// What a decision was made from, for looking at it again.
#[derive(Clone, Debug)]
pub struct Remembered {
    pub address: Option<IpAddr>,
    /// Method, host and path; none: not for one request.
    pub request: Option<(String, String, String)>,
    /// The path was too long to keep, so that nobody can decide again.
    pub is_cut: bool,
    sign_in: Option<(u64, Vec<String>)>,
}

impl From<&Circumstances<'_>> for Remembered {
    fn from(around: &Circumstances<'_>) -> Self {
        let path = |asked: &Asked<'_>| asked.target.split('?').next().unwrap_or_default().to_owned();
        let mut request = around
            .request
            .map(|asked| (asked.method.unwrap_or_default().to_owned(), asked.host.to_owned(), path(&asked)));
        let is_cut = request.as_ref().is_some_and(|(.., path)| path.len() > MAX_PATH_BYTES);
        if let (true, Some((.., path))) = (is_cut, &mut request) {
            *path = path.chars().take(MAX_PATH_BYTES / 4).collect();
        }
        let sign_in = around.sign_in.map(|(at_ms, methods)| (at_ms, methods.to_vec()));
        Self { address: around.address, request, is_cut, sign_in }
    }
}

impl Remembered {
    /// The same circumstances again.
    pub(super) fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            address: self.address,
            request: self.request.as_ref().map(|(method, host, target)| Asked {
                method: Some(method.as_str()).filter(|method| !method.is_empty()),
                host,
                target,
            }),
            sign_in: self.sign_in.as_ref().map(|(at_ms, methods)| (*at_ms, methods.as_slice())),
        }
    }
}

/// What this node decided lately.
pub struct Journal {
    /// Of so many that were let in, one is kept; 0 = none.
    sample_allows: u64,
    allowed: AtomicU64,
    kept: Mutex<VecDeque<Arc<Decision>>>,
}

impl Journal {
    pub(super) const fn new(sample_allows: u64) -> Self {
        Self { sample_allows, allowed: AtomicU64::new(0), kept: Mutex::new(VecDeque::new()) }
    }

    /// Whether this one of those that are let in is kept.
    pub(super) fn samples_this(&self) -> bool {
        let before = self.allowed.fetch_add(1, Ordering::Relaxed);
        self.sample_allows != 0 && before.is_multiple_of(self.sample_allows)
    }

    pub(super) fn record(&self, decision: Decision) {
        let line = &decision;
        tracing::info!(
            decision.id = %line.id,
            application.slug = %line.slug,
            user.name = %line.user.username,
            allowed = line.allowed,
            policy.version = line.version,
            "decision {}: {} {} {}: {}",
            line.id,
            line.user.username,
            if line.allowed { "may open" } else { "may not open" },
            line.slug,
            line.why.text
        );
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::new(decision));
    }

    /// The decision with this id, if it is still kept.
    pub fn find(&self, id: &str) -> Option<Arc<Decision>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().find(|decision| decision.id == id).cloned()
    }

    /// What is kept about this application, oldest first.
    pub fn of(&self, application: ApplicationId) -> Vec<Arc<Decision>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|decision| decision.application == application).cloned().collect()
    }
}

/// `node-random`, both hexadecimal.
pub(super) fn new_id(node: u64, entropy: &dyn Entropy) -> String {
    let random: [u8; 8] = entropy.bytes();
    random.iter().fold(format!("{node:x}-"), |mut id, byte| {
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// Which node made the decision; none: it is no id of a decision.
pub fn node_of(id: &str) -> Option<u64> {
    let (node, random) = id.split_once('-')?;
    let is_id = random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(node, 16).ok().filter(|_| is_id)
}
