//! Policies of applications: the active one, and a candidate that is only tried.
//!
//! The rules store a policy and its version in force. They do not evaluate it: a policy depends on hours, networks and
//! expressions, and two versions of the program must agree on every entry. The rules themselves enforce the bounds,
//! that the users and groups exist, and that a policy does not lock every user out by mistake ([`guard`]).

mod commands;
pub mod guard;
mod naming;
mod wire;

use std::sync::Arc;

use conclave_proto::command::v1 as pb;

pub(crate) use commands::{promote, remove, set};

use crate::{
    ids::{ApplicationId, GroupId},
    reply::{Reason, Refusal},
    stamp::Stamp,
    state::State,
};

/// The policies of one application.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplicationPolicy {
    /// The application.
    pub application: ApplicationId,
    /// The policy in force instead of the access rule; none = the access rule is in force.
    pub active: Option<Version>,
    /// The policy that is evaluated and logged, but has no effect.
    pub candidate: Option<Version>,
}

/// A version of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// The log index that set it, or that put it in force: never used twice.
    pub version: u64,
    /// The policy as it was written. The parts that this program does not understand deny.
    pub policy: Arc<pb::Policy>,
    /// The time of the change.
    pub at: Stamp,
}

impl State {
    /// The policy in force for the application instead of its access rule.
    pub fn active_policy(&self, application: ApplicationId) -> Option<&Version> {
        self.policies.get(&application)?.active.as_ref()
    }

    /// The candidate policy of the application.
    pub fn candidate_policy(&self, application: ApplicationId) -> Option<&Version> {
        self.policies.get(&application)?.candidate.as_ref()
    }

    /// The application's policies; none if it never had any.
    pub fn policies_of(&self, application: ApplicationId) -> Option<&Arc<ApplicationPolicy>> {
        self.policies.get(&application)
    }

    pub(crate) fn put_policy(&mut self, policy: ApplicationPolicy) {
        if policy.active.is_none() && policy.candidate.is_none() {
            self.policies.remove(&policy.application);
        } else {
            self.policies.insert(policy.application, Arc::new(policy));
        }
    }

    /// Refuses while a policy or a candidate names the group. Walks over every policy: groups are deleted rarely and by
    /// hand.
    pub(crate) fn no_policy_names(&self, group: GroupId) -> Result<(), Refusal> {
        let names = |version: &Version| wire::groups(&version.policy).any(|id| id == group.bytes());
        let naming = self.policies.values().find(|p| p.active.iter().chain(&p.candidate).any(names));
        let Some(policy) = naming else { return Ok(()) };
        let slug = self.application(policy.application).map_or("an application", |a| &a.slug);
        Err(Refusal::new(
            Reason::GroupInUse,
            format!("the policy of {slug} names the group; change it first"),
        ))
    }
}
