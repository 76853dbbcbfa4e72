//! Checks that a policy does not lock users out by mistake.
//!
//! Only conditions about everyone, users and groups can be evaluated here; the result of every other condition is
//! unknown in advance. So a user is *surely* admitted, *perhaps* admitted, or *surely not*. A policy is refused, unless
//! forced, if it
//!
//! 1. perhaps admits no enabled user at all, or
//! 2. surely admits no enabled member of the group [`ADMINS`], although the policy or rule in force surely admits one.

use conclave_proto::command::v1::{self as pb, policy_condition::Kind};

use crate::{
    ids::ApplicationId,
    reply::{Reason, Refusal},
    state::State,
    user::User,
};

/// The group of the administrators, who can repair a wrong policy.
pub const ADMINS: &str = "admins";

/// The possible results of a policy for one user, in any circumstances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PossibleOutcomes {
    /// There are circumstances in which the user is admitted.
    pub may_allow: bool,
    /// There are circumstances in which the user is not admitted.
    pub may_deny: bool,
}

/// The result of a condition, in any circumstances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    Perhaps,
}

pub(super) fn check(state: &State, application: ApplicationId, policy: &pb::Policy) -> Result<(), Refusal> {
    // This walks over every user if none is admitted; policies change rarely and by hand.
    let enabled = || state.users.values().filter(|user| !user.disabled);
    if !enabled().any(|user| outcome(policy, user).may_allow) {
        return Err(Refusal::new(Reason::LocksOut, "the policy admits no enabled user at all"));
    }
    let Some(admins) = state.group_by_name(ADMINS) else { return Ok(()) };
    let admins = || state.members_of(admins.id).filter(|user| !user.disabled);
    let now = |user: &User| match (state.active_policy(application), state.application(application)) {
        (Some(active), _) => outcome(&active.policy, user).is_sure(),
        (None, Some(application)) => application.access.admits(user),
        (None, None) => false,
    };
    let locks_out = admins().any(|user| now(user)) && !admins().any(|user| outcome(policy, user).is_sure());
    if locks_out {
        let why =
            format!("no enabled member of {ADMINS} would surely be admitted by a row about users or groups");
        return Err(Refusal::new(Reason::LocksOut, why));
    }
    Ok(())
}

impl PossibleOutcomes {
    const DENY: Self = Self { may_allow: false, may_deny: true };

    /// True if the user is admitted in all circumstances.
    pub const fn is_sure(self) -> bool {
        self.may_allow && !self.may_deny
    }
}

/// The possible results of the policy for this user.
pub fn outcome(policy: &pb::Policy, user: &User) -> PossibleOutcomes {
    let judged =
        policy.rows.iter().map(|row| (row.effect() == pb::PolicyEffect::Allow, row_holds(row, user)));
    match policy.mode() {
        pb::PolicyMode::FirstMatch => first_match(judged),
        pb::PolicyMode::Any => together(judged, Holds::Yes),
        pb::PolicyMode::All => together(judged, Holds::No),
        pb::PolicyMode::Unspecified => PossibleOutcomes::DENY,
    }
}

fn first_match(rows: impl Iterator<Item = (bool, Holds)>) -> PossibleOutcomes {
    let mut outcome = PossibleOutcomes { may_allow: false, may_deny: false };
    for (allows, holds) in rows.filter(|(_, holds)| *holds != Holds::No) {
        if allows {
            outcome.may_allow = true;
        } else {
            outcome.may_deny = true;
        }
        if holds == Holds::Yes {
            return outcome;
        }
    }
    PossibleOutcomes { may_deny: true, ..outcome }
}

/// Combines the rows of `any` and `all`. If one allow row is `decisive`, the other allow rows do not matter.
fn together(rows: impl Iterator<Item = (bool, Holds)>, decisive: Holds) -> PossibleOutcomes {
    let (mut allowed, mut may_veto) = (None, false);
    for (allows, holds) in rows {
        match (allows, holds) {
            (false, Holds::Yes) => return PossibleOutcomes::DENY,
            (false, Holds::Perhaps) => may_veto = true,
            (false, Holds::No) => {}
            (true, holds) => {
                allowed = Some(match allowed {
                    Some(before) if before == decisive || holds == decisive => decisive,
                    Some(Holds::Perhaps) => Holds::Perhaps,
                    _ => holds,
                });
            }
        }
    }
    let allowed = allowed.unwrap_or(Holds::No);
    PossibleOutcomes { may_allow: allowed != Holds::No, may_deny: may_veto || allowed != Holds::Yes }
}

fn row_holds(row: &pb::PolicyRow, user: &User) -> Holds {
    if row.when.is_empty() {
        return Holds::Perhaps;
    }
    let when = row.when.iter().map(|condition| holds(condition, user));
    let unless = row.unless.iter().map(|condition| match holds(condition, user) {
        Holds::Yes => Holds::No,
        Holds::No => Holds::Yes,
        Holds::Perhaps => Holds::Perhaps,
    });
    when.chain(unless).fold(Holds::Yes, |all, one| match (all, one) {
        (Holds::No, _) | (_, Holds::No) => Holds::No,
        (Holds::Yes, Holds::Yes) => Holds::Yes,
        (Holds::Perhaps, _) | (_, Holds::Perhaps) => Holds::Perhaps,
    })
}

fn holds(condition: &pb::PolicyCondition, user: &User) -> Holds {
    let sure = |yes| if yes { Holds::Yes } else { Holds::No };
    match &condition.kind {
        Some(Kind::Everyone(_)) => Holds::Yes,
        Some(Kind::Users(users)) => sure(users.ids.iter().any(|id| id == user.id.bytes())),
        Some(Kind::Groups(groups)) => {
            sure(user.groups.iter().any(|group| groups.ids.iter().any(|id| id == group.bytes())))
        }
        _ => Holds::Perhaps,
    }
}
