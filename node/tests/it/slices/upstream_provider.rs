//! A simulated provider: an HTTP server in this process that returns any response that a test sets.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Form, Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use conclave_base::runtime::testing::SeededEntropy;
use conclave_crypto::{jwk::Alg, jwt::JwtSigningKey};
use conclave_node::testing::START_MS;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::site::digest;

/// The signature of an ID token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signed {
    Well,
    /// `alg: none`, and no signature.
    Unsigned,
    /// HS256 with the public key as the secret.
    WithThePublicKey,
    /// By another key under the name of the published one.
    ByAnother,
    /// By a key that is not published yet, or never.
    ByANewKey,
}

/// The next responses.
pub(super) struct Script {
    pub signed: Signed,
    pub key: JwtSigningKey,
    /// The keys that it publishes.
    pub published: Vec<Value>,
    /// Claims in addition to, or in place of, the valid ones.
    pub claims: Map<String, Value>,
    pub userinfo: Value,
    /// Additional members of the discovery document.
    pub document: Map<String, Value>,
    pub is_plain: bool,
    nonce: String,
    challenge: String,
}

pub(super) struct Provider {
    pub url: String,
    pub script: Mutex<Script>,
    pub documents_asked: AtomicUsize,
    pub keys_asked: AtomicUsize,
    pub codes_asked: AtomicUsize,
    server: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

#[derive(Deserialize)]
struct Redemption {
    code: String,
    code_verifier: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    client_secret: String,
}

pub(super) fn key(seed: u64) -> JwtSigningKey {
    let pkcs8 = JwtSigningKey::generate_pkcs8(Alg::EdDsa, &*SeededEntropy::new(seed)).unwrap();
    JwtSigningKey::from_pkcs8(Alg::EdDsa, &pkcs8).unwrap()
}

impl Provider {
    pub(super) async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let key = key(1);
        let script = Script {
            signed: Signed::Well,
            published: vec![json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}), key.public_jwk()],
            key,
            claims: Map::new(),
            userinfo: json!({"sub": "sub-1"}),
            document: Map::new(),
            is_plain: false,
            nonce: String::new(),
            challenge: String::new(),
        };
        let provider = Arc::new(Self {
            url: format!("http://{address}"),
            script: Mutex::new(script),
            documents_asked: AtomicUsize::new(0),
            keys_asked: AtomicUsize::new(0),
            codes_asked: AtomicUsize::new(0),
            server: Mutex::new(None),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(document))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .with_state(Arc::clone(&provider));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        *provider.server.lock().unwrap() = Some(serving);
        provider
    }

    /// Stops the server: no request is answered any more.
    pub(super) async fn stop(&self) {
        let server = self.server.lock().unwrap().take().unwrap();
        server.abort();
        let _ = server.await;
    }

    /// Changes its responses.
    pub(super) fn says(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    pub(super) fn claims(&self, name: &str, value: Value) {
        self.says(|script| drop(script.claims.insert(name.into(), value)));
    }

    /// The user consents at `address`; returns the query of the callback.
    pub(super) fn allows(&self, address: &str) -> String {
        let url = url::Url::parse(address).unwrap();
        assert!(address.starts_with(&format!("{}/authorize", self.url)), "{address}");
        let of = |name: &str| {
            url.query_pairs()
                .find(|(n, _)| n == name)
                .map(|(_, value)| value.into_owned())
                .unwrap_or_default()
        };
        assert_eq!((of("response_type").as_str(), of("code_challenge_method").as_str()), ("code", "S256"));
        self.says(|script| {
            script.nonce = of("nonce");
            script.challenge = of("code_challenge");
        });
        super::site::encoded(&[("state", &of("state")), ("code", "c0de")])
    }

    fn id_token(&self, script: &Script) -> String {
        let now = START_MS / 1_000;
        let mut claims = json!({
            "iss": self.url, "aud": "conclave here", "sub": "sub-1", "nonce": script.nonce, "iat": now, "exp": now + 300,
        });
        for (name, value) in &script.claims {
            claims[name] = value.clone();
        }
        match script.signed {
            Signed::Well => script.key.sign("JWT", &claims).unwrap(),
            Signed::ByANewKey => key(2).sign("JWT", &claims).unwrap(),
            Signed::ByAnother => {
                let forged = key(2).sign("JWT", &claims).unwrap();
                let (_, rest) = forged.split_once('.').unwrap();
                let header = json!({"alg": "EdDSA", "kid": script.key.kid()});
                format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
            }
            Signed::Unsigned => format!("{}.", unsigned(&json!({"alg": "none"}), &claims)),
            Signed::WithThePublicKey => {
                let body = unsigned(&json!({"alg": "HS256", "kid": script.key.kid()}), &claims);
                let public = URL_SAFE_NO_PAD.decode(script.key.public_jwk()["x"].as_str().unwrap()).unwrap();
                let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &public);
                let mac = aws_lc_rs::hmac::sign(&secret, body.as_bytes());
                format!("{body}.{}", URL_SAFE_NO_PAD.encode(mac))
            }
        }
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

async fn document(State(provider): State<Arc<Provider>>) -> Json<Value> {
    provider.documents_asked.fetch_add(1, Ordering::SeqCst);
    let url = &provider.url;
    let mut document = json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize?tenant=1"),
        "token_endpoint": format!("{url}/token"),
        "userinfo_endpoint": format!("{url}/userinfo"),
        "jwks_uri": format!("{url}/keys"),
        "id_token_signing_alg_values_supported": ["RS256", "EdDSA", "HS256", "none"],
    });
    for (name, value) in &provider.script.lock().unwrap().document {
        document[name] = value.clone();
    }
    Json(document)
}

async fn keys(State(provider): State<Arc<Provider>>) -> Json<Value> {
    provider.keys_asked.fetch_add(1, Ordering::SeqCst);
    Json(json!({ "keys": provider.script.lock().unwrap().published }))
}

/// Checks the client and PKCE as a provider does. A code is accepted any number of times: single use is the node's
/// task.
async fn token(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    Form(form): Form<Redemption>,
) -> Result<Json<Value>, StatusCode> {
    provider.codes_asked.fetch_add(1, Ordering::SeqCst);
    let script = provider.script.lock().unwrap();
    let basic = format!("Basic {}", STANDARD.encode("conclave+here:s%3Acret"));
    let is_client = if script.is_plain {
        form.client_id == "conclave here" && form.client_secret == "s:cret"
    } else {
        headers.get("authorization").is_some_and(|value| value == basic.as_str())
    };
    let challenge = URL_SAFE_NO_PAD.encode(digest(form.code_verifier.as_bytes()));
    if !is_client || form.code != "c0de" || challenge != script.challenge {
        return Err(StatusCode::BAD_REQUEST);
    }
    let mut tokens = json!({"access_token": "t0ken", "token_type": "bearer"});
    if !script.is_plain {
        tokens["id_token"] = json!(provider.id_token(&script));
    }
    Ok(Json(tokens))
}

async fn userinfo(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    if headers.get("authorization").is_none_or(|value| value != "Bearer t0ken") {
        return Err(StatusCode::UNAUTHORIZED);
    }
    Ok(Json(provider.script.lock().unwrap().userinfo.clone()))
}
