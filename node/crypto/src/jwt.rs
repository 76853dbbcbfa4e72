//! Signing and verifying JWS in compact form (RFC 7515, RFC 7518, RFC 8037) under the advice of RFC 8725.
//!
//! This file verifies the signature and the header. The caller checks the claims (issuer, audience, expiry). The header
//! never chooses the key: the caller does, and a header that disagrees is refused.

use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256,
    RsaEncoding, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::jwk::{Alg, PublicKey};
use super::rsa_der;
use conclave_base::runtime::Entropy;

/// The longest token that is parsed, in bytes: the default limit of a request body. Our tokens have about 1 KiB, and 20
/// KiB for a user with the largest number of groups; every token made here can be read here. The work is linear in the
/// length.
pub const MAX_TOKEN_LEN: usize = 64 * 1024;

/// The reason why a token or key was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JwtError {
    #[error("the token has more than {MAX_TOKEN_LEN} bytes")]
    TooLong,
    #[error("not a JWS in compact form")]
    Malformed,
    #[error("the token's header names an algorithm that is not accepted here")]
    WrongAlg,
    #[error("the token is of another type than expected")]
    WrongType,
    #[error("the token names another key")]
    WrongKey,
    #[error("the token's header has critical extensions, and none are understood")]
    Critical,
    #[error("the signature is not valid")]
    BadSignature,
    #[error("the key is of a kind or form that is not supported")]
    UnsupportedKey,
    #[error("signing failed")]
    Signing,
}

/// A private key that signs tokens.
pub struct JwtSigningKey {
    alg: Alg,
    pair: Pair,
    public: PublicKey,
    kid: String,
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl JwtSigningKey {
    /// Generates a new key as PKCS#8 (DER). RSA takes 50 ms to 1 s of CPU: call it where blocking is allowed.
    pub fn generate_pkcs8(alg: Alg, entropy: &dyn Entropy) -> Result<Zeroizing<Vec<u8>>, JwtError> {
        let der = match alg {
            Alg::Rs256 | Alg::Ps256 => generate_rsa(),
            Alg::Es256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
                .and_then(|pair| pair.to_pkcs8v1())
                .map(|der| der.as_ref().to_vec())
                .map_err(|_| JwtError::Signing),
            Alg::EdDsa => generate_ed25519(entropy),
        };
        der.map(Zeroizing::new)
    }

    /// Reads a key that [`generate_pkcs8`](Self::generate_pkcs8) made.
    pub fn from_pkcs8(alg: Alg, pkcs8: &[u8]) -> Result<Self, JwtError> {
        let pair = Pair::from_pkcs8(alg, pkcs8).ok_or(JwtError::UnsupportedKey)?;
        let public = pair.public().ok_or(JwtError::UnsupportedKey)?;
        let kid = public.thumbprint();
        Ok(Self { alg, pair, public, kid })
    }

    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// The RFC 7638 thumbprint of the public key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as a JWK for a JWKS document.
    pub fn public_jwk(&self) -> Value {
        self.public.to_jwk(self.alg)
    }

    /// The key that verifies this key's signatures.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey { key: self.public.clone(), alg: Some(self.alg), kid: self.kid.clone() }
    }

    /// A compact JWS over `claims` with the header `{alg, kid, typ}`; `typ` is `"JWT"`, `"at+jwt"`, ….
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, JwtError> {
        self.signed(&Header { alg: self.alg.name(), kid: &self.kid, typ }, claims)
    }

    /// Like [`sign`](Self::sign), with the public key itself in the header, `{alg, jwk, typ}`: a proof of possession of
    /// this key (RFC 9449 §4.2).
    pub fn sign_as_proof(&self, typ: &str, claims: &impl Serialize) -> Result<String, JwtError> {
        let jwk = self.public.to_jwk(self.alg);
        let members = ["kty", "crv", "x", "y", "n", "e"];
        let bare = members.into_iter().filter_map(|name| Some((name, jwk.get(name)?)));
        let bare: serde_json::Map<String, Value> =
            bare.map(|(name, value)| (name.to_owned(), value.clone())).collect();
        self.signed(&serde_json::json!({"alg": self.alg.name(), "jwk": bare, "typ": typ}), claims)
    }

