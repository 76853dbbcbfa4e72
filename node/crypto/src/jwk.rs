//! Public keys as JSON Web Keys (RFC 7517, RFC 8037), named by their thumbprint (RFC 7638).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::jwt::JwtError;
use super::mac;

/// Longest RSA modulus accepted in a foreign JWK: 8192 bits, the most aws-lc verifies.
const MAX_MODULUS_LEN: usize = 1024;

/// A signature algorithm of JWS. `none` and the HMAC family are deliberately not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alg {
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 bits when generated here.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Alg {
    pub const ALL: [Self; 4] = [Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa];

    /// The name in a JOSE header, as registered with IANA.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm with exactly this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.name() == name)
    }
}

/// A public key of a kind that an [`Alg`] signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    P256 {
        x: [u8; 32],
        y: [u8; 32],
    },
    Ed25519 {
        x: [u8; 32],
    },
}

impl PublicKey {
    /// True if a key of this kind can make signatures of `alg`.
    pub fn fits(&self, alg: Alg) -> bool {
        match self {
            Self::Rsa { .. } => matches!(alg, Alg::Rs256 | Alg::Ps256),
            Self::P256 { .. } => alg == Alg::Es256,
            Self::Ed25519 { .. } => alg == Alg::EdDsa,
        }
    }

    /// RFC 7638: SHA-256 over the required members in lexical order, base64url.
    pub fn thumbprint(&self) -> String {
        // Written in lexical order below, so that the order is right even if serde_json does not keep the order of
        // insertion.
        let canonical = self.required_members().to_string();
        URL_SAFE_NO_PAD.encode(mac::sha256(canonical.as_bytes()))
    }

    /// The JWK to publish, with the thumbprint as `kid`.
    pub fn to_jwk(&self, alg: Alg) -> Value {
        let mut jwk = self.required_members();
        if let Value::Object(members) = &mut jwk {
            members.insert("alg".into(), alg.name().into());
            members.insert("use".into(), "sig".into());
            members.insert("kid".into(), self.thumbprint().into());
        }
        jwk
    }

    /// Reads the key of a JWK. The caller handles members that are not part of the key.
    pub fn from_jwk(jwk: &Value) -> Result<Self, JwtError> {
        match (text(jwk, "kty")?, text(jwk, "crv")) {
            ("RSA", _) => rsa(jwk),
            ("EC", Ok("P-256")) => Ok(Self::P256 { x: coordinate(jwk, "x")?, y: coordinate(jwk, "y")? }),
            ("OKP", Ok("Ed25519")) => Ok(Self::Ed25519 { x: coordinate(jwk, "x")? }),
            _ => Err(JwtError::UnsupportedKey),
        }
    }

    fn required_members(&self) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa { n, e } => json!({ "e": b64(e), "kty": "RSA", "n": b64(n) }),
            Self::P256 { x, y } => json!({ "crv": "P-256", "kty": "EC", "x": b64(x), "y": b64(y) }),
            Self::Ed25519 { x } => json!({ "crv": "Ed25519", "kty": "OKP", "x": b64(x) }),
        }
    }
}

fn rsa(jwk: &Value) -> Result<PublicKey, JwtError> {
    let (n, e) = (member(jwk, "n")?, member(jwk, "e")?);
    let leading_zero = n.first() == Some(&0) || e.first() == Some(&0);
    if n.is_empty() || e.is_empty() || leading_zero || n.len() > MAX_MODULUS_LEN {
        return Err(JwtError::UnsupportedKey);
    }
    Ok(PublicKey::Rsa { n, e })
}

fn coordinate(jwk: &Value, name: &str) -> Result<[u8; 32], JwtError> {
    member(jwk, name)?.try_into().map_err(|_| JwtError::UnsupportedKey)
}

fn member(jwk: &Value, name: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(text(jwk, name)?).map_err(|_| JwtError::UnsupportedKey)
}

fn text<'a>(jwk: &'a Value, name: &str) -> Result<&'a str, JwtError> {
    jwk.get(name).and_then(Value::as_str).ok_or(JwtError::UnsupportedKey)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Alg, PublicKey};

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        // RFC 8037 appendix A.3.
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let key = PublicKey::from_jwk(&jwk).unwrap();
        assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_published_key_reads_back() {
        let key = PublicKey::P256 { x: [1; 32], y: [2; 32] };
        let jwk = key.to_jwk(Alg::Es256);
        assert_eq!(PublicKey::from_jwk(&jwk).unwrap(), key);
        assert_eq!((&jwk["alg"], &jwk["use"]), (&json!("ES256"), &json!("sig")));
        assert_eq!(jwk["kid"], key.thumbprint());
    }

    #[test]
    fn keys_of_other_kinds_and_broken_ones_are_refused() {
        for jwk in [
            json!({}),
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": 5}),
            json!({"kty": "RSA", "n": "", "e": "AQAB"}),
            json!({"kty": "RSA", "n": "AAEB", "e": "AQAB"}),
        ] {
            assert!(PublicKey::from_jwk(&jwk).is_err(), "{jwk}");
        }
    }
}
