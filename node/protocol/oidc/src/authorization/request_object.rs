//! Request objects (RFC 9101, OIDC Core §6): an authorization request in a JWT signed with a key of the client.
//! Accepted from clients with registered keys, and by value only: the only accepted `request_uri` is one of the push
//! endpoint.
//!
//! The object is the whole request. Parameters beside it are ignored, so that nothing unsigned can be mixed in.

use conclave_state::{State, client::Client};
use serde_json::{Map, Value};

use conclave_crypto::{jwk::Alg, jwks, jwt::Expect, numeric_date::NumericDate};

use crate::authorization::request::{NoWayBack, Parameters};

/// Maximum age of an object, and maximum time until its expiry (FAPI 2.0 §5.3.2.1 has sixty minutes).
const MAX_AGE_SECS: u64 = 3_600;
/// Accepted difference between the clocks.
const LEEWAY_SECS: u64 = 30;
/// Claims about the object itself, which are not parameters.
const OWN_CLAIMS: [&str; 7] = ["iss", "aud", "exp", "nbf", "iat", "jti", "typ"];

/// The effective request: the one in the object, if the client sent one and has keys, else the one that was sent.
///
/// # Errors
/// An error page here: nothing proves that the request is the client's, so its redirect URI is not used.
pub(crate) fn opened(
    parameters: Parameters,
    state: &State,
    issuer: &str,
    now_ms: u64,
) -> Result<Parameters, NoWayBack> {
    let Some(object) = parameters.get("request") else { return Ok(parameters) };
    let client = parameters.get("client_id").and_then(|id| state.client(id));
    // Without keys the object cannot be verified; the client gets the error that it is not supported.
    let Some(client) = client.filter(|client| !client.tokens.jwks.is_empty()) else { return Ok(parameters) };
    let claims = verified(client, object).ok_or(NoWayBack::RequestObject("its signature does not hold"))?;
    are_for(&claims, client, issuer, now_ms / 1_000).map_err(NoWayBack::RequestObject)?;
    let pairs = claims.into_iter().filter(|(name, _)| !OWN_CLAIMS.contains(&name.as_str()));
    Parameters::of(pairs.flat_map(|(name, value)| texts(value).map(move |text| (name.clone(), text))))
}

fn verified(client: &Client, object: &str) -> Option<Map<String, Value>> {
    let keys = jwks::parse(&client.tokens.jwks).ok()?;
    let expect = Expect { typ: None, algs: &Alg::ALL };
    let claims = keys.iter().find_map(|key| key.verify(object, expect).ok())?;
    serde_json::from_slice(&claims).ok()
}

fn are_for(claims: &Map<String, Value>, client: &Client, issuer: &str, now: u64) -> Result<(), &'static str> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let number = |name: &str| claims.get(name).and_then(NumericDate::of).map(|NumericDate(seconds)| seconds);
    if text("iss") != Some(client.id.as_str()) || text("client_id") != Some(client.id.as_str()) {
        return Err("iss and client_id must both be the client");
    }
    // A client assertion has a `sub` (RFC 9101 §10.8); it is not a request.
    if claims.contains_key("sub") {
        return Err("it has a sub, as only assertions have");
    }
    if claims.contains_key("request") || claims.contains_key("request_uri") {
        return Err("it holds another request");
    }
    let is_for_us = match claims.get("aud") {
        Some(Value::String(aud)) => aud == issuer,
        Some(Value::Array(several)) => several.iter().any(|aud| aud == issuer),
        _ => false,
    };
    if !is_for_us {
        return Err("aud must be the issuer");
    }
    let exp = number("exp").ok_or("exp is missing")?;
    let begins = number("nbf").or(number("iat")).unwrap_or(now);
    let is_fresh = now < exp.saturating_add(LEEWAY_SECS)
        && exp <= now.saturating_add(MAX_AGE_SECS).saturating_add(LEEWAY_SECS)
        && begins <= now.saturating_add(LEEWAY_SECS)
        && begins.saturating_add(MAX_AGE_SECS) > now;
    if is_fresh { Ok(()) } else { Err("it has expired, or is not valid yet") }
}

/// The values of a parameter as a query would have them.
fn texts(value: Value) -> impl Iterator<Item = String> {
    let values = match value {
        Value::Array(values) => values,
        value => vec![value],
    };
    values.into_iter().map(|value| match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    })
}
