//! DPoP (RFC 9449): a proof of possession of a key, to which the tokens are bound.
//!
//! A proof is accepted once in the cluster: its `jti` goes into the log with the write that it belongs to. It needs a
//! nonce of this cluster, so it cannot have been made long ago. This module checks the content of a proof; the rules
//! check that it is new.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_proto::command::v1::{SpentProof, spent_proof::Kind};
use serde::Deserialize;
use url::Url;

use conclave_crypto::{jwk::Alg, mac, numeric_date::NumericDate, self_signed};

use crate::Oidc;
use crate::token::nonce;

/// The header of the proof, and the response header with a nonce.
pub(crate) const DPOP: HeaderName = HeaderName::from_static("dpop");
pub(crate) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Accepted signature algorithms of proofs.
pub(crate) const ALGORITHMS: [&str; 4] = ["RS256", "PS256", "ES256", "EdDSA"];
/// `typ` of a proof (RFC 9449 §4.2).
const TYP: &str = "dpop+jwt";
/// Maximum age of a proof, enough for a slow network. Each proof is remembered that long.
const MAX_AGE_SECS: u64 = 60;
/// Maximum lead of the client's clock, equal to that for assertions. A proof needs a nonce of this cluster, so it
/// cannot be made long before its use, and it is remembered until it expires.
const MAX_AHEAD_SECS: u64 = 30;
/// Maximum length of a `jti`: a UUID with room to spare.
const MAX_JTI_BYTES: usize = 256;

/// A proof whose key, request, age and nonce are valid.
#[derive(Clone, Debug)]
pub(crate) struct DpopProof {
    /// SHA-256 thumbprint of the key (RFC 7638).
    pub jkt: [u8; 32],
    spent: SpentProof,
}

impl DpopProof {
    /// The proof that the rules must record as spent, for this client.
    pub(crate) fn spent_by(&self, client_id: &str) -> SpentProof {
        SpentProof { client_id: client_id.to_owned(), ..self.spent.clone() }
    }

    /// The thumbprint as it appears in tokens.
    pub(crate) fn jkt_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.jkt)
    }
}

/// The reason why a proof is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DpopError {
    Invalid(&'static str),
    /// A valid proof without a current nonce of this cluster.
    NonceWanted,
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
    htm: String,
    htu: String,
    iat: NumericDate,
    nonce: Option<String>,
    ath: Option<String>,
}

/// The proof in the headers, if there is one, for a request with this method and path. With `access_token` the proof
/// must be bound to that token as well (RFC 9449 §4.3).
///
/// # Errors
/// [`DpopError`].
pub(crate) fn verify_proof(
    oidc: &Oidc,
    headers: &HeaderMap,
    method: &str,
    path: &str,
    access_token: Option<&str>,
) -> Result<Option<DpopProof>, DpopError> {
    let mut values = headers.get_all(DPOP).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(DpopError::Invalid("more than one DPoP header"));
    }
    let text = value.to_str().map_err(|_| DpopError::Invalid("the DPoP header is not text"))?;
    let signed = self_signed::verify(text, TYP, &Alg::ALL)
        .map_err(|_| DpopError::Invalid("the DPoP proof is malformed, or its signature does not hold"))?;
    let claims: Claims = serde_json::from_slice(&signed.claims).map_err(|_| {
        DpopError::Invalid("the DPoP proof lacks jti, htm, htu or iat, or one of them has the wrong type")
    })?;
    let now_ms = oidc.auth.now(&oidc.auth.cluster().view()).0;
    let url = oidc.auth.settings().public_url.join(path);
    claims.are_for(method, &url, access_token)?;
    claims.are_fresh(now_ms / 1_000)?;
    let keys = oidc.auth.cluster_keys();
    let is_good = |text| keys.any(|keys| nonce::is_good(&keys.dpop_nonce, now_ms, text));
    if !claims.nonce.as_deref().is_some_and(is_good) {
        return Err(DpopError::NonceWanted);
    }
    let jkt = parse_jkt(&signed.thumbprint).ok_or(DpopError::Invalid("the key has no thumbprint"))?;
    Ok(Some(DpopProof { spent: claims.spent(&jkt), jkt }))
}

/// The nonce for the next proof.
pub(crate) fn next_nonce(oidc: &Oidc) -> Option<HeaderValue> {
    let now_ms = oidc.auth.now(&oidc.auth.cluster().view()).0;
    HeaderValue::from_str(&nonce::make(&oidc.auth.cluster_keys().dpop_nonce, now_ms)).ok()
}

/// Parses the `dpop_jkt` of an authorization request (RFC 9449 §10).
///
/// # Errors
/// Fails if it is not a thumbprint.
pub(crate) fn wanted_key(dpop_jkt: Option<&str>) -> Result<Option<[u8; 32]>, &'static str> {
    let Some(text) = dpop_jkt else { return Ok(None) };
    parse_jkt(text).map(Some).ok_or("dpop_jkt is not the base64url of a SHA-256 thumbprint")
}

