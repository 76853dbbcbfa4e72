//! Policies of applications, and the decisions made by them. A policy that does not compile is refused here, before it
//! enters a command: the rules never evaluate an expression.

use std::{net::IpAddr, sync::Arc};

use conclave_policy::VerdictExplanation;
use conclave_proto::{
    admin::v1::{self as pb, policy_service_server::PolicyService},
    command::v1::{PromoteCandidate, RemovePolicy, SetPolicy, command::Body},
};
use conclave_state::{
    State,
    application::Application,
    ids::{ApplicationId, UserId},
    policy::Version,
};
use tonic::{Request, Response, Status};

use super::{Api, errors, names};
use conclave_auth::policy::{DecisionRecord, PolicyTestResult, Subject, document::Document};
use conclave_http::host::canonical_host;

/// The most differences and changed decisions in one response.
const MAX_LISTED: usize = 500;
/// The authentication method of a test that does not name one.
const DEFAULT_METHOD: &str = "pwd";

#[tonic::async_trait]
impl PolicyService for Api {
    async fn set_policy(
        &self,
        request: Request<pb::SetPolicyRequest>,
    ) -> Result<Response<pb::ApplicationPolicy>, Status> {
        let (mut writing, message) = self.write(request, "SetPolicy").await?;
        let id = writing.application(&message.application).await?;
        let document = Document::from_json(&message.document).map_err(errors::invalid)?;
        let policy = document.to_row(&writing.state).map_err(errors::invalid)?;
        let (candidate, force) = (message.candidate, message.force);
        let body = SetPolicy { application_id: id.to_vec(), policy: Some(policy), candidate, force };
        let committed = writing.propose(Body::SetPolicy(body)).await?;
        let proto = find_proto(&committed.state, id)?;
        writing.reply(&committed, proto)
    }

