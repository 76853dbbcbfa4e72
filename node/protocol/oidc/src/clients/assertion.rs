//! `private_key_jwt` (RFC 7523, OIDC Core §9): a client authenticates by an assertion signed with its own key. Only the
//! keys and the algorithm of its registration are accepted. Each assertion is accepted once, which the rules enforce.

use conclave_proto::command::v1::{SpentProof, spent_proof::Kind};
use conclave_state::client::Client;
use serde::Deserialize;

use conclave_auth::keys::alg;
use conclave_crypto::{
    jwk::Alg,
    jwks,
    jwt::{Expect, VerifyingKey, unverified_claims, unverified_kid},
    mac,
    numeric_date::NumericDate,
};

/// `client_assertion_type` (RFC 7523 §2.2).
pub(crate) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Maximum time until an assertion expires. Some libraries write an hour; each assertion is remembered that long.
const MAX_LIFE_SECS: u64 = 3_600;
/// Accepted difference between the client's clock and ours, in both directions.
const LEEWAY_SECS: u64 = 30;
/// Maximum length of a `jti`: a UUID with room to spare.
const MAX_JTI_BYTES: usize = 256;

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: OneAudience,
    exp: NumericDate,
    iat: Option<NumericDate>,
    nbf: Option<NumericDate>,
    jti: String,
}

/// One audience, as text or as a list of one. An assertion for several audiences could be passed on to another of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneAudience {
    Text(String),
    List([String; 1]),
}

impl OneAudience {
    fn as_str(&self) -> &str {
        match self {
            Self::Text(audience) | Self::List([audience]) => audience,
        }
    }
}

/// The `sub` of the assertion, to look the client up. Nothing is verified yet.
pub(crate) fn unverified_client(assertion: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Subject {
        sub: String,
    }
    let claims = unverified_claims(assertion).ok()?;
    serde_json::from_slice::<Subject>(&claims).ok().map(|claims| claims.sub)
}

/// Verifies an assertion of `client` for one of `audiences` at `now_ms`; returns the proof that the rules must record
/// as spent. `None` if the assertion is invalid.
pub(crate) fn verify(
    client: &Client,
    assertion: &str,
    audiences: &[&str],
    now_ms: u64,
) -> Option<SpentProof> {
    let expected = client.tokens.assertion_algorithm.and_then(alg)?;
    let kid = unverified_kid(assertion).ok()?;
    let key = key(&client.tokens.jwks, kid.as_deref(), expected)?;
    let json = key.verify(assertion, Expect { typ: None, algs: &[expected] }).ok()?;
    let claims: Claims = serde_json::from_slice(&json).ok()?;
    let id = client.id.as_str();
    let is_from_and_for = claims.iss == id && claims.sub == id && audiences.contains(&claims.aud.as_str());
    (is_from_and_for && claims.are_fresh(now_ms / 1_000)).then(|| claims.spent())
}

/// The key that the header names; without a `kid`, the only one that fits.
fn key(registered: &[u8], kid: Option<&str>, expected: Alg) -> Option<VerifyingKey> {
    let keys = jwks::parse(registered).ok()?;
    let mut fitting = keys.into_iter().filter(|key| key.fits(expected));
    match kid {
        Some(kid) => fitting.find(|key| key.kid() == kid),
        None => fitting.next().filter(|_| fitting.next().is_none()),
    }
}

impl Claims {
    fn are_fresh(&self, now: u64) -> bool {
        let begins = self.iat.unwrap_or_default().max(self.nbf.unwrap_or_default()).0;
        let has_name = !self.jti.is_empty() && self.jti.len() <= MAX_JTI_BYTES;
        let ahead = now.saturating_add(LEEWAY_SECS);
        has_name
            && now < self.exp.0.saturating_add(LEEWAY_SECS)
            && self.exp.0 <= ahead.saturating_add(MAX_LIFE_SECS)
            && begins <= ahead
    }

    fn spent(&self) -> SpentProof {
        let digest = |text: &str| mac::sha256(text.as_bytes());
        let named = [b"assertion".as_slice(), &digest(&self.iss), &digest(&self.jti)].concat();
        SpentProof {
            kind: Kind::ClientAssertion.into(),
            proof_id: mac::sha256(&named).first_chunk::<16>().map(|id| id.to_vec()).unwrap_or_default(),
            expires_at_ms: self.exp.0.saturating_add(LEEWAY_SECS).saturating_mul(1_000),
            client_id: self.iss.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            iss: "c".into(),
            sub: "c".into(),
            aud: OneAudience::Text("https://id.test".into()),
            exp: NumericDate(1_060),
            iat: Some(NumericDate(1_000)),
            nbf: None,
            jti: "1".into(),
        }
    }

    #[test]
    fn an_assertion_has_its_time_and_no_more() {
        for (now, good) in [(1_000, true), (1_089, true), (1_090, false), (970, true), (969, false)] {
            assert_eq!(claims().are_fresh(now), good, "{now}");
        }
        assert!(
            !Claims { exp: NumericDate(u64::MAX), ..claims() }.are_fresh(1_000),
            "longer than it is remembered"
        );
        assert!(!Claims { nbf: Some(NumericDate(1_031)), ..claims() }.are_fresh(1_000));
        assert!(!Claims { jti: String::new(), ..claims() }.are_fresh(1_000));
    }

    #[test]
    fn it_is_remembered_until_its_time_is_over_for_its_own_client() {
        let spent = claims().spent();
        assert!(!claims().are_fresh(spent.expires_at_ms / 1_000));
        assert_ne!(spent.proof_id, Claims { iss: "d".into(), ..claims() }.spent().proof_id);
        assert_ne!(spent.proof_id, Claims { jti: "2".into(), ..claims() }.spent().proof_id);
    }
}
