//! JWK Sets from clients (RFC 7517 §5): their public keys.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::Value;

use super::{jwt::VerifyingKey, mac, self_signed};

/// Most keys of a set: a few generations of a few kinds.
const MAX_KEYS: usize = 16;

/// Parses the keys of a client's JWK Set: public keys of supported kinds.
///
/// # Errors
/// The fault, for the client or operator that registers the set.
pub fn parse(jwks: &[u8]) -> Result<Vec<VerifyingKey>, &'static str> {
    let set: Value = serde_json::from_slice(jwks).map_err(|_| "jwks is not JSON")?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("jwks has no array \"keys\"")?;
    if keys.is_empty() || keys.len() > MAX_KEYS {
        return Err("jwks must have between 1 and 16 keys");
    }
    if keys.iter().any(self_signed::has_private_members) {
        return Err(
            "jwks holds a private key, which is compromised now: make a new one, and register its public half",
        );
    }
    let parsed = keys.iter().map(VerifyingKey::from_jwk).collect::<Result<Vec<_>, _>>();
    parsed.map_err(|_| "jwks holds a key that is not RSA, P-256 or Ed25519, or not for signatures")
}

/// Removes the keys of unsupported kinds and those that are not for signatures (RFC 7517 §5): a client may publish its
/// set for others as well. A private key is kept, so that [`parse`] refuses the set.
///
/// # Errors
/// The fault, for the client that published the set.
pub fn without_unknown(set: &Value) -> Result<Value, &'static str> {
    let keys = set.get("keys").and_then(Value::as_array).ok_or("jwks has no array \"keys\"")?;
    let is_kept = |key: &&Value| self_signed::has_private_members(key) || VerifyingKey::from_jwk(key).is_ok();
    let kept: Vec<Value> = keys.iter().filter(is_kept).cloned().collect();
    Ok(serde_json::json!({ "keys": kept }))
}

/// The SHA-256 of the self-signed certificates that a client registered: of the first one in each key's `x5c` (RFC 7517
/// §4.7), or its `x5t#S256`.
///
/// # Errors
/// The fault, for the client or operator that registers the set.
pub fn certificates(jwks: &[u8]) -> Result<Vec<[u8; 32]>, &'static str> {
    let set: Value = serde_json::from_slice(jwks).map_err(|_| "jwks is not JSON")?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("jwks has no array \"keys\"")?;
    keys.iter().take(MAX_KEYS).filter_map(certificate).collect()
}

fn certificate(key: &Value) -> Option<Result<[u8; 32], &'static str>> {
    if let Some(chain) = key.get("x5c") {
        let first = chain.get(0).and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
        return Some(first.map(|der| mac::sha256(&der)).ok_or("x5c holds no certificate in base64"));
    }
    let thumbprint = key.get("x5t#S256")?.as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let thumbprint = thumbprint.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    Some(thumbprint.ok_or("x5t#S256 is not the base64url of a SHA-256 hash"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_of_something_else_is_refused_in_words() {
        let ed = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        assert_eq!(parse(format!(r#"{{"keys":[{ed}]}}"#).as_bytes()).unwrap().len(), 1);
        let private = ed.replace("\"x\"", "\"d\":\"AA\",\"x\"");
        for bad in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct"}]}"#] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(format!(r#"{{"keys":[{private}]}}"#).as_bytes()).unwrap_err().contains("private"));
        let mixed = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}},{ed}]}}"#);
        assert!(parse(mixed.as_bytes()).is_err());
        let kept = without_unknown(&serde_json::from_str(&mixed).unwrap()).unwrap();
        assert_eq!(parse(kept.to_string().as_bytes()).unwrap().len(), 1);
        let private = without_unknown(&serde_json::from_str(&format!(r#"{{"keys":[{private}]}}"#)).unwrap());
        assert!(parse(private.unwrap().to_string().as_bytes()).unwrap_err().contains("private"));
        let many = vec![ed; MAX_KEYS + 1].join(",");
        assert!(parse(format!(r#"{{"keys":[{many}]}}"#).as_bytes()).is_err());
    }
}
