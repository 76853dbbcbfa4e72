//! Claims that a client has of its own, made by expressions (docs/policy.md). An expression says something of the
//! person and of how they signed in, within the bounds of those of policies. One that comes to nothing is left out: a
//! token says what is known, and no application is told a claim that nobody could make.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use conclave_policy::{ClaimValue, Expression};
use conclave_state::{State, client::Client, user::User};
use serde_json::{Map, Value};

use super::policy::{Circumstances, person};

/// Most expressions kept compiled: what a text means never changes, so any may be forgotten.
const MAX_KEPT: usize = 256;

/// Compiled, by their text; none for one that this version cannot read.
#[derive(Default)]
pub struct ClaimExpressions(Mutex<BTreeMap<Arc<str>, Option<Arc<Expression>>>>);

/// Who the claims are about.
#[derive(Clone, Copy)]
pub struct About<'a> {
    pub state: &'a State,
    pub user: &'a User,
    /// When the person signed in, Unix milliseconds, and how.
    pub sign_in: (u64, &'a [String]),
    pub now_ms: u64,
}

impl ClaimExpressions {
    fn compiled(&self, text: &Arc<str>) -> Option<Arc<Expression>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(expression) = kept.get(text) {
            return expression.clone();
        }
        let expression = Expression::claim(text).ok().map(Arc::new);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(Arc::clone(text), expression.clone());
        expression
    }

    /// Adds the client's own claims for these scopes. What is there already stays.
    pub fn add(
        &self,
        claims: &mut Map<String, Value>,
        client: &Client,
        scopes: &[String],
        about: &About<'_>,
    ) {
        let rules = client.tokens.claims.iter();
        for rule in rules.filter(|rule| rule.scope.is_empty() || scopes.contains(&rule.scope)) {
            let Some(expression) = self.compiled(&rule.expression) else { continue };
            let known = person(about.state, about.user);
            let circumstances = Circumstances { sign_in: Some(about.sign_in), ..Circumstances::default() };
            match expression.claim_value(&circumstances.facts_without_request(&known, about.now_ms)) {
                Ok(value) => drop(claims.entry(&*rule.name).or_insert_with(|| json(value))),
                Err(fault) => {
                    tracing::debug!("claim {} of client {} is left out: {fault}", rule.name, client.id)
                }
            }
        }
    }
}

/// Names that say something of the token, or that somebody was verified (OIDC Core §2 and §5.1, RFC 7519, RFC 9068): no
/// expression does.
const RESERVED: [&str; 27] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "nonce",
    "auth_time",
    "acr",
    "amr",
    "azp",
    "sid",
    "at_hash",
    "c_hash",
    "s_hash",
    "cnf",
    "act",
    "may_act",
    "scope",
    "client_id",
    "events",
    "sub_jwk",
    "_claim_names",
    "_claim_sources",
    "email_verified",
    "phone_number_verified",
];

/// Whether a client may have no claim of its own by this name.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

fn json(value: ClaimValue) -> Value {
    match value {
        ClaimValue::Bool(value) => value.into(),
        ClaimValue::Int(value) => value.into(),
        ClaimValue::Text(text) => text.into(),
        ClaimValue::List(list) => list.into_iter().map(json).collect(),
        ClaimValue::Map(map) => map.into_iter().map(|(name, value)| (name, json(value))).collect(),
    }
}
