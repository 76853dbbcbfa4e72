//! A provider's endpoints and keys: discovered (OIDC Discovery 1.0), cached, and requested no more often than needed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use conclave_state::upstream::{ProviderLocation, Upstream};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::Auth;
use conclave_crypto::{jwk::Alg, jwt::VerifyingKey};

use super::UpstreamError;

/// Time for which a document is used without another fetch.
const FRESH: Duration = Duration::from_hours(1);
/// Time for which an old document is used when the provider cannot be reached.
const STALE: Duration = Duration::from_hours(24);
/// An unknown key leads to one fetch of the key set. The next one waits this long, so that an attacker cannot make us
/// flood the provider.
const BETWEEN_KEY_FETCHES: Duration = Duration::from_secs(30);
/// Maximum number of keys of a provider that are used.
const MAX_KEYS: usize = 32;
/// Maximum number of documents kept; there are fewer providers than this.
const MAX_KEPT: usize = 64;

/// A provider's endpoints and capabilities.
#[derive(Clone, Debug)]
pub(super) struct ProviderMetadata {
    pub issuer: Option<String>,
    pub authorization: String,
    pub token: String,
    pub userinfo: Option<String>,
    jwks_uri: String,
    /// Accepted signature algorithms of its ID tokens: those that the provider lists and that are supported here.
    pub algs: Vec<Alg>,
    /// True if it sends `iss` in its responses (RFC 9207).
    names_itself: bool,
    /// True if the client secret goes into the body instead of the header.
    pub posts_secret: bool,
}

/// OIDC Discovery §3.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: Option<String>,
    jwks_uri: String,
    #[serde(default)]
    id_token_signing_alg_values_supported: Vec<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

struct Kept<T> {
    at: Duration,
    what: Arc<T>,
}

/// The fetched documents and keys, by issuer.
#[derive(Default)]
pub(super) struct Providers {
    documents: Mutex<BTreeMap<String, Kept<ProviderMetadata>>>,
    keys: Mutex<BTreeMap<String, Kept<Vec<VerifyingKey>>>>,
}

impl ProviderMetadata {
    fn of_endpoints(authorization: &str, token: &str, userinfo: &str) -> Self {
        Self {
            issuer: None,
            authorization: authorization.to_owned(),
            token: token.to_owned(),
            userinfo: Some(userinfo.to_owned()),
            jwks_uri: String::new(),
            algs: Vec::new(),
            names_itself: false,
            // Providers without discovery accepted this method before there was a choice.
            posts_secret: true,
        }
    }

    fn of_document(document: Document) -> Self {
        let methods = document.token_endpoint_auth_methods_supported.unwrap_or_default();
        let takes = |method: &str| methods.iter().any(|one| one == method);
        let named = document.id_token_signing_alg_values_supported;
        let algs =
            Alg::ALL.into_iter().filter(|alg| named.is_empty() || named.iter().any(|n| n == alg.name()));
        Self {
            issuer: Some(document.issuer),
            authorization: document.authorization_endpoint,
            token: document.token_endpoint,
            userinfo: document.userinfo_endpoint,
            jwks_uri: document.jwks_uri,
            algs: algs.collect(),
            names_itself: document.authorization_response_iss_parameter_supported,
            posts_secret: takes("client_secret_post") && !takes("client_secret_basic"),
        }
    }

    /// RFC 9207 §2.4: the responding provider must be the requested one; a provider that sends `iss` always does so.
    pub(super) fn is_answered_by(&self, iss: Option<&str>) -> Result<(), UpstreamError> {
        match (&self.issuer, iss) {
            (Some(issuer), Some(iss)) if issuer == iss => Ok(()),
            (Some(_), None) if !self.names_itself => Ok(()),
            // Without an issuer there is nothing to compare; the provider's own redirect URI identifies it.
            (None, _) => Ok(()),
            (Some(_), _) => Err(UpstreamError::MixUp),
        }
    }
}

impl Providers {
    /// The provider, from its cached or freshly fetched document.
    pub(super) async fn of(
        &self,
        auth: &Auth,
        upstream: &Upstream,
    ) -> Result<Arc<ProviderMetadata>, UpstreamError> {
        let issuer = match &upstream.location {
            ProviderLocation::Issuer(issuer) => issuer,
            ProviderLocation::Endpoints { authorization, token, userinfo } => {
                return Ok(Arc::new(ProviderMetadata::of_endpoints(authorization, token, userinfo)));
            }
            // Each user has a different server there; its own slice finds it.
            ProviderLocation::Atmosphere => return Err(UpstreamError::Unknown),
        };
        let now = auth.runtime().clock.monotonic();
        let kept = look(&self.documents, issuer, now, FRESH);
        if let Some(provider) = kept {
            return Ok(provider);
        }
        match discover(auth, issuer).await {
            Ok(provider) => Ok(keep(&self.documents, issuer, now, provider)),
            Err(error) => look(&self.documents, issuer, now, STALE).ok_or(error),
        }
    }

