//! Decisions without a request: tests of a policy, and replays of a candidate. They are not recorded.

use std::{net::IpAddr, sync::Arc};

use conclave_policy::VerdictExplanation;
use conclave_state::{State, application::Application, policy::Version, user::User};

use super::{Auth, Circumstances, DecisionRecord, why_of_access_rule};

/// The circumstances of a test.
#[derive(Clone, Debug)]
pub struct Subject {
    pub address: Option<IpAddr>,
    /// Method, host, path.
    pub request: Option<(String, String, String)>,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// The methods of a sign-in at that very moment (RFC 8176).
    pub methods: Vec<String>,
    /// True to test the candidate instead of the active policy.
    pub candidate: bool,
}

/// The result of a test.
#[derive(Clone, Debug)]
pub struct PolicyTestResult {
    pub allowed: bool,
    /// Counted from 0.
    pub row: Option<usize>,
    /// 0 = the access rule.
    pub version: u64,
    pub why: VerdictExplanation,
}

/// A recorded decision that a candidate would change.
#[derive(Clone, Debug)]
pub struct ChangedDecision {
    pub decision: Arc<DecisionRecord>,
    pub would: PolicyTestResult,
}

impl Auth {
    /// Tests if this user could open the application. `None` if the candidate is to be tested and there is none.
    pub fn test_policy(
        &self,
        state: &State,
        application: &Application,
        user: &Arc<User>,
        subject: &Subject,
    ) -> Option<PolicyTestResult> {
        let around = Circumstances {
            address: subject.address,
            request: subject.request.as_ref().map(|(method, host, target)| super::AppRequest {
                method: Some(method.as_str()),
                host,
                target,
            }),
            sign_in: Some((subject.at_ms, &subject.methods)),
        };
        if subject.candidate {
            let version = state.candidate_policy(application.id)?;
            return Some(self.found(version, state, user, &around, subject.at_ms));
        }
        let Some(version) = state.active_policy(application.id) else {
            let (allowed, why) = (application.access.admits(user), why_of_access_rule(application, user));
            return Some(PolicyTestResult { allowed, row: None, version: 0, why });
        };
        Some(self.found(version, state, user, &around, subject.at_ms))
    }

    /// Replays the decisions that this node recorded against the candidate. Returns how many could be replayed, and
    /// those that the candidate changes.
    pub fn replay(
        &self,
        state: &State,
        application: &Application,
        candidate: &Version,
    ) -> (u64, Vec<ChangedDecision>) {
        let (mut looked_at, mut changed) = (0, Vec::new());
        for decision in self.policies().decision_log().of(application.id) {
            if decision.around.is_cut {
                continue;
            }
            looked_at += 1;
            let around = decision.around.circumstances();
            let would = self.found(candidate, state, &decision.user, &around, decision.at_ms);
            if would.allowed != decision.allowed {
                changed.push(ChangedDecision { decision, would });
            }
        }
        (looked_at, changed)
    }

    fn found(
        &self,
        version: &Version,
        state: &State,
        user: &Arc<User>,
        around: &Circumstances<'_>,
        at_ms: u64,
    ) -> PolicyTestResult {
        let judged = self.judged_by(version, state, user, around, at_ms);
        let why = self.why_of(version, &judged, state, user, around, at_ms);
        PolicyTestResult {
            allowed: judged.verdict.allowed,
            row: judged.verdict.row,
            version: version.version,
            why,
        }
    }
}
