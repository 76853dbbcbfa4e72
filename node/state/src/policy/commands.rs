//! `SetPolicy`, `RemovePolicy`, `PromoteCandidate`.

use std::sync::Arc;

use conclave_proto::command::v1 as pb;

use super::{ApplicationPolicy, Version, guard, wire};
use crate::{
    draft::Draft,
    ids::ApplicationId,
    reply::{Reason, Refusal, Reply, ReplyBody, body, done},
};

pub(crate) fn set(draft: &mut Draft, command: &pb::SetPolicy) -> Result<Reply, Refusal> {
    let id = draft.state.existing_application(ApplicationId::parse(&command.application_id)?)?.id;
    let policy = wire::parse(&draft.state, command.policy.clone().unwrap_or_default())?;
    let version = Version { version: draft.index, policy: Arc::new(policy), at: draft.at };
    let mut row = row_of(draft, id);
    if command.candidate {
        row.candidate = Some(version);
    } else {
        if !command.force {
            guard::check(&draft.state, id, &version.policy)?;
        }
        row.active = Some(version);
    }
    draft.state.put_policy(row);
    Ok(recorded(draft.index))
}

/// Removes a policy. Without one, the access rule is in force again.
pub(crate) fn remove(draft: &mut Draft, command: &pb::RemovePolicy) -> Result<Reply, Refusal> {
    let id = draft.state.existing_application(ApplicationId::parse(&command.application_id)?)?.id;
    let mut row = row_of(draft, id);
    let gone = if command.candidate { row.candidate.take() } else { row.active.take() };
    if gone.is_none() {
        return Err(unknown(if command.candidate { "candidate" } else { "policy" }));
    }
    draft.state.put_policy(row);
    Ok(done())
}

/// Puts the candidate in force, if it is still the version that the operator watched.
pub(crate) fn promote(draft: &mut Draft, command: &pb::PromoteCandidate) -> Result<Reply, Refusal> {
    let id = draft.state.existing_application(ApplicationId::parse(&command.application_id)?)?.id;
    let mut row = row_of(draft, id);
    let candidate = row.candidate.take().ok_or_else(|| unknown("candidate"))?;
    if candidate.version != command.version {
        let why = format!("the candidate is version {} by now, not {}", candidate.version, command.version);
        return Err(Refusal::new(Reason::CandidateChanged, why));
    }
    if !command.force {
        guard::check(&draft.state, id, &candidate.policy)?;
    }
    // A new index as version: decisions of the former policy must not be accepted for this one.
    row.active = Some(Version { version: draft.index, at: draft.at, ..candidate });
    draft.state.put_policy(row);
    Ok(recorded(draft.index))
}

fn row_of(draft: &Draft, application: ApplicationId) -> ApplicationPolicy {
    let empty = || ApplicationPolicy { application, active: None, candidate: None };
    draft.state.policies_of(application).map_or_else(empty, |row| (**row).clone())
}

fn recorded(index: u64) -> Reply {
    body(ReplyBody::Recorded(pb::Recorded { index }))
}

fn unknown(what: &str) -> Refusal {
    Refusal::new(Reason::PolicyUnknown, format!("the application has no {what}"))
}