    fn signed(&self, header: &impl Serialize, claims: &impl Serialize) -> Result<String, JwtError> {
        let header = serde_json::to_vec(header).map_err(|_| JwtError::Signing)?;
        let claims = serde_json::to_vec(claims).map_err(|_| JwtError::Signing)?;
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.pair.sign(self.alg, token.as_bytes()).ok_or(JwtError::Signing)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

impl fmt::Debug for JwtSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} {})", self.alg.name(), self.kid)
    }
}

/// A public key that checks tokens.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    key: PublicKey,
    /// The algorithm that the JWK names; `None` allows every algorithm that fits the key.
    alg: Option<Alg>,
    kid: String,
}

/// The properties that a caller requires of a token.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    /// The `typ` that the token must have (`"at+jwt"`), compared without case and without `application/`. With `None`,
    /// any `typ` is accepted, and none too.
    pub typ: Option<&'a str>,
    /// The accepted algorithms. An algorithm that does not fit the key is refused in any case.
    pub algs: &'a [Alg],
}

impl VerifyingKey {
    /// Reads a JWK. A JWK for encryption is refused, and so is one whose `alg` is not an [`Alg`] or does not fit the
    /// key.
    pub fn from_jwk(jwk: &Value) -> Result<Self, JwtError> {
        let key = PublicKey::from_jwk(jwk)?;
        if jwk.get("use").is_some_and(|purpose| purpose != "sig") {
            return Err(JwtError::UnsupportedKey);
        }
        let alg = match jwk.get("alg") {
            None => None,
            Some(name) => Some(name.as_str().and_then(Alg::from_name).ok_or(JwtError::UnsupportedKey)?),
        };
        if alg.is_some_and(|alg| !key.fits(alg)) {
            return Err(JwtError::UnsupportedKey);
        }
        let kid = jwk.get("kid").and_then(Value::as_str).map_or_else(|| key.thumbprint(), str::to_owned);
        Ok(Self { key, alg, kid })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// True if this key may check signatures of `alg`.
    pub fn fits(&self, alg: Alg) -> bool {
        self.key.fits(alg) && self.alg.is_none_or(|own| own == alg)
    }

    /// The claims (JSON bytes) of a token that this key signed and that meets the expectation.
    pub fn verify(&self, token: &str, expect: Expect<'_>) -> Result<Vec<u8>, JwtError> {
        let parts = Parts::split(token)?;
        let header = parts.header()?;
        let alg = self.accepted_alg(&header, expect)?;
        if header.kid.is_some_and(|kid| kid != self.kid) {
            return Err(JwtError::WrongKey);
        }
        if expect.typ.is_some_and(|typ| !same_type(typ, header.typ.as_deref())) {
            return Err(JwtError::WrongType);
        }
        let signature = decode(parts.signature)?;
        let claims = decode(parts.claims)?;
        if !self.key.holds(alg, parts.signed.as_bytes(), &signature) {
            return Err(JwtError::BadSignature);
        }
        Ok(claims)
    }

    fn accepted_alg(&self, header: &ForeignHeader, expect: Expect<'_>) -> Result<Alg, JwtError> {
        Alg::from_name(&header.alg)
            .filter(|alg| expect.algs.contains(alg))
            .filter(|alg| self.fits(*alg))
            .ok_or(JwtError::WrongAlg)
    }
}

/// The `kid` in a token's header, to look up its key. Nothing in the token is verified yet.
pub fn unverified_kid(token: &str) -> Result<Option<String>, JwtError> {
    Ok(Parts::split(token)?.header()?.kid)
}

/// The claims (JSON bytes) of a token, to find out whose key to get. Nothing in the token is verified yet.
pub fn unverified_claims(token: &str) -> Result<Vec<u8>, JwtError> {
    decode(Parts::split(token)?.claims)
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

/// The header of a received token. Members that name a key (`jwk`, `jku`, `x5c`, …) are deliberately not read.
#[derive(Deserialize)]
struct ForeignHeader {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
    #[serde(default, deserialize_with = "present")]
    b64: bool,
}

/// True if the member is present, even if it is `null`.
fn present<'de, D: serde::Deserializer<'de>>(member: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(member).map(|_| true)
}

pub(super) struct Parts<'a> {
    signed: &'a str,
    pub(super) header: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn split(token: &'a str) -> Result<Self, JwtError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(JwtError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        if claims.contains('.') {
            return Err(JwtError::Malformed);
        }
        Ok(Self { signed, header, claims, signature })
    }

