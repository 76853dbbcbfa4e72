//! Tokens with their signing key in the header: DPoP proofs (RFC 9449 §4.2). They prove possession of that key and
//! nothing else; the caller decides which client the key belongs to.

use serde::Deserialize;
use serde_json::Value;

use super::{
    jwk::{Alg, PublicKey},
    jwt::{Expect, JwtError, Parts, VerifyingKey, decode},
};

/// Members of a JWK that are private (RFC 7518 §6). A private key that was sent to others is compromised (RFC 9449
/// §4.3, check 7).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A token whose signature is valid under the key in its header.
#[derive(Debug)]
pub struct SelfSigned {
    /// The claims, JSON.
    pub claims: Vec<u8>,
    /// SHA-256 thumbprint of the key (RFC 7638), base64url.
    pub thumbprint: String,
}

#[derive(Deserialize)]
struct KeyHeader {
    jwk: Value,
}

/// Parses and verifies a token.
///
/// # Errors
/// [`JwtError`].
pub fn verify(token: &str, typ: &str, algs: &[Alg]) -> Result<SelfSigned, JwtError> {
    let header: KeyHeader =
        serde_json::from_slice(&decode(Parts::split(token)?.header)?).map_err(|_| JwtError::Malformed)?;
    if has_private_members(&header.jwk) {
        return Err(JwtError::UnsupportedKey);
    }
    let thumbprint = PublicKey::from_jwk(&header.jwk)?.thumbprint();
    let claims = VerifyingKey::from_jwk(&header.jwk)?.verify(token, Expect { typ: Some(typ), algs })?;
    Ok(SelfSigned { claims, thumbprint })
}

/// True if the JWK contains private members.
pub fn has_private_members(jwk: &Value) -> bool {
    PRIVATE_MEMBERS.iter().any(|member| jwk.get(member).is_some())
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;

    /// The example of RFC 9449 §4.1.
    const RFC_PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";

    #[test]
    fn the_proof_of_the_rfc_holds_and_names_its_key() {
        let proof = verify(RFC_PROOF, "dpop+jwt", &Alg::ALL).unwrap();
        // The thumbprint in RFC 9449 §6.1.
        assert_eq!(proof.thumbprint, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        assert!(verify(RFC_PROOF, "JWT", &Alg::ALL).is_err(), "another type");
        assert!(verify(RFC_PROOF, "dpop+jwt", &[Alg::EdDsa]).is_err(), "another algorithm");
    }

    #[test]
    fn no_character_can_be_changed() {
        for at in 0..RFC_PROOF.len() {
            let other = if &RFC_PROOF[at..=at] == "A" { "B" } else { "A" };
            let altered = format!("{}{other}{}", &RFC_PROOF[..at], &RFC_PROOF[at + 1..]);
            assert!(verify(&altered, "dpop+jwt", &Alg::ALL).is_err(), "character {at}");
        }
    }

    #[test]
    fn a_key_that_is_shown_whole_or_is_none_is_refused() {
        let (_, rest) = RFC_PROOF.split_once('.').unwrap();
        let x = "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs";
        let y = "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA";
        for jwk in [
            json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "d": "AA"}),
            json!({"kty": "oct", "k": "AAAA"}),
            json!("https://keys.test/1"),
            json!(null),
        ] {
            let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}).to_string();
            let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
            assert!(verify(&token, "dpop+jwt", &Alg::ALL).is_err(), "{jwk}");
        }
        let without = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(r#"{"typ":"dpop+jwt","alg":"ES256"}"#));
        assert!(verify(&without, "dpop+jwt", &Alg::ALL).is_err());
    }
}
