//! Claims of a single client, computed by expressions (docs/policy.md). An expression reads the user and the sign-in,
//! within the same bounds as a policy expression. An expression that fails is left out: a token states only known
//! facts, and an application never receives a claim that could not be computed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use conclave_policy::{ClaimValue, Expression};
use conclave_state::{State, client::Client, user::User};
use serde_json::{Map, Value};

use super::policy::{Circumstances, user_facts};

/// Maximum number of compiled expressions in memory. The meaning of a text never changes, so any entry may be dropped.
const MAX_KEPT: usize = 256;

/// Compiled expressions by their text; `None` for a text that this version cannot parse.
#[derive(Default)]
pub struct ClaimExpressions(Mutex<BTreeMap<Arc<str>, Option<Arc<Expression>>>>);

/// The subject of the claims.
#[derive(Clone, Copy)]
pub struct About<'a> {
    pub state: &'a State,
    pub user: &'a User,
    /// The time of the sign-in, Unix milliseconds, and its authentication methods.
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

    /// Adds the client's own claims for these scopes. Existing claims are kept.
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
            let known = user_facts(about.state, about.user);
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

/// Names that describe the token, or that state a verification (OIDC Core §2 and §5.1, RFC 7519, RFC 9068). An
/// expression may not use them.
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

/// True if a client's own claim may not have this name.
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