    async fn get_policy(
        &self,
        request: Request<pb::GetPolicyRequest>,
    ) -> Result<Response<pb::ApplicationPolicy>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let application = found(&reading.state, &wanted.application)?;
        reading.reply(find_proto(&reading.state, application.id)?)
    }

    async fn remove_policy(
        &self,
        request: Request<pb::RemovePolicyRequest>,
    ) -> Result<Response<pb::RemovePolicyResponse>, Status> {
        let (mut writing, message) = self.write(request, "RemovePolicy").await?;
        let application_id = writing.application(&message.application).await?.to_vec();
        let body = RemovePolicy { application_id, candidate: message.candidate };
        let committed = writing.propose(Body::RemovePolicy(body)).await?;
        writing.reply(&committed, pb::RemovePolicyResponse {})
    }

    async fn promote_candidate(
        &self,
        request: Request<pb::PromoteCandidateRequest>,
    ) -> Result<Response<pb::ApplicationPolicy>, Status> {
        let (mut writing, message) = self.write(request, "PromoteCandidate").await?;
        let id = writing.application(&message.application).await?;
        let (version, force) = (message.version, message.force);
        let body = PromoteCandidate { application_id: id.to_vec(), version, force };
        let committed = writing.propose(Body::PromoteCandidate(body)).await?;
        let proto = find_proto(&committed.state, id)?;
        writing.reply(&committed, proto)
    }

    async fn test_policy(
        &self,
        request: Request<pb::TestPolicyRequest>,
    ) -> Result<Response<pb::TestPolicyResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let application = found(&reading.state, &wanted.application)?;
        let subject = subject(&wanted, reading.now.0)?;
        let verdict = |user| {
            let found = self.auth.test_policy(&reading.state, &application, user, &subject);
            found.map(|found| verdict(&user.username, &found)).ok_or_else(no_candidate)
        };
        if !wanted.user.is_empty() {
            let user = names::user(&reading.state, &wanted.user).and_then(|id| reading.state.user(id));
            let user = user.ok_or_else(|| errors::not_found("user", &wanted.user))?;
            let verdicts = vec![verdict(user)?];
            return reading.reply(pb::TestPolicyResponse { verdicts, next_page_token: String::new() });
        }
        let listing = self.listing(format!("policy-test/{}", application.id), wanted.page.clone())?;
        let after = listing.after(|bytes| UserId::parse(bytes).ok())?;
        if subject.candidate && reading.state.candidate_policy(application.id).is_none() {
            return Err(no_candidate());
        }
        let users = reading.state.users_after(after);
        let rows = users.filter_map(|user| Some((user.id.to_vec(), verdict(user).ok()?)));
        let (verdicts, next_page_token) = listing.page(rows);
        reading.reply(pb::TestPolicyResponse { verdicts, next_page_token })
    }

    async fn explain_decision(
        &self,
        request: Request<pb::ExplainDecisionRequest>,
    ) -> Result<Response<pb::Decision>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let decision = self.auth.policies().decision_log().find(&wanted.decision);
        let decision = decision.ok_or_else(|| errors::not_found("decision", &wanted.decision))?;
        reading.reply(to_proto(&decision))
    }

    async fn list_decisions(
        &self,
        request: Request<pb::ListDecisionsRequest>,
    ) -> Result<Response<pb::ListDecisionsResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let application = Some(&wanted.application).filter(|name| !name.is_empty());
        let application = application.map(|name| found(&reading.state, name)).transpose()?.map(|a| a.id);
        let user = Some(&wanted.user).filter(|name| !name.is_empty());
        let user = user
            .map(|name| names::user(&reading.state, name).ok_or_else(|| errors::not_found("user", name)))
            .transpose()?;
        let is_wanted = |decision: &DecisionRecord| {
            application.is_none_or(|id| decision.application == id)
                && user.is_none_or(|id| decision.user.id == id)
                && !(wanted.denied && decision.allowed)
        };
        let decisions = self.auth.policies().decision_log().latest(MAX_LISTED, is_wanted);
        reading.reply(pb::ListDecisionsResponse {
            node_id: self.auth.cluster().node_id(),
            decisions: decisions.iter().map(|decision| to_proto(decision)).collect(),
        })
    }

    async fn get_shadow_report(
        &self,
        request: Request<pb::GetShadowReportRequest>,
    ) -> Result<Response<pb::ShadowReport>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let application = found(&reading.state, &wanted.application)?;
        let version = candidate(&reading.state, application.id)?.version;
        let report = self.auth.policies().shadows().report(application.id, version);
        let differences = report.differences.iter().rev().take(MAX_LISTED);
        let differences = differences.map(|difference| pb::ShadowDifference {
            would: Some(pb::PolicyVerdict {
                user: difference.username.clone(),
                allowed: difference.would_allow,
                row: number(difference.row),
                version,
                why: difference.text.clone(),
                saw: Vec::new(),
            }),
            count: difference.count,
            last_at_ms: difference.at_ms,
        });
        reading.reply(pb::ShadowReport {
            node_id: self.auth.cluster().node_id(),
            version,
            seen: report.seen,
            would_deny: report.would_deny,
            would_allow: report.would_allow,
            faults: report.faults,
            differences: differences.collect(),
        })
    }

    async fn replay_candidate(
        &self,
        request: Request<pb::ReplayCandidateRequest>,
    ) -> Result<Response<pb::ReplayCandidateResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let application = found(&reading.state, &wanted.application)?;
        let candidate = candidate(&reading.state, application.id)?;
        let (looked_at, changed) = self.auth.replay(&reading.state, &application, candidate);
        let changed = changed.into_iter().rev().take(MAX_LISTED).map(|changed| pb::ReplayedDecision {
            would: Some(verdict(&changed.decision.user.username, &changed.would)),
            decision: Some(to_proto(&changed.decision)),
        });
        reading.reply(pb::ReplayCandidateResponse {
            node_id: self.auth.cluster().node_id(),
            version: candidate.version,
            looked_at,
            changed: changed.collect(),
        })
    }
}

