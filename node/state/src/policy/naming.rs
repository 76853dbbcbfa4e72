//! Expressions that name users and groups. The rules do not parse expressions; they search for the name between
//! quotation marks.

use conclave_proto::command::v1 as pb;

use super::wire;
use crate::{
    reply::{Reason, Refusal},
    state::State,
};

impl State {
    /// Refuses while an expression of a policy, a candidate or a client's claim contains this name as a string literal:
    /// after the rename it would mean another user or group, or none. A name that an expression assembles from parts is
    /// not found. Walks over every policy and client: renames are rare.
    pub(crate) fn no_expression_names(&self, name: &str) -> Result<(), Refusal> {
        let in_policy = self.policies.values().find_map(|policy| {
            let mut versions = policy.active.iter().chain(&policy.candidate);
            let is_named = versions.any(|version| any_names(&version.policy, name));
            let slug = || self.application(policy.application).map_or("an application", |a| &a.slug);
            is_named.then(|| format!("the policy of {}", slug()))
        });
        let in_claim = || {
            let of_client = |client: &crate::client::Client| {
                let claim = client.tokens.claims.iter().find(|claim| has_text(&claim.expression, name))?;
                Some(format!("the claim {} of the client {}", claim.name, client.id.as_str()))
            };
            self.clients.values().find_map(|client| of_client(client))
        };
        in_policy.or_else(in_claim).map_or(Ok(()), |place| {
            let why = format!(
                "an expression in {place} names {name}; change it first, or force the rename and change it then"
            );
            Err(Refusal::new(Reason::NameInUse, why))
        })
    }
}

fn any_names(policy: &pb::Policy, name: &str) -> bool {
    wire::expressions(policy).any(|expression| has_text(expression, name))
}

/// True if the expression contains the name as a string literal.
fn has_text(expression: &str, name: &str) -> bool {
    ['\'', '"'].iter().any(|quote| expression.contains(&format!("{quote}{name}{quote}")))
}