    /// The provider's keys. `again` is true if a token named a key that is not among the cached ones.
    pub(super) async fn keys(
        &self,
        auth: &Auth,
        provider: &ProviderMetadata,
        again: bool,
    ) -> Result<Arc<Vec<VerifyingKey>>, UpstreamError> {
        let issuer = provider.issuer.as_deref().unwrap_or_default();
        let now = auth.runtime().clock.monotonic();
        let good_for = if again { BETWEEN_KEY_FETCHES } else { FRESH };
        if let Some(keys) = look(&self.keys, issuer, now, good_for) {
            return Ok(keys);
        }
        match fetch_keys(auth, &provider.jwks_uri).await {
            Ok(keys) => Ok(keep(&self.keys, issuer, now, keys)),
            Err(error) => look(&self.keys, issuer, now, STALE).ok_or(error),
        }
    }
}

fn look<T>(
    kept: &Mutex<BTreeMap<String, Kept<T>>>,
    key: &str,
    now: Duration,
    limit: Duration,
) -> Option<Arc<T>> {
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let found = kept.get(key).filter(|kept| now.saturating_sub(kept.at) < limit)?;
    Some(Arc::clone(&found.what))
}

fn keep<T>(kept: &Mutex<BTreeMap<String, Kept<T>>>, key: &str, at: Duration, what: T) -> Arc<T> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= MAX_KEPT && !kept.contains_key(key) {
        kept.clear();
    }
    let what = Arc::new(what);
    kept.insert(key.to_owned(), Kept { at, what: Arc::clone(&what) });
    what
}

/// OIDC Discovery §4: the document must name exactly the configured issuer.
async fn discover(auth: &Auth, issuer: &str) -> Result<ProviderMetadata, UpstreamError> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document: Document = fetch(auth, &url).await?;
    if document.issuer != issuer {
        return Err(UpstreamError::Answer("its document names another issuer than was configured".into()));
    }
    let provider = ProviderMetadata::of_document(document);
    if provider.algs.is_empty() {
        return Err(UpstreamError::Answer("it signs with no algorithm that is accepted here".into()));
    }
    Ok(provider)
}

/// Keys of unknown kinds, or not for signatures, are ignored.
async fn fetch_keys(auth: &Auth, url: &str) -> Result<Vec<VerifyingKey>, UpstreamError> {
    let set: Value = fetch(auth, url).await?;
    let keys = set.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(keys.iter().take(MAX_KEYS).filter_map(|key| VerifyingKey::from_jwk(key).ok()).collect())
}

async fn fetch<T: for<'de> Deserialize<'de>>(auth: &Auth, url: &str) -> Result<T, UpstreamError> {
    let answer = auth.upstreams().outbound.get(url, None).await?;
    if answer.status != StatusCode::OK {
        return Err(UpstreamError::Answer(format!("{url} answers {}", answer.status)));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| UpstreamError::Answer(format!("{url} is not a valid document: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(document: &str) -> ProviderMetadata {
        let minimal =
            r#""issuer":"https://i","authorization_endpoint":"a","token_endpoint":"t","jwks_uri":"j""#;
        ProviderMetadata::of_document(serde_json::from_str(&format!("{{{minimal}{document}}}")).unwrap())
    }

    #[test]
    fn who_answers_must_be_who_was_asked() {
        let silent = provider("");
        assert!(silent.is_answered_by(None).is_ok() && silent.is_answered_by(Some("https://i")).is_ok());
        assert!(silent.is_answered_by(Some("https://j")).is_err());
        let named = provider(r#","authorization_response_iss_parameter_supported":true"#);
        assert!(named.is_answered_by(None).is_err() && named.is_answered_by(Some("https://i")).is_ok());
    }

    #[test]
    fn symmetric_and_unsigned_tokens_are_never_among_the_algorithms() {
        let named =
            |algs: &str| provider(&format!(r#","id_token_signing_alg_values_supported":{algs}"#)).algs;
        assert_eq!(named(r#"["none","HS256"]"#), []);
        assert_eq!(named(r#"["HS256","RS256","none"]"#), [Alg::Rs256]);
        assert_eq!(named("[]"), Alg::ALL);
    }

    #[test]
    fn the_secret_goes_where_the_provider_takes_it() {
        let posts = |methods: &str| {
            provider(&format!(r#","token_endpoint_auth_methods_supported":{methods}"#)).posts_secret
        };
        assert!(!provider("").posts_secret && !posts(r#"["client_secret_post","client_secret_basic"]"#));
        assert!(posts(r#"["client_secret_post","private_key_jwt"]"#));
    }
}
