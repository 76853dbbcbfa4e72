//! Policies on the wire, and the checks of the rules: bounds, and that the users and groups exist.

use std::sync::Arc;

use conclave_proto::{
    command::v1::{self as pb, policy_condition::Kind},
    state::v1 as rows,
};
use prost::Message as _;

use super::{ApplicationPolicy, Version};
use crate::{
    ids::{ApplicationId, GroupId, UserId},
    reply::Refusal,
    snapshot::Row,
    stamp::Stamp,
    state::State,
};

/// Longest encoded policy: an entry of the log stays below 64 KiB.
const MAX_POLICY_BYTES: usize = 32 * 1024;

/// Parses a policy. An unspecified mode or effect is refused. Expressions and other texts are not checked here: their
/// meaning may change with the program's version.
pub(super) fn parse(state: &State, policy: pb::Policy) -> Result<pb::Policy, Refusal> {
    if policy.encoded_len() > MAX_POLICY_BYTES {
        return Err(Refusal::malformed(format!("a policy has at most {MAX_POLICY_BYTES} bytes")));
    }
    if policy.mode() == pb::PolicyMode::Unspecified {
        return Err(Refusal::malformed("the policy has no mode"));
    }
    for (index, row) in policy.rows.iter().enumerate() {
        if row.effect() == pb::PolicyEffect::Unspecified {
            return Err(Refusal::malformed(format!("row {} neither allows nor denies", index + 1)));
        }
    }
    for group in groups(&policy) {
        state.existing_group(GroupId::parse(group)?)?;
    }
    for users in
        kinds(&policy).filter_map(|kind| if let Kind::Users(users) = kind { Some(users) } else { None })
    {
        for id in &users.ids {
            state.existing_user(UserId::parse(id)?)?;
        }
    }
    Ok(policy)
}

/// Every group that the policy names, with repetitions.
pub(super) fn groups(policy: &pb::Policy) -> impl Iterator<Item = &[u8]> {
    let named =
        kinds(policy).filter_map(|kind| if let Kind::Groups(groups) = kind { Some(groups) } else { None });
    named.flat_map(|groups| groups.ids.iter().map(Vec::as_slice))
}

/// Every expression of the rows and the headers.
pub(super) fn expressions(policy: &pb::Policy) -> impl Iterator<Item = &str> {
    let of_rows = kinds(policy).filter_map(|kind| {
        if let Kind::Expression(expression) = kind { Some(expression.as_str()) } else { None }
    });
    of_rows.chain(policy.headers.iter().map(|header| header.expression.as_str()))
}

fn kinds(policy: &pb::Policy) -> impl Iterator<Item = &Kind> {
    let conditions = policy.rows.iter().flat_map(|row| row.when.iter().chain(&row.unless));
    conditions.filter_map(|condition| condition.kind.as_ref())
}

impl Version {
    fn to_wire(&self) -> rows::PolicyVersionRow {
        rows::PolicyVersionRow {
            version: self.version,
            policy: Some((*self.policy).clone()),
            at_ms: self.at.0,
        }
    }

    fn from_wire(wire: rows::PolicyVersionRow) -> Self {
        Self {
            version: wire.version,
            policy: Arc::new(wire.policy.unwrap_or_default()),
            at: Stamp(wire.at_ms),
        }
    }
}

impl Row for ApplicationPolicy {
    const TABLE: u32 = 140;
    type Wire = rows::PolicyRow;

    fn to_wire(&self) -> rows::PolicyRow {
        rows::PolicyRow {
            application_id: self.application.to_vec(),
            active: self.active.as_ref().map(Version::to_wire),
            candidate: self.candidate.as_ref().map(Version::to_wire),
        }
    }

    fn from_wire(wire: rows::PolicyRow) -> Result<Self, Refusal> {
        Ok(Self {
            application: ApplicationId::parse(&wire.application_id)?,
            active: wire.active.map(Version::from_wire),
            candidate: wire.candidate.map(Version::from_wire),
        })
    }

    fn put(self, state: &mut State) {
        state.put_policy(self);
    }
}
