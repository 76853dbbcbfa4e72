//! What a candidate would have changed, over what really was asked of this node.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use conclave_policy::{Reason, Verdict};
use conclave_state::{application::Application, ids::ApplicationId};

/// In place of a username: nobody was signed in.
pub(super) const VISITOR: &str = "";
/// What a candidate says of a request that needs no sign-in.
pub(super) const OPEN: Verdict = Verdict { allowed: true, row: None, reason: Reason::Matched };
pub(super) const IS_PUBLIC: &str = "this path needs no sign-in";
/// And of one that does, when nobody is signed in.
pub(super) const CLOSED: Verdict = Verdict { allowed: false, row: None, reason: Reason::NoRow };
pub(super) const IS_NOT_PUBLIC: &str = "this path needs a sign-in";

/// Most candidates watched at once.
const MAX_WATCHED: usize = 256;
/// Most differences listed, the youngest; each of one person, in one direction, by one row.
const MAX_DIFFERENCES: usize = 100;

/// What was seen of one candidate on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The candidate's version.
    pub version: u64,
    /// Requests that both decided.
    pub seen: u64,
    /// Let in now, and denied by the candidate.
    pub would_deny: u64,
    /// Denied now, and let in by the candidate.
    pub would_allow: u64,
    /// Of those that it would deny: because it could not be told.
    pub faults: u64,
    /// The youngest differences, oldest first.
    pub differences: VecDeque<Difference>,
}

/// One way in which the candidate differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Empty: nobody was signed in.
    pub username: String,
    /// What the candidate says.
    pub would_allow: bool,
    pub row: Option<usize>,
    pub text: String,
    /// How often.
    pub count: u64,
    /// The last time.
    pub at_ms: u64,
}

/// What is, and what would be.
pub(super) struct Verdicts {
    pub(super) is_allowed: bool,
    pub(super) would: Verdict,
    /// Why it would; looked at when it is another.
    pub(super) why: String,
}

/// All candidates that are watched.
#[derive(Default)]
pub struct Shadows {
    reports: Mutex<BTreeMap<ApplicationId, Report>>,
}

impl Shadows {
    pub(super) fn note(
        &self,
        application: &Application,
        version: u64,
        username: &str,
        verdicts: Verdicts,
        at_ms: u64,
    ) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if reports.len() >= MAX_WATCHED && !reports.contains_key(&application.id) {
            return;
        }
        let report = reports.entry(application.id).or_default();
        if report.version != version {
            *report = Report { version, ..Report::default() };
        }
        report.note(username, verdicts, at_ms);
    }

    /// What was seen of this version of the candidate.
    pub fn report(&self, application: ApplicationId, version: u64) -> Report {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let known = reports.get(&application).filter(|report| report.version == version);
        known.cloned().unwrap_or_else(|| Report { version, ..Report::default() })
    }
}

impl Report {
    fn note(&mut self, username: &str, Verdicts { is_allowed, would, why }: Verdicts, at_ms: u64) {
        self.seen += 1;
        if is_allowed == would.allowed {
            return;
        }
        if would.allowed {
            self.would_allow += 1;
        } else {
            self.would_deny += 1;
            self.faults += u64::from(matches!(would.reason, Reason::Fault(_)));
        }
        let is_same = |known: &Difference| {
            known.username == username && known.would_allow == would.allowed && known.row == would.row
        };
        let before = self.differences.iter().position(is_same).and_then(|at| self.differences.remove(at));
        if self.differences.len() >= MAX_DIFFERENCES {
            self.differences.pop_front();
        }
        self.differences.push_back(Difference {
            username: username.to_owned(),
            would_allow: would.allowed,
            row: would.row,
            text: why,
            count: before.map_or(1, |before| before.count + 1),
            at_ms,
        });
    }
}
