//! The effect that a candidate policy would have had on real requests to this node.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use conclave_policy::{PolicyVerdict, Reason};
use conclave_state::{application::Application, ids::ApplicationId};

/// The username of a visitor without a session.
pub(super) const VISITOR: &str = "";
/// The candidate's verdict on a request that needs no sign-in.
pub(super) const OPEN: PolicyVerdict = PolicyVerdict { allowed: true, row: None, reason: Reason::Matched };
pub(super) const IS_PUBLIC: &str = "this path needs no sign-in";
/// The candidate's verdict on a request that needs a sign-in and has none.
pub(super) const CLOSED: PolicyVerdict = PolicyVerdict { allowed: false, row: None, reason: Reason::NoRow };
pub(super) const IS_NOT_PUBLIC: &str = "this path needs a sign-in";

/// Maximum number of candidates watched at once.
const MAX_WATCHED: usize = 256;
/// Maximum number of differences listed, the youngest ones; each is of one user, in one direction, by one row.
const MAX_DIFFERENCES: usize = 100;

/// The observations about one candidate on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShadowReport {
    /// The candidate's version.
    pub version: u64,
    /// Requests that both policies decided.
    pub seen: u64,
    /// Admitted now, and denied by the candidate.
    pub would_deny: u64,
    /// Denied now, and admitted by the candidate.
    pub would_allow: u64,
    /// Of `would_deny`, those where the candidate could not be evaluated.
    pub faults: u64,
    /// The youngest differences, oldest first.
    pub differences: VecDeque<ShadowDifference>,
}

/// One kind of difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowDifference {
    /// Empty if no user was signed in.
    pub username: String,
    /// The candidate's verdict.
    pub would_allow: bool,
    pub row: Option<usize>,
    pub text: String,
    /// The number of occurrences.
    pub count: u64,
    /// The time of the last occurrence.
    pub at_ms: u64,
}

/// The decision that was made, and the candidate's verdict.
pub(super) struct Verdicts {
    pub(super) is_allowed: bool,
    pub(super) would: PolicyVerdict,
    /// The explanation of the candidate's verdict; used when it differs.
    pub(super) why: String,
}

/// The reports of all watched candidates.
#[derive(Default)]
pub struct Shadows {
    reports: Mutex<BTreeMap<ApplicationId, ShadowReport>>,
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
            *report = ShadowReport { version, ..ShadowReport::default() };
        }
        report.note(username, verdicts, at_ms);
    }

    /// The report about this version of the candidate.
    pub fn report(&self, application: ApplicationId, version: u64) -> ShadowReport {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let known = reports.get(&application).filter(|report| report.version == version);
        known.cloned().unwrap_or_else(|| ShadowReport { version, ..ShadowReport::default() })
    }
}

impl ShadowReport {
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
        let is_same = |known: &ShadowDifference| {
            known.username == username && known.would_allow == would.allowed && known.row == would.row
        };
        let before = self.differences.iter().position(is_same).and_then(|at| self.differences.remove(at));
        if self.differences.len() >= MAX_DIFFERENCES {
            self.differences.pop_front();
        }
        self.differences.push_back(ShadowDifference {
            username: username.to_owned(),
            would_allow: would.allowed,
            row: would.row,
            text: why,
            count: before.map_or(1, |before| before.count + 1),
            at_ms,
        });
    }
}