fn found(state: &State, name: &str) -> Result<Arc<Application>, Status> {
    let found = names::application(state, name).and_then(|id| state.application(id));
    found.cloned().ok_or_else(|| errors::not_found("application", name))
}

fn candidate(state: &State, application: ApplicationId) -> Result<&Version, Status> {
    state.candidate_policy(application).ok_or_else(no_candidate)
}

fn no_candidate() -> Status {
    Status::not_found("the application has no candidate; set one with `conclave policy candidate set`")
}

fn find_proto(state: &State, id: ApplicationId) -> Result<pb::ApplicationPolicy, Status> {
    let slug = state.application(id).map(|application| application.slug.to_string());
    let document = |version: Option<&Version>| {
        let written = version.map(|version| serde_json::to_string(&Document::of_row(&version.policy, state)));
        written.transpose().map(Option::unwrap_or_default).map_err(|e| Status::internal(e.to_string()))
    };
    let (active, candidate) = (state.active_policy(id), state.candidate_policy(id));
    Ok(pb::ApplicationPolicy {
        application: slug.ok_or_else(|| errors::not_found("application", &id.to_string()))?,
        document: document(active)?,
        version: active.map_or(0, |version| version.version),
        set_at_ms: active.map_or(0, |version| version.at.0),
        candidate_document: document(candidate)?,
        candidate_version: candidate.map_or(0, |version| version.version),
        candidate_set_at_ms: candidate.map_or(0, |version| version.at.0),
    })
}

fn subject(wanted: &pb::TestPolicyRequest, now_ms: u64) -> Result<Subject, Status> {
    let address = (!wanted.address.is_empty()).then(|| wanted.address.parse::<IpAddr>()).transpose();
    let described = [&wanted.method, &wanted.host, &wanted.path];
    let or = |text: &String, default: &str| if text.is_empty() { default.to_owned() } else { text.clone() };
    let request = described.iter().any(|text| !text.is_empty());
    let methods =
        if wanted.methods.is_empty() { vec![DEFAULT_METHOD.to_owned()] } else { wanted.methods.clone() };
    Ok(Subject {
        address: address
            .map_err(|_| errors::invalid(format!("{:?} is not a valid address", wanted.address)))?,
        request: request.then(|| {
            (
                or(&wanted.method, "GET").to_ascii_uppercase(),
                canonical_host(&wanted.host).unwrap_or_else(|| wanted.host.to_ascii_lowercase()),
                or(&wanted.path, "/"),
            )
        }),
        at_ms: if wanted.at_ms == 0 { now_ms } else { wanted.at_ms },
        methods,
        candidate: wanted.candidate,
    })
}

/// The row number for operators, counted from 1.
fn number(row: Option<usize>) -> u32 {
    row.map_or(0, |row| u32::try_from(row + 1).unwrap_or(u32::MAX))
}

fn verdict(username: &str, found: &PolicyTestResult) -> pb::PolicyVerdict {
    pb::PolicyVerdict {
        user: username.to_owned(),
        allowed: found.allowed,
        row: number(found.row),
        version: found.version,
        why: found.why.text.clone(),
        saw: saw(&found.why),
    }
}

fn saw(why: &VerdictExplanation) -> Vec<pb::SeenValue> {
    let one = |(name, value): &(String, String)| pb::SeenValue { name: name.clone(), value: value.clone() };
    why.saw.iter().map(one).collect()
}

fn to_proto(decision: &DecisionRecord) -> pb::Decision {
    let (method, host, path) = decision.around.request.clone().unwrap_or_default();
    pb::Decision {
        id: decision.id.clone(),
        at_ms: decision.at_ms,
        application: decision.slug.clone(),
        verdict: Some(pb::PolicyVerdict {
            user: decision.user.username.to_string(),
            allowed: decision.allowed,
            row: number(decision.row),
            version: decision.version,
            why: decision.why.text.clone(),
            saw: saw(&decision.why),
        }),
        address: decision.around.address.map(|address| address.to_string()).unwrap_or_default(),
        method,
        host,
        path,
    }
}
