//! Policies of applications: what holds, and what is only being tried.
//!
//! The rules keep a policy and say which version is in force; they do not decide by it, for it asks for hours, networks
//! and expressions, and two versions of the program must agree on every entry. What the rules hold by themselves:
//! bounds, that the people and groups exist, and that nobody locks everybody out by mistake ([`guard`]).

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
    /// Whose.
    pub application: ApplicationId,
    /// What holds in place of the access rule; none: the access rule does.
    pub active: Option<Version>,
    /// What is watched and decides nothing.
    pub candidate: Option<Version>,
}

/// A policy as it was set once.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// The log index that made it, or that made it hold: never the same twice.
    pub version: u64,
    /// As it was written. What of it this program does not understand, it denies by.
    pub policy: Arc<pb::Policy>,
    /// When.
    pub at: Stamp,
}

impl State {
    /// What holds for the application in place of its access rule.
    pub fn active_policy(&self, application: ApplicationId) -> Option<&Version> {
        self.policies.get(&application)?.active.as_ref()
    }

    /// What is being tried for the application.
    pub fn candidate_policy(&self, application: ApplicationId) -> Option<&Version> {
        self.policies.get(&application)?.candidate.as_ref()
    }

    /// The application's policies; none: it never had any.
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

    /// Refuses while a policy, or one that is tried, names the group. Looks at every policy: groups are deleted seldom,
    /// by hand.
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
