//! **Decides if a user may open an application now.** The one place where policies meet requests: forward-auth, OIDC
//! and the pages all call it. This module gathers the facts for a policy; `conclave-policy` evaluates it.
//!
//! | file | owns |
//! |---|---|
//! | `circumstances` | the facts besides the user: address, request, sign-in |
//! | `document` | a policy as operators write it (TOML, JSON), to and from the replicated row |
//! | `translate` | from the replicated row to the compiler's input |
//! | `compiled` | compiled policies, by version |
//! | `geo` | countries and autonomous systems, from local files |
//! | `decision_log` | the decision log, for later explanations |
//! | `shadow` | the effect that a candidate would have had |
//! | `inquiry` | decisions without a request: tests, replays |
//!
//! An application without a policy is decided by its access rule and recorded alike. A decision is local: no write, no
//! network hop.

mod circumstances;
mod compiled;
mod decision_log;
pub mod document;
mod geo;
mod inquiry;
mod shadow;
mod translate;

use std::sync::Arc;

use conclave_policy::{CanonicalPath, Facts, Policy, PolicyVerdict, VerdictExplanation};
use conclave_state::{State, application::Application, client::Client, policy::Version, user::User};
use http::{HeaderName, HeaderValue};

pub(crate) use circumstances::user_facts;
pub use circumstances::{AppRequest, Circumstances};
pub use decision_log::{DecisionRecord, node_of};
pub use inquiry::{ChangedDecision, PolicyTestResult, Subject};
pub use shadow::{ShadowDifference, ShadowReport};

use super::Auth;
use compiled::CompiledPolicies;
use conclave_config as config;
use decision_log::DecisionLog;
use geo::Geo;
use shadow::{Shadows, Verdicts};

/// Compiled policies and the data that goes with them.
pub struct Policies {
    compiled: CompiledPolicies,
    geo: Arc<Geo>,
    decision_log: DecisionLog,
    shadows: Shadows,
}

/// The decision about a request.
#[derive(Clone, Debug)]
pub struct Judgement {
    pub allowed: bool,
    /// The id under which the decision can be explained; set for every denial by a policy or an access rule.
    pub decision: Option<String>,
    /// Extra headers for an admitted request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Policies {
    pub fn new(settings: &config::PolicyConfig) -> Self {
        Self {
            compiled: CompiledPolicies::default(),
            geo: Arc::new(Geo::open(&settings.geoip)),
            decision_log: DecisionLog::new(settings.sample_allows),
            shadows: Shadows::default(),
        }
    }

    /// Reads the files of `policy.geoip` again when they change, for as long as the node runs.
    pub fn keep_places_fresh(&self) -> impl Future<Output = ()> + Send + use<> {
        geo::keep_fresh(Arc::clone(&self.geo))
    }

    pub const fn shadows(&self) -> &Shadows {
        &self.shadows
    }

    pub const fn decision_log(&self) -> &DecisionLog {
        &self.decision_log
    }
}