    fn header(&self) -> Result<ForeignHeader, JwtError> {
        let json = decode(self.header)?;
        let header: ForeignHeader = serde_json::from_slice(&json).map_err(|_| JwtError::Malformed)?;
        if header.crit || header.b64 {
            return Err(JwtError::Critical);
        }
        Ok(header)
    }
}

/// Decodes base64url without padding in its one canonical spelling (the engine refuses padding and spare bits).
pub(super) fn decode(part: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)
}

/// Compares media types as in RFC 7515 §4.1.9: `application/` may be omitted, and case is ignored.
fn same_type(expected: &str, found: Option<&str>) -> bool {
    const PREFIX: &str = "application/";
    let found = found.unwrap_or_default();
    let bare = match found.get(..PREFIX.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => found.get(PREFIX.len()..).unwrap_or_default(),
        _ => found,
    };
    bare.eq_ignore_ascii_case(expected)
}

fn generate_rsa() -> Result<Vec<u8>, JwtError> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| JwtError::Signing)?;
    let der = pair.as_der().map_err(|_| JwtError::Signing)?;
    Ok(der.as_ref().to_vec())
}

fn generate_ed25519(entropy: &dyn Entropy) -> Result<Vec<u8>, JwtError> {
    let seed = Zeroizing::new(entropy.bytes::<32>());
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(|_| JwtError::Signing)?;
    let der = pair.to_pkcs8().map_err(|_| JwtError::Signing)?;
    Ok(der.as_ref().to_vec())
}

impl Pair {
    fn from_pkcs8(alg: Alg, pkcs8: &[u8]) -> Option<Self> {
        match alg {
            Alg::Rs256 | Alg::Ps256 => RsaKeyPair::from_pkcs8(pkcs8).ok().map(Self::Rsa),
            Alg::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok().map(Self::P256)
            }
            Alg::EdDsa => Ed25519KeyPair::from_pkcs8(pkcs8).ok().map(Self::Ed25519),
        }
    }

    fn public(&self) -> Option<PublicKey> {
        match self {
            Self::Rsa(pair) => {
                let (n, e) = rsa_der::modulus_and_exponent(pair.public_key().as_ref())?;
                Some(PublicKey::Rsa { n, e })
            }
            Self::P256(pair) => {
                // Uncompressed point, SEC 1 §2.3.3: 0x04 | x | y.
                let (x, y) = pair.public_key().as_ref().strip_prefix(&[4])?.split_first_chunk()?;
                Some(PublicKey::P256 { x: *x, y: y.try_into().ok()? })
            }
            Self::Ed25519(pair) => {
                Some(PublicKey::Ed25519 { x: pair.public_key().as_ref().try_into().ok()? })
            }
        }
    }

    fn sign(&self, alg: Alg, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Rsa(pair) => sign_rsa(pair, alg, message),
            Self::P256(pair) => Some(pair.sign(&SystemRandom::new(), message).ok()?.as_ref().to_vec()),
            Self::Ed25519(pair) => Some(pair.try_sign(message).ok()?.as_ref().to_vec()),
        }
    }
}

fn sign_rsa(pair: &RsaKeyPair, alg: Alg, message: &[u8]) -> Option<Vec<u8>> {
    let encoding: &'static dyn RsaEncoding =
        if alg == Alg::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), message, &mut signature).ok()?;
    Some(signature)
}

impl PublicKey {
    fn holds(&self, alg: Alg, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa { n, e } => {
                let params =
                    if alg == Alg::Ps256 { &RSA_PSS_2048_8192_SHA256 } else { &RSA_PKCS1_2048_8192_SHA256 };
                PublicKeyComponents { n, e }.verify(params, message, signature).is_ok()
            }
            Self::P256 { x, y } => {
                let point = [&[4], x.as_slice(), y].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            Self::Ed25519 { x } => UnparsedPublicKey::new(&ED25519, x).verify(message, signature).is_ok(),
        }
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
