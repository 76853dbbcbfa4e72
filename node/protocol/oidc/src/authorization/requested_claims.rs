//! The `claims` parameter (OIDC Core §5.5): claims requested by name. Unknown claims are ignored, as the standard
//! requires; a malformed parameter is an error.

use serde_json::{Map, Value};

use conclave_auth::authorization::RequestedClaims;

use crate::keys::acr;
use crate::userinfo::claims;

/// Maximum length of the parameter: all known claims, with room to spare.
const MAX_BYTES: usize = 4 * 1024;
/// Maximum nesting depth: target, claim, member, list of values.
const MAX_DEPTH: usize = 4;

/// The content of the parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClaimsParameter {
    pub names: RequestedClaims,
    /// The `sub` of the user that must be signed in.
    pub subject: Option<String>,
    /// True if an essential `acr` cannot be satisfied here (OIDC Core §5.5.1.1).
    pub unmet_acr: bool,
    /// True if an essential `acr` is satisfied by a password alone.
    pub needs_password: bool,
}

/// Parses the parameter.
///
/// # Errors
/// A description of the error.
pub(crate) fn parse(text: &str) -> Result<ClaimsParameter, &'static str> {
    if text.len() > MAX_BYTES {
        return Err("claims is too long");
    }
    let value: Value = serde_json::from_str(text).map_err(|_| "claims is not JSON")?;
    if depth(&value) > MAX_DEPTH {
        return Err("claims is nested too deeply");
    }
    let Value::Object(targets) = value else { return Err("claims is not an object") };
    let (id_token, userinfo) = (members(&targets, "id_token")?, members(&targets, "userinfo")?);
    let subject = subject(id_token)?;
    if subject.is_some() && subject_of(userinfo).is_some_and(|other| Some(other) != subject.as_deref()) {
        return Err("claims names two users at once");
    }
    let wanted_acr = id_token.and_then(|members| members.get("acr"));
    Ok(ClaimsParameter {
        names: RequestedClaims { id_token: known(id_token), userinfo: known(userinfo) },
        subject: subject.or_else(|| subject_of(userinfo).map(str::to_owned)),
        unmet_acr: wanted_acr.is_some_and(unmet),
        needs_password: wanted_acr.is_some_and(|acr| essential(acr) && !unmet(acr)),
    })
}

type Members<'a> = Option<&'a Map<String, Value>>;

fn members<'a>(targets: &'a Map<String, Value>, name: &str) -> Result<Members<'a>, &'static str> {
    match targets.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(members)) if members.values().all(|m| m.is_null() || m.is_object()) => {
            Ok(Some(members))
        }
        Some(_) => Err("claims has a member that is neither null nor an object"),
    }
}

fn known(members: Members<'_>) -> Vec<String> {
    let mut names: Vec<String> =
        members.into_iter().flat_map(Map::keys).filter(|name| claims::may_be_named(name)).cloned().collect();
    names.sort();
    names
}

fn subject_of(members: Members<'_>) -> Option<&str> {
    members?.get("sub")?.get("value")?.as_str()
}

fn subject(members: Members<'_>) -> Result<Option<String>, &'static str> {
    match members.and_then(|members| members.get("sub")).and_then(|sub| sub.get("value")) {
        None => Ok(None),
        Some(Value::String(subject)) => Ok(Some(subject.clone())),
        Some(_) => Err("claims requests a sub that is not text"),
    }
}

/// True if an `acr` is named and must be reached.
fn essential(acr: &Value) -> bool {
    let is_named = acr.get("value").is_some() || acr.get("values").is_some();
    is_named && acr.get("essential").and_then(Value::as_bool).unwrap_or(false)
}

fn unmet(acr: &Value) -> bool {
    let one = acr.get("value").into_iter();
    let many = acr.get("values").and_then(Value::as_array).into_iter().flatten();
    let mut wanted = one.chain(many).peekable();
    essential(acr) && wanted.peek().is_some() && !wanted.any(|value| value == acr::PASSWORD)
}

fn depth(value: &Value) -> usize {
    let deepest = match value {
        Value::Object(members) => members.values().map(depth).max(),
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return 0,
    };
    1 + deepest.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_claims_are_taken_and_others_left_out() {
        let requested = parse(
            r#"{"userinfo":{"name":{"essential":true},"shoe_size":null},"id_token":{"email":null,"auth_time":{"essential":true}}}"#,
        )
        .unwrap();
        assert_eq!(
            (requested.names.userinfo, requested.names.id_token),
            (vec!["name".to_owned()], vec!["email".to_owned()])
        );
        assert_eq!(requested.subject, None);
    }

    #[test]
    fn a_subject_and_an_acr_that_cannot_be_reached_are_seen() {
        let of = |text: &str| parse(text).unwrap();
        assert_eq!(of(r#"{"id_token":{"sub":{"value":"x"}}}"#).subject.as_deref(), Some("x"));
        assert!(of(r#"{"id_token":{"acr":{"essential":true,"values":["2","3"]}}}"#).unmet_acr);
        assert!(!of(r#"{"id_token":{"acr":{"essential":true,"values":["2","1"]}}}"#).unmet_acr);
        assert!(!of(r#"{"id_token":{"acr":{"values":["2"]}}}"#).unmet_acr, "voluntary");
        assert!(parse(r#"{"id_token":{"sub":{"value":"x"}},"userinfo":{"sub":{"value":"y"}}}"#).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let deep = format!("{}1{}", r#"{"userinfo":{"name":"#, "}}").replace('1', r#"{"values":[[["x"]]]}"#);
        let long = format!(r#"{{"userinfo":{{"name":{{"value":"{}"}}}}}}"#, "x".repeat(MAX_BYTES));
        for bad in ["", "x", "[]", "1", r#"{"userinfo":1}"#, r#"{"id_token":{"name":1}}"#, &deep, &long] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
