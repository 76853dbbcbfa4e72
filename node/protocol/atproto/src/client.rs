//! This cluster as an atproto OAuth client. It is described by a document at its own address and authenticates with a
//! key of the state. In development on a single machine it is the loopback client, which needs no document.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use conclave_state::{
    Stamp, State as Rows,
    client::SigningAlgorithm,
    key::{KeyStage, SigningKey},
};
use serde_json::{Value, json};
use url::{Host, Url};

use super::{Atproto, SCOPE};
use conclave_config::PublicUrl;

/// The path of the document. It must never change, because the URL is the client id. The alias is a path that operators
/// may expect.
pub(crate) const DOCUMENT: &str = "/oauth-client-metadata.json";
pub(crate) const DOCUMENT_ALIAS: &str = "/.well-known/atproto-client-metadata.json";
/// The keys with which the client authenticates.
pub(crate) const KEYS: &str = "/oauth-client-jwks.json";
/// The only redirect URI.
pub(crate) const CALLBACK: &str = "/atproto/callback";

/// Servers cache the document and the keys for ten minutes anyway.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// Minimum time for which a key must be published before the client authenticates with it. Servers cache documents for
/// ten minutes, caches in between for five ([`CACHE`]); the rest allows for differing clocks and lagging nodes.
const KNOWN_FOR: Duration = Duration::from_mins(20);

/// The client id of this cluster, with its redirect URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientIdentity {
    pub id: String,
    pub redirect_uri: String,
    /// True if it authenticates with a key.
    pub is_confidential: bool,
}

impl ClientIdentity {
    /// Returns `None` if the network cannot know this cluster: for a name of this machine that is not an IP address,
    /// because loopback callbacks must go to an IP address.
    pub(crate) fn of(url: &PublicUrl) -> Option<Self> {
        let redirect_uri = url.join(CALLBACK);
        if url.is_secure() {
            return Some(Self { id: url.join(DOCUMENT), redirect_uri, is_confidential: true });
        }
        let is_address = Url::parse(&redirect_uri).ok().is_some_and(|url| match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(_)) | None => false,
        });
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("scope", SCOPE)
            .finish();
        is_address.then(|| Self {
            id: format!("http://localhost?{query}"),
            redirect_uri,
            is_confidential: false,
        })
    }
}

/// Serves the document. The bytes are equal on every node, because they come from the configuration alone.
pub(crate) async fn document(State(atproto): State<Atproto>) -> Response {
    let url = &atproto.site.auth.settings().public_url;
    let Some(client) = (*atproto.client).as_ref().filter(|client| client.is_confidential) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    (shared(), Json(described(client, url))).into_response()
}

/// The content of the document.
pub(crate) fn described(client: &ClientIdentity, url: &PublicUrl) -> Value {
    json!({
        "client_id": client.id,
        "client_name": "Conclave",
        "client_uri": url.issuer(),
        "application_type": "web",
        "redirect_uris": [client.redirect_uri],
        "grant_types": ["authorization_code"],
        "response_types": ["code"],
        "scope": SCOPE,
        "dpop_bound_access_tokens": true,
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES256",
        "jwks_uri": url.join(KEYS),
    })
}

/// The key with which the client authenticates: the latest one that every server must have seen. That is the active
/// key, unless an operator activated it early; then the one before it, while it is published. If no key is published
/// long enough, the oldest, which is the likeliest to be known.
pub(crate) fn proving_key(state: &Rows, now: Stamp) -> Option<&Arc<SigningKey>> {
    let own = || state.keys().filter(|key| is_own(key) && key.stage != KeyStage::Next);
    let known_for = |key: &SigningKey| Duration::from_millis(now.0.saturating_sub(key.created_at.0));
    let known = own().filter(|key| known_for(key) >= KNOWN_FOR);
    let latest = known.max_by_key(|key| match key.stage {
        KeyStage::Next => None,
        KeyStage::Active(since) | KeyStage::Retired { active_since: since, .. } => Some(since),
    });
    latest.or_else(|| own().min_by_key(|key| key.created_at))
}

fn is_own(key: &SigningKey) -> bool {
    key.algorithm == SigningAlgorithm::Es256
}

/// Serves every key that signs, will sign, or has signed something still in use.
pub(crate) async fn keys(State(atproto): State<Atproto>) -> Response {
    let state = atproto.site.auth.cluster().view();
    let own = state.keys().filter(|key| is_own(key));
    let keys: Vec<Value> = own.filter_map(|key| serde_json::from_slice(&key.public_jwk).ok()).collect();
    (shared(), Json(json!({ "keys": keys }))).into_response()
}

fn shared() -> HeaderMap {
    HeaderMap::from_iter([
        (header::CACHE_CONTROL, CACHE),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    ])
}
