//! Validation of ID tokens (OIDC Core §3.1.3.7). `crypto` checks the signature; this module checks the claims.

use serde_json::{Map, Value};

use conclave_crypto::{
    jwk::Alg,
    jwt::{Expect, JwtError, VerifyingKey, unverified_kid},
    mac,
    numeric_date::NumericDate,
};

use super::SKEW_SECS;

/// The reason why a token is invalid. It repeats nothing from the token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    #[error("{0}")]
    Signature(#[from] JwtError),
    #[error("it is signed by a key that the provider does not publish")]
    UnknownKey,
    #[error("its claims are not a JSON object")]
    Malformed,
    #[error("it is from another issuer")]
    Issuer,
    #[error("it is for another audience")]
    Audience,
    #[error("it has expired, or has no expiry")]
    Expired,
    #[error("it was issued in the future")]
    Future,
    #[error("its nonce is not that of this sign-in")]
    Nonce,
    #[error("it names no subject")]
    Subject,
}

/// The values that the claims must have.
pub(super) struct ExpectedClaims<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub nonce: &'a str,
    pub now_secs: u64,
}

/// The claims of a token that one of these keys signed with one of these algorithms.
///
/// # Errors
/// [`IdTokenError`]; `UnknownKey` when another key of the provider might verify it.
pub(super) fn verify(
    token: &str,
    keys: &[VerifyingKey],
    algs: &[Alg],
    expected: &ExpectedClaims<'_>,
) -> Result<Map<String, Value>, IdTokenError> {
    let claims = signed(token, keys, algs)?;
    let claims: Map<String, Value> = serde_json::from_slice(&claims).map_err(|_| IdTokenError::Malformed)?;
    check(&claims, expected)?;
    Ok(claims)
}

/// A token without `kid` is tried with each key; one with a `kid` only with that key.
fn signed(token: &str, keys: &[VerifyingKey], algs: &[Alg]) -> Result<Vec<u8>, IdTokenError> {
    let has_kid = unverified_kid(token)?.is_some();
    let mut worst = IdTokenError::UnknownKey;
    for key in keys {
        match key.verify(token, Expect { typ: None, algs }) {
            Ok(claims) => return Ok(claims),
            // A key for another algorithm, or another key: the next one may match.
            Err(JwtError::WrongKey | JwtError::UnsupportedKey) => {}
            // Without a `kid`, a key published since may match.
            Err(JwtError::BadSignature) if !has_kid => {}
            Err(error @ (JwtError::WrongAlg | JwtError::BadSignature)) => worst = error.into(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(worst)
}

fn check(claims: &Map<String, Value>, expected: &ExpectedClaims<'_>) -> Result<(), IdTokenError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(expected.issuer) {
        return Err(IdTokenError::Issuer);
    }
    if !is_for(claims, expected.client_id) {
        return Err(IdTokenError::Audience);
    }
    let expires = seconds(claims, "exp").ok_or(IdTokenError::Expired)?;
    if expires.saturating_add(SKEW_SECS) <= expected.now_secs {
        return Err(IdTokenError::Expired);
    }
    let issued = seconds(claims, "iat").ok_or(IdTokenError::Future)?;
    if issued > expected.now_secs.saturating_add(SKEW_SECS) {
        return Err(IdTokenError::Future);
    }
    if !text("nonce").is_some_and(|nonce| mac::equal(nonce.as_bytes(), expected.nonce.as_bytes())) {
        return Err(IdTokenError::Nonce);
    }
    if text("sub").is_none_or(str::is_empty) {
        return Err(IdTokenError::Subject);
    }
    Ok(())
}

/// True if the client is in the audience. If there are several audiences, or an authorized party is named, that party
/// must be this client.
fn is_for(claims: &Map<String, Value>, client_id: &str) -> bool {
    let (named, several) = match claims.get("aud") {
        Some(Value::String(one)) => (one == client_id, false),
        Some(Value::Array(many)) => (many.iter().any(|one| one == client_id), many.len() > 1),
        _ => (false, false),
    };
    match claims.get("azp") {
        Some(party) => named && party == client_id,
        None => named && !several,
    }
}

/// A time in whole seconds; some providers write fractions.
pub(super) fn seconds(claims: &Map<String, Value>, name: &str) -> Option<u64> {
    claims.get(name).and_then(NumericDate::of).map(|NumericDate(seconds)| seconds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EXPECTED: ExpectedClaims<'static> =
        ExpectedClaims { issuer: "https://i.test", client_id: "me", nonce: "n", now_secs: 1_000 };

    fn judged(change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), IdTokenError> {
        let claims =
            json!({"iss": "https://i.test", "aud": "me", "exp": 1_100, "iat": 990, "nonce": "n", "sub": "s"});
        let mut claims = claims.as_object().unwrap().clone();
        change(&mut claims);
        check(&claims, &EXPECTED)
    }

    #[test]
    fn every_claim_that_counts_is_looked_at() {
        assert_eq!(judged(|_| {}), Ok(()));
        for (name, value, error) in [
            ("iss", json!("https://i.test/"), IdTokenError::Issuer),
            ("iss", json!(null), IdTokenError::Issuer),
            ("aud", json!("you"), IdTokenError::Audience),
            ("aud", json!(["me", "you"]), IdTokenError::Audience),
            ("aud", json!([]), IdTokenError::Audience),
            ("azp", json!("you"), IdTokenError::Audience),
            ("exp", json!(940), IdTokenError::Expired),
            ("exp", json!("1100"), IdTokenError::Expired),
            ("iat", json!(1_061), IdTokenError::Future),
            ("nonce", json!("m"), IdTokenError::Nonce),
            ("nonce", json!(null), IdTokenError::Nonce),
            ("sub", json!(""), IdTokenError::Subject),
            ("sub", json!(7), IdTokenError::Subject),
        ] {
            let result = judged(|claims| drop(claims.insert(name.into(), value.clone())));
            assert_eq!(result, Err(error), "{name} = {value}");
        }
        for absent in ["iss", "aud", "exp", "iat", "nonce", "sub"] {
            assert!(judged(|claims| drop(claims.remove(absent))).is_err(), "{absent}");
        }
        assert_eq!(judged(|c| drop(c.insert("exp".into(), json!(1_100.5)))), Ok(()));
        let both = |c: &mut Map<String, Value>| {
            c.insert("aud".into(), json!(["me", "you"]));
            c.insert("azp".into(), json!("me"));
        };
        assert_eq!(judged(both), Ok(()));
    }
}
