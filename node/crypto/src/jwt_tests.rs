use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::{Alg, Expect, JwtError, JwtSigningKey, MAX_TOKEN_LEN, VerifyingKey, unverified_kid};
use conclave_base::runtime::testing::SeededEntropy;

fn key(alg: Alg) -> JwtSigningKey {
    let pkcs8 = JwtSigningKey::generate_pkcs8(alg, SeededEntropy::new(3).as_ref()).unwrap();
    JwtSigningKey::from_pkcs8(alg, &pkcs8).unwrap()
}

fn any<'a>() -> Expect<'a> {
    Expect { typ: None, algs: &Alg::ALL }
}

fn token_of(header: &str, claims: &str) -> String {
    format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims), "AAAA")
}

#[test]
fn every_algorithm_signs_what_its_published_key_verifies() {
    for alg in Alg::ALL {
        let key = key(alg);
        let token = key.sign("at+jwt", &json!({"sub": "ada"})).unwrap();
        let published = VerifyingKey::from_jwk(&key.public_jwk()).unwrap();
        let expect = Expect { typ: Some("at+jwt"), algs: &[alg] };
        assert_eq!(published.verify(&token, expect).unwrap(), br#"{"sub":"ada"}"#, "{alg:?}");
        assert_eq!(unverified_kid(&token).unwrap().as_deref(), Some(key.kid()));
        assert_eq!(key.public_jwk()["kid"], key.kid());
    }
}

#[test]
fn a_token_altered_anywhere_does_not_verify() {
    let key = key(Alg::EdDsa);
    let token = key.sign("JWT", &json!({"sub": "ada"})).unwrap();
    for at in 0..token.len() {
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        let altered = format!("{}{other}{}", &token[..at], &token[at + 1..]);
        assert!(key.verifying_key().verify(&altered, any()).is_err(), "character {at}");
    }
}

#[test]
fn the_header_cannot_choose_algorithm_key_or_type() {
    let (rsa, ed) = (key(Alg::Rs256), key(Alg::EdDsa));
    let verify = |token: &str, expect| ed.verifying_key().verify(token, expect).unwrap_err();
    let claims = "{}";
    assert_eq!(verify(&token_of(r#"{"alg":"none"}"#, claims), any()), JwtError::WrongAlg);
    assert_eq!(verify(&token_of(r#"{"alg":"HS256"}"#, claims), any()), JwtError::WrongAlg);
    assert_eq!(verify(&rsa.sign("JWT", &json!({})).unwrap(), any()), JwtError::WrongAlg);
    let own = ed.sign("JWT", &json!({})).unwrap();
    assert_eq!(verify(&own, Expect { typ: None, algs: &[Alg::Rs256] }), JwtError::WrongAlg);
    assert_eq!(verify(&own, Expect { typ: Some("at+jwt"), algs: &Alg::ALL }), JwtError::WrongType);
    assert_eq!(verify(&token_of(r#"{"alg":"EdDSA","kid":"x"}"#, claims), any()), JwtError::WrongKey);
    for crit in [r#"["exp"]"#, "[]", "null"] {
        let header = format!(r#"{{"alg":"EdDSA","crit":{crit}}}"#);
        assert_eq!(verify(&token_of(&header, claims), any()), JwtError::Critical);
    }
}

#[test]
fn one_rsa_key_published_for_one_algorithm_verifies_no_other() {
    let pkcs8 = JwtSigningKey::generate_pkcs8(Alg::Rs256, SeededEntropy::new(1).as_ref()).unwrap();
    let (rs, ps) =
        (JwtSigningKey::from_pkcs8(Alg::Rs256, &pkcs8), JwtSigningKey::from_pkcs8(Alg::Ps256, &pkcs8));
    let token = ps.unwrap().sign("JWT", &json!({})).unwrap();
    assert_eq!(rs.unwrap().verifying_key().verify(&token, any()), Err(JwtError::WrongAlg));
}

#[test]
fn only_the_one_spelling_of_a_compact_jws_is_read() {
    let key = key(Alg::EdDsa);
    let token = key.sign("JWT", &json!({"n": 1})).unwrap();
    let verify = |token: &str| key.verifying_key().verify(token, any()).unwrap_err();
    for odd in ["", ".", "..", "a.b", &format!("{token}.x"), &format!("x.{token}"), &format!("{token}=")] {
        assert_eq!(verify(odd), JwtError::Malformed, "{odd}");
    }
    // An Ed25519 signature leaves four spare bits in its last character: only zeros are canonical.
    let last = token.chars().last().unwrap();
    let next = char::from(u8::try_from(u32::from(last)).unwrap() + 1);
    assert_eq!(verify(&format!("{}{next}", &token[..token.len() - 1])), JwtError::Malformed);
    assert_eq!(verify(&"a".repeat(MAX_TOKEN_LEN + 1)), JwtError::TooLong);
    assert_eq!(verify(&token_of(r#"{"alg":"EdDSA","alg":"EdDSA"}"#, "{}")), JwtError::Malformed);
}

#[test]
fn a_type_is_compared_as_a_media_type() {
    let key = key(Alg::EdDsa);
    let token = key.sign("application/AT+JWT", &json!({})).unwrap();
    assert!(key.verifying_key().verify(&token, Expect { typ: Some("at+jwt"), algs: &Alg::ALL }).is_ok());
}

#[test]
fn keys_for_other_uses_are_not_verifying_keys() {
    let mut jwk = key(Alg::Es256).public_jwk();
    jwk["use"] = json!("enc");
    assert_eq!(VerifyingKey::from_jwk(&jwk).unwrap_err(), JwtError::UnsupportedKey);
    jwk["use"] = json!("sig");
    jwk["alg"] = json!("RS256");
    assert_eq!(VerifyingKey::from_jwk(&jwk).unwrap_err(), JwtError::UnsupportedKey);
}

#[test]
fn a_stored_key_of_another_algorithm_is_refused() {
    let pkcs8 = JwtSigningKey::generate_pkcs8(Alg::EdDsa, SeededEntropy::new(1).as_ref()).unwrap();
    assert_eq!(JwtSigningKey::from_pkcs8(Alg::Rs256, &pkcs8).unwrap_err(), JwtError::UnsupportedKey);
    assert_eq!(JwtSigningKey::from_pkcs8(Alg::EdDsa, b"junk").unwrap_err(), JwtError::UnsupportedKey);
}