fn parse_jkt(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

impl Claims {
    fn are_for(&self, method: &str, url: &str, access_token: Option<&str>) -> Result<(), DpopError> {
        if self.htm != method {
            return Err(DpopError::Invalid("htm is not the method of the request"));
        }
        if !is_same_place(&self.htu, url) {
            return Err(DpopError::Invalid("htu is not the URL of the request, as discovery has it"));
        }
        let hash = access_token.map(|token| URL_SAFE_NO_PAD.encode(mac::sha256(token.as_bytes())));
        if hash.is_some() && self.ath != hash {
            return Err(DpopError::Invalid("ath is not the hash of the access token"));
        }
        Ok(())
    }

    fn are_fresh(&self, now: u64) -> Result<(), DpopError> {
        if self.jti.is_empty() || self.jti.len() > MAX_JTI_BYTES {
            return Err(DpopError::Invalid("jti is empty or too long"));
        }
        let oldest = now.saturating_sub(MAX_AGE_SECS);
        if !(oldest..=now.saturating_add(MAX_AHEAD_SECS)).contains(&self.iat.0) {
            return Err(DpopError::Invalid("iat is too old or in the future"));
        }
        Ok(())
    }

    /// Identified by key and `jti`, so that an attacker's proof cannot spend another client's.
    fn spent(&self, jkt: &[u8; 32]) -> SpentProof {
        let named = [b"dpop".as_slice(), jkt, &mac::sha256(self.jti.as_bytes())].concat();
        SpentProof {
            kind: Kind::Dpop.into(),
            proof_id: mac::sha256(&named).first_chunk::<16>().map(|id| id.to_vec()).unwrap_or_default(),
            // The second after the last one in which its age would be accepted.
            expires_at_ms: self.iat.0.saturating_add(MAX_AGE_SECS + 1).saturating_mul(1_000),
            client_id: String::new(),
        }
    }
}

/// True if both URLs are equal after normalisation, without query and fragment (RFC 9449 §4.3, check 9).
fn is_same_place(htu: &str, url: &str) -> bool {
    let normal = |text: &str| {
        let mut url = Url::parse(text).ok()?;
        url.set_query(None);
        url.set_fragment(None);
        Some(url)
    };
    matches!((normal(htu), normal(url)), (Some(htu), Some(url)) if htu == url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            jti: "1".into(),
            htm: "POST".into(),
            htu: "https://id.test/oidc/token".into(),
            iat: NumericDate(1_000),
            nonce: None,
            ath: None,
        }
    }

    #[test]
    fn the_place_is_compared_as_a_url_and_without_its_query() {
        let url = "https://id.test/oidc/token";
        for same in [
            url,
            "https://ID.test:443/oidc/token",
            "https://id.test/oidc/token?x=1#f",
            "HTTPS://id.test/oidc/./token",
        ] {
            assert!(is_same_place(same, url), "{same}");
        }
        for other in [
            "https://id.test/oidc/token/",
            "http://id.test/oidc/token",
            "https://id.test/OIDC/token",
            "/oidc/token",
            "",
        ] {
            assert!(!is_same_place(other, url), "{other}");
        }
    }

    #[test]
    fn a_proof_is_good_for_a_minute_and_little_ahead() {
        for (now, good) in [(1_000, true), (1_060, true), (1_061, false), (970, true), (969, false)] {
            assert_eq!(claims().are_fresh(now).is_ok(), good, "{now}");
        }
        assert!(Claims { jti: String::new(), ..claims() }.are_fresh(1_000).is_err());
        assert!(Claims { jti: "x".repeat(257), ..claims() }.are_fresh(1_000).is_err());
    }

    #[test]
    fn it_is_remembered_for_as_long_as_its_age_would_do() {
        let spent = claims().spent(&[1; 32]);
        assert!(claims().are_fresh(spent.expires_at_ms / 1_000).is_err());
        assert!(claims().are_fresh(spent.expires_at_ms / 1_000 - 1).is_ok());
        assert_ne!(spent.proof_id, claims().spent(&[2; 32]).proof_id);
        assert_ne!(spent.proof_id, Claims { jti: "2".into(), ..claims() }.spent(&[1; 32]).proof_id);
    }

    #[test]
    fn a_proof_for_a_token_names_it_and_its_request() {
        let url = "https://id.test/oidc/token";
        assert!(claims().are_for("POST", url, None).is_ok());
        assert!(claims().are_for("GET", url, None).is_err());
        assert!(claims().are_for("POST", "https://id.test/oidc/userinfo", None).is_err());
        assert!(claims().are_for("POST", url, Some("token")).is_err());
        let ath = Some(URL_SAFE_NO_PAD.encode(mac::sha256(b"token")));
        let bound = Claims { ath, ..claims() };
        assert!(bound.are_for("POST", url, Some("token")).is_ok());
        assert!(bound.are_for("POST", url, Some("other")).is_err());
    }
}
