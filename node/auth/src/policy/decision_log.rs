//! The decision log, for later explanations: every denial, and a sample of the admissions. Kept in memory on the node
//! that decided; the decision id contains the node.
//!
//! Each application has its own places, and denials have places separate from admissions. So a busy application does
//! not push out decisions of others, and a sample does not push out a denial. If there are too many in total, the
//! group with the most entries loses its oldest.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use conclave_policy::VerdictExplanation;
use conclave_state::{ids::ApplicationId, user::User};

use super::circumstances::{AppRequest, Circumstances};
use conclave_base::runtime::Entropy;

/// Maximum number of decisions kept: with paths and explanations about 8 MB at worst.
const MAX_KEPT: usize = 4_096;
/// Maximum number of denials kept per application, the youngest ones.
const MAX_DENIED: usize = 512;
/// Maximum number of admissions kept per application, the youngest ones: for replays of a candidate.
const MAX_ADMITTED: usize = 256;
/// Maximum number of admissions sampled per second, whatever their share. Each is explained and logged, which costs as
/// much as many checks.
const MAX_SAMPLED_A_SECOND: u64 = 50;
/// Maximum length of a recorded path. The query is never recorded, since it may contain secrets.
const MAX_PATH_BYTES: usize = 512;

/// A decision as it was made.
#[derive(Clone, Debug)]
pub struct DecisionRecord {
    pub id: String,
    pub at_ms: u64,
    pub application: ApplicationId,
    pub slug: String,
    /// The user as of that time.
    pub user: Arc<User>,
    pub allowed: bool,
    /// The policy's version; 0 means the access rule.
    pub version: u64,
    /// The row that decided, counted from 0.
    pub row: Option<usize>,
    pub why: VerdictExplanation,
    pub around: RecordedCircumstances,
}

/// The circumstances of a decision, for a replay.
#[derive(Clone, Debug)]
pub struct RecordedCircumstances {
    pub address: Option<IpAddr>,
    /// Method, host and path; `None` if the decision was not about one request.
    pub request: Option<(String, String, String)>,
    /// True if the path was too long to keep, so that the decision cannot be replayed.
    pub is_cut: bool,
    sign_in: Option<(u64, Vec<String>)>,
}

impl From<&Circumstances<'_>> for RecordedCircumstances {
    fn from(around: &Circumstances<'_>) -> Self {
        let path = |request: &AppRequest<'_>| request.target.split('?').next().unwrap_or_default().to_owned();
        let mut request = around.request.map(|request| {
            (request.method.unwrap_or_default().to_owned(), request.host.to_owned(), path(&request))
        });
        let is_cut = request.as_ref().is_some_and(|(.., path)| path.len() > MAX_PATH_BYTES);
        if let (true, Some((.., path))) = (is_cut, &mut request) {
            *path = path.chars().take(MAX_PATH_BYTES / 4).collect();
        }
        let sign_in = around.sign_in.map(|(at_ms, methods)| (at_ms, methods.to_vec()));
        Self { address: around.address, request, is_cut, sign_in }
    }
}

impl RecordedCircumstances {
    /// The recorded circumstances as input for a decision.
    pub(super) fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            address: self.address,
            request: self.request.as_ref().map(|(method, host, target)| AppRequest {
                method: Some(method.as_str()).filter(|method| !method.is_empty()),
                host,
                target,
            }),
            sign_in: self.sign_in.as_ref().map(|(at_ms, methods)| (*at_ms, methods.as_slice())),
        }
    }
}

/// The recent decisions of this node.
pub struct DecisionLog {
    /// One of this many admissions is recorded; 0 records none.
    sample_allows: u64,
    allowed: AtomicU64,
    /// The second of the last sample, and the number of samples in it.
    sampled: Mutex<(u64, u64)>,
    kept: Mutex<Kept>,
}

/// The denials and the admissions of each application.
#[derive(Default)]
struct Kept {
    of: BTreeMap<(ApplicationId, bool), VecDeque<Arc<DecisionRecord>>>,
    count: usize,
}

impl Kept {
    fn push(&mut self, decision: DecisionRecord) {
        let key = (decision.application, decision.allowed);
        let most = if decision.allowed { MAX_ADMITTED } else { MAX_DENIED };
        let own = self.of.entry(key).or_default();
        own.push_back(Arc::new(decision));
        self.count += 1;
        if own.len() > most {
            self.forget_oldest_of(key);
        } else if self.count > MAX_KEPT {
            self.make_room();
        }
    }

    /// Drops the oldest entry of the fullest queue; among equally full queues, the one with the oldest entry.
    fn make_room(&mut self) {
        let oldest = |queue: &VecDeque<Arc<DecisionRecord>>| queue.front().map(|decision| decision.at_ms);
        let fullest = self.of.iter().max_by_key(|(_, queue)| (queue.len(), Reverse(oldest(queue))));
        if let Some(key) = fullest.map(|(key, _)| *key) {
            self.forget_oldest_of(key);
        }
    }

    fn forget_oldest_of(&mut self, key: (ApplicationId, bool)) {
        let Some(queue) = self.of.get_mut(&key) else { return };
        self.count -= usize::from(queue.pop_front().is_some());
        if queue.is_empty() {
            self.of.remove(&key);
        }
    }
}

