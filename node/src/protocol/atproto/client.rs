//! What this cluster is called on the Atmosphere: a client described by a document at its own address (atproto OAuth),
//! by which it proves itself with a key of the state; or, on this machine in development, the loopback client that
//! needs no document.

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
    key::{SigningKey, Stage},
};
use serde_json::{Value, json};
use url::{Host, Url};

use super::{Atproto, SCOPE};
use conclave_config::PublicUrl;

/// Where the document is, now and for ever: it is the client's name. And the name that people may expect.
pub const DOCUMENT: &str = "/oauth-client-metadata.json";
pub const DOCUMENT_ALIAS: &str = "/.well-known/atproto-client-metadata.json";
/// The keys by which the client proves itself.
pub const KEYS: &str = "/oauth-client-jwks.json";
/// Where people come back to. The only one.
pub const CALLBACK: &str = "/atproto/callback";

/// Servers keep the document and the keys for ten minutes anyway.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// How long a key has been published before the client proves itself by it. Servers keep what they have read for ten
/// minutes, caches on the way for five ([`CACHE`]); the rest is for clocks that differ and nodes that lag.
const KNOWN_FOR: Duration = Duration::from_mins(20);

/// What this cluster is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    pub id: String,
    pub redirect_uri: String,
    /// It proves itself by a key.
    pub is_confidential: bool,
}

impl ClientIdentity {
    /// None where the network cannot know it: a name of this machine that is no address, for callbacks must go to an
    /// address there.
    pub fn of(url: &PublicUrl) -> Option<Self> {
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

/// The document. The same bytes from every node, for they come from the configuration alone.
pub async fn document(State(atproto): State<Atproto>) -> Response {
    let url = &atproto.site.auth.settings().public_url;
    let Some(client) = (*atproto.client).as_ref().filter(|client| client.is_confidential) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    (shared(), Json(described(client, url))).into_response()
}

/// What the document says.
pub fn described(client: &ClientIdentity, url: &PublicUrl) -> Value {
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

/// The key by which the client proves itself: the latest that every server must have seen. That is the one that signs,
/// unless an operator made it sign before its time; then the one before it, as long as it is published. Where none is
/// known so long, the eldest: the likeliest to be known.
pub fn proving_key(state: &Rows, now: Stamp) -> Option<&Arc<SigningKey>> {
    let own = || state.keys().filter(|key| is_own(key) && key.stage != Stage::Next);
    let known_for = |key: &SigningKey| Duration::from_millis(now.0.saturating_sub(key.created_at.0));
    let known = own().filter(|key| known_for(key) >= KNOWN_FOR);
    let latest = known.max_by_key(|key| match key.stage {
        Stage::Next => None,
        Stage::Active(since) | Stage::Retired { active_since: since, .. } => Some(since),
    });
    latest.or_else(|| own().min_by_key(|key| key.created_at))
}

fn is_own(key: &SigningKey) -> bool {
    key.algorithm == SigningAlgorithm::Es256
}

/// Every key that signs, will sign, or has signed what may still be on its way.
pub async fn keys(State(atproto): State<Atproto>) -> Response {
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