/// A verdict with the data behind it.
struct ReasonedVerdict {
    verdict: PolicyVerdict,
    /// 0 means the access rule.
    version: u64,
    why: Option<VerdictExplanation>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Auth {
    /// Decides about a request, compares the candidate, and records the decision if required.
    pub fn judge(
        &self,
        state: &State,
        application: &Application,
        user: &Arc<User>,
        around: &Circumstances<'_>,
    ) -> Judgement {
        let now_ms = self.now(state).0;
        let policies = self.policies();
        let judged = self.verdict(state, application, user, around, now_ms);
        let allowed = judged.verdict.allowed;
        self.watch(state, application, user, around, allowed);
        if allowed && !policies.decision_log.samples_this(now_ms) {
            return Judgement { allowed, decision: None, headers: judged.headers };
        }
        let why = match state.active_policy(application.id) {
            Some(version) => self.why_of(version, &judged, state, user, around, now_ms),
            None => why_of_access_rule(application, user),
        };
        let id = decision_log::new_id(self.cluster().node_id(), &*self.runtime().entropy);
        policies.decision_log.record(DecisionRecord {
            id: id.clone(),
            at_ms: now_ms,
            application: application.id,
            slug: application.slug.to_string(),
            user: Arc::clone(user),
            allowed,
            version: judged.version,
            row: judged.verdict.row,
            why: why.shortened(),
            around: around.into(),
        });
        Judgement { allowed, decision: Some(id), headers: judged.headers }
    }

    /// Like [`Auth::judge`], without recording the decision: for lists of applications, and for repeated checks of
    /// tokens.
    pub fn admits(
        &self,
        state: &State,
        application: &Application,
        user: &Arc<User>,
        around: &Circumstances<'_>,
    ) -> bool {
        self.verdict(state, application, user, around, self.now(state).0).verdict.allowed
    }

    /// Compares the candidate's verdict on a request of a signed-in user with the decision that was made.
    pub fn watch(
        &self,
        state: &State,
        application: &Application,
        user: &Arc<User>,
        around: &Circumstances<'_>,
        is_allowed: bool,
    ) {
        let Some(candidate) = state.candidate_policy(application.id) else { return };
        let now_ms = self.now(state).0;
        let would = self.judged_by(candidate, state, user, around, now_ms);
        let opens = around.request.is_some_and(|request| self.opens(candidate, &request).is_some());
        let verdict = if opens { shadow::OPEN } else { would.verdict };
        let why = || {
            if opens {
                return shadow::IS_PUBLIC.to_owned();
            }
            self.why_of(candidate, &would, state, user, around, now_ms).text
        };
        let why = if verdict.allowed == is_allowed { String::new() } else { why() };
        let verdicts = Verdicts { is_allowed, would: verdict, why };
        self.policies().shadows.note(application, candidate.version, &user.username, verdicts, now_ms);
    }

    /// Like [`Auth::watch`], for a request without a signed-in user. Counted if the candidate or the active policy has
    /// public paths.
    pub fn watch_visitor(
        &self,
        state: &State,
        application: &Application,
        request: &AppRequest<'_>,
        is_allowed: bool,
    ) {
        let Some(candidate) = state.candidate_policy(application.id) else { return };
        let has_public = |version: &Version| {
            self.policies().compiled.get(version).as_ref().as_ref().is_some_and(Policy::has_public)
        };
        if !has_public(candidate) && !state.active_policy(application.id).is_some_and(has_public) {
            return;
        }
        let opens = self.opens(candidate, request).is_some();
        let (would, why) =
            if opens { (shadow::OPEN, shadow::IS_PUBLIC) } else { (shadow::CLOSED, shadow::IS_NOT_PUBLIC) };
        let verdicts = Verdicts { is_allowed, would, why: why.to_owned() };
        let now_ms = self.now(state).0;
        self.policies().shadows.note(application, candidate.version, shadow::VISITOR, verdicts, now_ms);
    }

    /// True if the rule behind a client admits the user. A missing application admits no user.
    pub fn client_admits(
        &self,
        state: &State,
        client: &Client,
        user: &Arc<User>,
        around: &Circumstances<'_>,
    ) -> bool {
        let Some(id) = client.application else { return !user.disabled };
        state.application(id).is_some_and(|application| self.admits(state, application, user, around))
    }

    /// Like [`Auth::judge`], for the application that a client belongs to. A client without one admits every user who
    /// can sign in.
    pub fn judge_client(
        &self,
        state: &State,
        client: &Client,
        user: &Arc<User>,
        around: &Circumstances<'_>,
    ) -> Judgement {
        let nobody = Judgement { allowed: false, decision: None, headers: Vec::new() };
        match client.application {
            None => Judgement { allowed: !user.disabled, ..nobody },
            Some(id) => state
                .application(id)
                .map_or(nobody, |application| self.judge(state, application, user, around)),
        }
    }

    /// The version of the policy that admits the user to the client, for the command that relies on it. 0 if there is
    /// no policy, or if it does not admit the user; in the latter case the rules refuse.
    pub fn admitted_by(
        &self,
        state: &State,
        client: &Client,
        user: &Arc<User>,
        around: &Circumstances<'_>,
    ) -> u64 {
        let version = client.application.and_then(|id| state.active_policy(id)).map(|policy| policy.version);
        version.filter(|_| self.client_admits(state, client, user, around)).unwrap_or(0)
    }

    /// Returns the policy's extra headers if this request needs no sign-in, decided by the canonical path and the
    /// method alone. The headers are empty, so that a client's own copies of them are removed here as well.
    pub fn public_headers(
        &self,
        state: &State,
        application: &Application,
        request: &AppRequest<'_>,
    ) -> Option<Vec<(HeaderName, HeaderValue)>> {
        self.opens(state.active_policy(application.id)?, request)
    }

    fn opens(&self, version: &Version, request: &AppRequest<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let policy = self.policies().compiled.get(version);
        let policy = policy.as_ref().as_ref().filter(|policy| policy.has_public())?;
        let path = CanonicalPath::parse(request.target);
        let names = policy.headers().filter_map(|(name, _)| HeaderName::from_bytes(name.as_bytes()).ok());
        policy
            .is_public(request.method?, path.as_ref())
            .then(|| names.map(|name| (name, HeaderValue::from_static(""))).collect())
    }

    fn verdict(
        &self,
        state: &State,
        application: &Application,
        user: &Arc<User>,
        around: &Circumstances<'_>,
        now_ms: u64,
    ) -> ReasonedVerdict {
        let Some(version) = state.active_policy(application.id) else {
            let verdict = by_access_rule(application, user);
            return ReasonedVerdict { verdict, version: 0, why: None, headers: Vec::new() };
        };
        self.judged_by(version, state, user, around, now_ms)
    }

    fn judged_by(
        &self,
        version: &Version,
        state: &State,
        user: &Arc<User>,
        around: &Circumstances<'_>,
        now_ms: u64,
    ) -> ReasonedVerdict {
        let compiled = self.policies().compiled.get(version);
        let Some(policy) = compiled.as_ref() else {
            let (verdict, why) = (PolicyVerdict::UNCOMPILED, Some(uncompiled()));
            return ReasonedVerdict { verdict, version: version.version, why, headers: Vec::new() };
        };
        self.with_facts(policy, state, user, around, now_ms, |facts| {
            let verdict = policy.decide(facts);
            let mut judged =
                ReasonedVerdict { verdict, version: version.version, why: None, headers: Vec::new() };
            if verdict.allowed {
                match extra_headers(policy, facts) {
                    Ok(headers) => judged.headers = headers,
                    // Without the header the application could assume another role, so the request is denied (P8).
                    Err(text) => {
                        judged.verdict.allowed = false;
                        judged.why = Some(VerdictExplanation { text, saw: Vec::new() });
                    }
                }
            }
            judged
        })
    }

    /// The explanation of one version's verdict.
    fn why_of(
        &self,
        version: &Version,
        judged: &ReasonedVerdict,
        state: &State,
        user: &Arc<User>,
        around: &Circumstances<'_>,
        now_ms: u64,
    ) -> VerdictExplanation {
        let compiled = self.policies().compiled.get(version);
        match (&judged.why, compiled.as_ref()) {
            (Some(why), _) => why.clone(),
            (None, None) => uncompiled(),
            (None, Some(policy)) => self.with_facts(policy, state, user, around, now_ms, |facts| {
                policy.explain(&judged.verdict, facts)
            }),
        }
    }

    fn with_facts<T>(
        &self,
        policy: &Policy,
        state: &State,
        user: &User,
        around: &Circumstances<'_>,
        now_ms: u64,
        run: impl FnOnce(&Facts<'_>) -> T,
    ) -> T {
        let user_facts = circumstances::UserFacts { state, user };
        let request = around.request.filter(|_| policy.reads_path());
        let path = request.and_then(|request| CanonicalPath::parse(request.target));
        let place =
            around.address.filter(|_| policy.reads_place()).map(|address| self.policies().geo.place(address));
        run(&around.facts(&user_facts, path.as_ref(), place.as_ref(), now_ms))
    }
}

fn uncompiled() -> VerdictExplanation {
    VerdictExplanation { text: "the policy does not compile on this version".into(), saw: Vec::new() }
}

fn by_access_rule(application: &Application, user: &User) -> PolicyVerdict {
    use conclave_policy::Reason;
    let allowed = application.access.admits(user);
    PolicyVerdict { allowed, row: None, reason: if allowed { Reason::Matched } else { Reason::NoRow } }
}

fn why_of_access_rule(application: &Application, user: &User) -> VerdictExplanation {
    let text = if application.access.admits(user) {
        "the application has no policy, and its access rule admits"
    } else {
        "the application has no policy, and its access rule does not admit"
    };
    VerdictExplanation { text: text.into(), saw: Vec::new() }
}

fn extra_headers(policy: &Policy, facts: &Facts<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut headers = Vec::new();
    for (name, expression) in policy.headers() {
        let value = expression
            .header_value(facts)
            .map_err(|fault| format!("the header {name} cannot be computed: {fault}"))?;
        let unwritable = |_| format!("the header {name} cannot be written");
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(unwritable)?;
        headers.push((HeaderName::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?, value));
    }
    Ok(headers)
}

/// Maximum number of values kept in an explanation, and of characters in each.
const MAX_SAW: usize = 16;
const MAX_SAW_CHARS: usize = 160;

trait Shortened {
    /// The explanation, cut to its bounds.
    fn shortened(self) -> Self;
}

impl Shortened for VerdictExplanation {
    fn shortened(mut self) -> Self {
        self.saw.truncate(MAX_SAW);
        for (_, value) in &mut self.saw {
            if value.chars().count() > MAX_SAW_CHARS {
                *value = value.chars().take(MAX_SAW_CHARS).chain("…".chars()).collect();
            }
        }
        self
    }
}