impl DecisionLog {
    pub(super) fn new(sample_allows: u64) -> Self {
        Self { sample_allows, allowed: AtomicU64::new(0), sampled: Mutex::default(), kept: Mutex::default() }
    }

    /// True if this admission is to be recorded.
    pub(super) fn samples_this(&self, now_ms: u64) -> bool {
        let before = self.allowed.fetch_add(1, Ordering::Relaxed);
        self.sample_allows != 0 && before.is_multiple_of(self.sample_allows) && self.has_room(now_ms / 1_000)
    }

    fn has_room(&self, second: u64) -> bool {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        if sampled.0 != second {
            *sampled = (second, 0);
        }
        sampled.1 += 1;
        sampled.1 <= MAX_SAMPLED_A_SECOND
    }

    pub(super) fn record(&self, decision: DecisionRecord) {
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
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(decision);
    }

    /// The decision with this id, if it is still kept.
    pub fn find(&self, id: &str) -> Option<Arc<DecisionRecord>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.of.values().flatten().find(|decision| decision.id == id).cloned()
    }

    /// The latest decisions that match, at most `most`, newest first.
    pub fn latest(
        &self,
        most: usize,
        is_wanted: impl Fn(&DecisionRecord) -> bool,
    ) -> Vec<Arc<DecisionRecord>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted: Vec<_> = kept.of.values().flatten().filter(|one| is_wanted(one)).cloned().collect();
        drop(kept);
        wanted.sort_by_key(|decision| Reverse(decision.at_ms));
        wanted.truncate(most);
        wanted
    }

    /// The recorded decisions about this application, oldest first.
    pub fn of(&self, application: ApplicationId) -> Vec<Arc<DecisionRecord>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let own = [false, true].into_iter().filter_map(|allowed| kept.of.get(&(application, allowed)));
        let mut own: Vec<_> = own.flatten().cloned().collect();
        own.sort_by_key(|decision| decision.at_ms);
        own
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

/// The node that made the decision; `None` if the text is not a decision id.
pub fn node_of(id: &str) -> Option<u64> {
    let (node, random) = id.split_once('-')?;
    let is_id = random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(node, 16).ok().filter(|_| is_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(application: u16, allowed: bool, at_ms: u64) -> DecisionRecord {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&application.to_be_bytes());
        DecisionRecord {
            id: format!("1-{application:08x}{at_ms:08x}"),
            at_ms,
            application: ApplicationId::new(id),
            slug: format!("app{application}"),
            user: Arc::new(ada()),
            allowed,
            version: 1,
            row: None,
            why: VerdictExplanation { text: String::new(), saw: Vec::new() },
            around: (&Circumstances::default()).into(),
        }
    }

    fn ada() -> User {
        User {
            id: conclave_state::ids::UserId::new([1; 16]),
            username: "ada".into(),
            display_name: String::new(),
            email: String::new(),
            email_verified: false,
            attributes: Vec::new(),
            disabled: false,
            groups: std::iter::empty().collect(),
            created_at: conclave_state::Stamp(0),
            updated_at: conclave_state::Stamp(0),
            unlock_version: 0,
        }
    }

    fn count(decision_log: &DecisionLog, application: u16) -> usize {
        decision_log.of(decision(application, true, 0).application).len()
    }

    #[test]
    fn a_loud_application_pushes_out_nobody_elses_decisions_and_a_sample_no_denial() {
        let decision_log = DecisionLog::new(1);
        decision_log.record(decision(1, false, 1));
        decision_log.record(decision(2, false, 2));
        for at_ms in 3..20_000 {
            decision_log.record(decision(2, true, at_ms));
        }
        assert!(decision_log.find("1-0000000100000001").is_some(), "another's");
        assert!(decision_log.find("1-0000000200000002").is_some(), "its own denial");
        for at_ms in 20_000..30_000 {
            decision_log.record(decision(2, false, at_ms));
        }
        assert!(decision_log.find("1-0000000100000001").is_some());
        assert_eq!(count(&decision_log, 2), MAX_DENIED + MAX_ADMITTED);
        assert!(decision_log.find(&format!("1-00000002{:08x}", 29_999)).is_some(), "the youngest stay");
    }

    #[test]
    fn altogether_there_are_not_more_than_so_many_and_whoever_has_most_makes_room() {
        let decision_log = DecisionLog::new(1);
        decision_log.record(decision(1, false, 1));
        for application in 2..60 {
            for at_ms in 0..400 {
                decision_log.record(decision(application, false, at_ms));
            }
        }
        let kept: usize = (1..60).map(|application| count(&decision_log, application)).sum();
        assert_eq!(kept, MAX_KEPT);
        assert_eq!(count(&decision_log, 1), 1, "who has few loses none");
    }

    #[test]
    fn what_is_let_in_is_sampled_by_share_and_not_more_than_so_often_in_a_second() {
        let decision_log = DecisionLog::new(10);
        let sampled = |now_ms| (0..100).filter(|_| decision_log.samples_this(now_ms)).count();
        assert_eq!(sampled(1_000), 10);
        assert_eq!((0..100).map(|_| sampled(2_000)).sum::<usize>(), 50);
        assert_eq!(sampled(3_000), 10);
    }
}
