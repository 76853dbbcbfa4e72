//! A simulated Atmosphere: a directory of DIDs, an account's server that is its own authorization server, and a
//! nameserver, in this process. It is as strict as a real one, and returns any response that a test sets.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Form, Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_crypto::{jwk::Alg, self_signed};
use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode},
    rr::{RData, Record, rdata::TXT},
    serialize::binary::BinDecodable as _,
};
use serde_json::{Map, Value, json};
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

use super::site::digest;

/// The responses to return, in addition to or in place of the valid ones.
#[derive(Default)]
pub(crate) struct Script {
    /// Members of the DID document, by DID.
    pub documents: BTreeMap<String, Map<String, Value>>,
    /// TXT records by name, without the trailing dot.
    pub txt: BTreeMap<String, Vec<String>>,
    /// Members of the protected resource's metadata.
    pub resource: Map<String, Value>,
    /// Members of the authorization server's metadata.
    pub metadata: Map<String, Value>,
    /// Members of the token response. Null removes one.
    pub token: Map<String, Value>,
    /// The number of times that it requires a nonce before it accepts one.
    pub asks_for_nonce: usize,
    /// No response carries a nonce.
    pub has_no_nonce: bool,
    /// The DID of the account that signs in.
    pub signs_in: String,
    /// The whole response of the token endpoint.
    pub token_answer: Option<(StatusCode, String)>,
    /// The whole response of the endpoint for pushed requests.
    pub pushed_answer: Option<(StatusCode, String)>,
    /// The response with the public profile, by DID; without it, there is no such record.
    pub profiles: BTreeMap<String, (StatusCode, Value)>,
    /// Requests for profiles are never answered.
    pub profiles_hang: bool,
    /// Pictures by their content identifiers.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// The parameters of a pushed request, by its name.
    pushed: BTreeMap<String, BTreeMap<String, String>>,
    /// The DID for a code; `signs_in` if there is none.
    signed_in: BTreeMap<String, String>,
    /// The name of the request for which a code was issued.
    codes: BTreeMap<String, String>,
}

pub(crate) struct Network {
    pub url: String,
    pub nameserver: SocketAddr,
    pub script: Mutex<Script>,
    pub asked: AtomicUsize,
    pub revoked: Mutex<Vec<String>>,
    /// The parameters last sent to the token endpoint.
    pub told: Mutex<BTreeMap<String, String>>,
    /// The number of codes that were sent again after they had been redeemed.
    pub codes_again: AtomicUsize,
    /// The number of requests for a picture.
    pub pictures: AtomicUsize,
    /// An event that runs at the next request of this kind, before its response.
    before: Mutex<Option<(Asked, Event)>>,
    servers: Mutex<Vec<JoinHandle<()>>>,
}

type Event = Box<dyn FnOnce() + Send>;

/// The kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The metadata of the authorization server.
    Server,
    /// A token for a code, with an accepted proof.
    Token,
    /// A DID document.
    Document,
}

const NONCE: &str = "a nonce of the server";

/// 24 characters of base32.
pub(crate) fn did(n: u8) -> String {
    format!("did:plc:{}", (b'a' + n) as char).chars().chain(std::iter::repeat_n('z', 23)).collect()
}

impl Network {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let network = Arc::new(Self {
            url: format!("http://localhost:{port}"),
            nameserver: socket.local_addr().unwrap(),
            script: Mutex::new(Script { asks_for_nonce: 1, ..Script::default() }),
            asked: AtomicUsize::new(0),
            revoked: Mutex::default(),
            told: Mutex::default(),
            codes_again: AtomicUsize::new(0),
            pictures: AtomicUsize::new(0),
            before: Mutex::default(),
            servers: Mutex::default(),
        });
        let router = Router::new()
            .route("/plc/{did}", get(document))
            .route("/.well-known/oauth-protected-resource", get(resource))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/par", post(push))
            .route("/token", post(token))
            .route("/revoke", post(revoke))
            .route("/xrpc/com.atproto.repo.getRecord", get(profile))
            .route("/xrpc/com.atproto.sync.getBlob", get(blob))
            .with_state(Arc::clone(&network));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let of = Arc::clone(&network);
        let records = move |name: &str| of.script.lock().unwrap().txt.get(name).cloned().unwrap_or_default();
        let naming = tokio::spawn(names(socket, records));
        *network.servers.lock().unwrap() = vec![serving, naming];
        network
    }

    /// Stops the servers: no request is answered any more.
    pub(crate) async fn stop(&self) {
        let servers = std::mem::take(&mut *self.servers.lock().unwrap());
        for server in servers {
            server.abort();
            let _ = server.await;
        }
    }

    /// Runs an event before the response to the next request of this kind.
    pub(crate) fn before(&self, asked: Asked, happens: impl FnOnce() + Send + 'static) {
        *self.before.lock().unwrap() = Some((asked, Box::new(happens)));
    }

    /// True if the event did not run.
    pub(crate) fn waits(&self) -> bool {
        self.before.lock().unwrap().is_some()
    }

    fn is_asked(&self, asked: Asked) {
        let mut before = self.before.lock().unwrap();
        if let Some((_, happens)) = before.take_if(|(awaited, _)| *awaited == asked) {
            happens();
        }
    }

    pub(crate) fn says(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    /// Adds an account: DID and handle, each naming the other.
    pub(crate) fn account(&self, did: &str, handle: &str) {
        let document = json!({
            "@context": ["https://www.w3.org/ns/did/v1"],
            "id": did,
            "alsoKnownAs": [format!("at://{handle}")],
            "service": [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": self.url}],
        });
        self.says(|script| {
            script.documents.insert(did.to_owned(), document.as_object().unwrap().clone());
            script.txt.insert(format!("_atproto.{handle}"), vec!["unrelated".into(), format!("did={did}")]);
            script.signs_in = did.to_owned();
        });
    }

    /// Sets the public profile of this account.
    pub(crate) fn shows(&self, did: &str, name: &str, picture: Option<(&str, Vec<u8>)>) {
        let mut value = json!({"$type": "app.bsky.actor.profile", "displayName": name});
        if let Some((cid, bytes)) = picture {
            let size = bytes.len();
            value["avatar"] =
                json!({"$type": "blob", "ref": {"$link": cid}, "mimeType": "image/png", "size": size});
            self.says(|script| drop(script.blobs.insert(cid.to_owned(), bytes)));
        }
        let record = json!({"uri": format!("at://{did}/app.bsky.actor.profile/self"), "value": value});
        self.says(|script| drop(script.profiles.insert(did.to_owned(), (StatusCode::OK, record))));
    }

    /// The user consents at `address`; returns the query of the callback.
    pub(crate) fn allows(&self, address: &str) -> String {
        let (state, code) = self.answers(address);
        super::site::encoded(&[("state", &state), ("iss", &self.url), ("code", &code)])
    }

    /// Like `allows`, but for this account, even if another one signs in later.
    pub(crate) fn allows_as(&self, address: &str, did: &str) -> String {
        let (state, code) = self.answers(address);
        self.says(|script| drop(script.signed_in.insert(code.clone(), did.to_owned())));
        super::site::encoded(&[("state", &state), ("iss", &self.url), ("code", &code)])
    }

    /// `state` and a code for the request that is named at `address`.
    pub(crate) fn answers(&self, address: &str) -> (String, String) {
        let url = url::Url::parse(address).unwrap();
        assert!(address.starts_with(&format!("{}/authorize?", self.url)), "{address}");
        let of = |name: &str| url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned());
        let name = of("request_uri").unwrap();
        let mut script = self.script.lock().unwrap();
        let request = script.pushed.get(&name).expect("a pushed request");
        assert_eq!(of("client_id").as_ref(), request.get("client_id"));
        let state = request["state"].clone();
        let code = format!("code-of-{name}");
        script.codes.insert(code.clone(), name);
        (state, code)
    }

    /// The parameters of the last pushed request.
    pub(crate) fn last_pushed(&self) -> BTreeMap<String, String> {
        self.script.lock().unwrap().pushed.values().next_back().unwrap().clone()
    }
}

/// A nameserver of TXT records.
pub(crate) async fn names(socket: UdpSocket, records: impl Fn(&str) -> Vec<String>) {
    let mut buffer = [0; 1_500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let Ok(question) = Message::from_bytes(&buffer[..length]) else { continue };
        let query = question.queries[0].clone();
        let name = query.name().to_utf8().trim_end_matches('.').to_owned();
        let mut answer = Message::new(question.id, MessageType::Response, OpCode::Query);
        answer.add_query(query.clone());
        for text in records(&name) {
            // A text longer than 255 bytes is split into parts.
            let parts = text.as_bytes().chunks(255).map(|part| String::from_utf8(part.to_vec()).unwrap());
            let data = RData::TXT(TXT::new(parts.collect()));
            answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
        }
        let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
    }
}

fn with(mut document: Value, members: &Map<String, Value>) -> Value {
    for (name, value) in members {
        match value {
            Value::Null => drop(document.as_object_mut().unwrap().remove(name)),
            value => document[name] = value.clone(),
        }
    }
    document
}

async fn document(State(network): State<Arc<Network>>, Path(did): Path<String>) -> Response {
    network.asked.fetch_add(1, Ordering::SeqCst);
    network.is_asked(Asked::Document);
    match network.script.lock().unwrap().documents.get(&did) {
        Some(document) => Json(Value::Object(document.clone())).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn resource(State(network): State<Arc<Network>>) -> Json<Value> {
    let document = json!({"resource": network.url, "authorization_servers": [network.url]});
    Json(with(document, &network.script.lock().unwrap().resource))
}

async fn metadata(State(network): State<Arc<Network>>) -> Json<Value> {
    network.is_asked(Asked::Server);
    let url = &network.url;
    let document = json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "revocation_endpoint": format!("{url}/revoke"),
        "pushed_authorization_request_endpoint": format!("{url}/par"),
        "require_pushed_authorization_requests": true,
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": true,
        "code_challenge_methods_supported": ["S256"],
        "dpop_signing_alg_values_supported": ["RS256", "ES256"],
        "token_endpoint_auth_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
        "scopes_supported": ["atproto", "transition:generic"],
    });
    Json(with(document, &network.script.lock().unwrap().metadata))
}

/// The key of a valid proof, or the error code.
fn proven(network: &Network, headers: &HeaderMap, path: &str) -> Result<String, &'static str> {
    let Some(proof) = headers.get("dpop").and_then(|value| value.to_str().ok()) else {
        return Err("invalid_dpop_proof");
    };
    let Ok(signed) = self_signed::verify(proof, "dpop+jwt", &[Alg::Es256]) else {
        return Err("invalid_dpop_proof");
    };
    let claims: Value = serde_json::from_slice(&signed.claims).unwrap();
    let place = format!("{}{path}", network.url);
    if claims["htm"] != "POST" || claims["htu"] != place || claims["jti"].as_str().is_none_or(str::is_empty) {
        return Err("invalid_dpop_proof");
    }
    let mut script = network.script.lock().unwrap();
    let is_content = claims["nonce"] == NONCE && script.asks_for_nonce <= 1;
    if script.asks_for_nonce > 0 && !is_content {
        if claims["nonce"] == NONCE {
            script.asks_for_nonce -= 1;
        }
        return Err("use_dpop_nonce");
    }
    Ok(signed.thumbprint)
}

fn refused(network: &Network, error: &str) -> Response {
    with_nonce(network, (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response())
}

fn with_nonce(network: &Network, mut answer: Response) -> Response {
    if !network.script.try_lock().is_ok_and(|script| script.has_no_nonce) {
        answer.headers_mut().insert("dpop-nonce", NONCE.parse().unwrap());
    }
    answer
}

async fn push(
    State(network): State<Arc<Network>>,
    headers: HeaderMap,
    Form(mut form): Form<BTreeMap<String, String>>,
) -> Response {
    let key = match proven(&network, &headers, "/par") {
        Ok(key) => key,
        Err(error) => return refused(&network, error),
    };
    let answer = {
        let mut script = network.script.lock().unwrap();
        match script.pushed_answer.clone() {
            Some((status, body)) => (status, body).into_response(),
            None => {
                let name = format!("urn:ietf:params:oauth:request_uri:{:04}", script.pushed.len());
                form.insert("dpop key".into(), key);
                script.pushed.insert(name.clone(), form);
                (StatusCode::CREATED, Json(json!({"request_uri": name, "expires_in": 300}))).into_response()
            }
        }
    };
    with_nonce(&network, answer)
}

async fn token(
    State(network): State<Arc<Network>>,
    headers: HeaderMap,
    Form(form): Form<BTreeMap<String, String>>,
) -> Response {
    let key = match proven(&network, &headers, "/token") {
        Ok(key) => key,
        Err(error) => return refused(&network, error),
    };
    network.is_asked(Asked::Token);
    let answer = {
        let mut script = network.script.lock().unwrap();
        if let Some((status, body)) = script.token_answer.clone() {
            (status, body).into_response()
        } else {
            network.told.lock().unwrap().clone_from(&form);
            let name = script.codes.remove(&form["code"]);
            if name.is_none() {
                network.codes_again.fetch_add(1, Ordering::SeqCst);
            }
            let request = name.and_then(|name| script.pushed.get(&name).cloned());
            let is_good = request.is_some_and(|request| {
                let challenge = URL_SAFE_NO_PAD.encode(digest(form["code_verifier"].as_bytes()));
                request["code_challenge"] == challenge
                    && request["dpop key"] == key
                    && request["client_id"] == form["client_id"]
                    && request["redirect_uri"] == form["redirect_uri"]
                    && request.contains_key("client_assertion") == form.contains_key("client_assertion")
            });
            if is_good {
                let own = script.signed_in.get(&form["code"]).cloned();
                let who = own.unwrap_or_else(|| script.signs_in.clone());
                let answer = json!({
                    "access_token": format!("token of {who}"),
                    "token_type": "DPoP", "scope": "atproto", "sub": who, "expires_in": 3600,
                });
                Json(with(answer, &script.token)).into_response()
            } else {
                (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response()
            }
        }
    };
    with_nonce(&network, answer)
}

async fn revoke(
    State(network): State<Arc<Network>>,
    headers: HeaderMap,
    Form(form): Form<BTreeMap<String, String>>,
) -> Response {
    if let Err(error) = proven(&network, &headers, "/revoke") {
        return refused(&network, error);
    }
    network.revoked.lock().unwrap().push(form["token"].clone());
    with_nonce(&network, StatusCode::OK.into_response())
}

async fn profile(
    State(network): State<Arc<Network>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    assert_eq!((query["collection"].as_str(), query["rkey"].as_str()), ("app.bsky.actor.profile", "self"));
    if network.script.lock().unwrap().profiles_hang {
        std::future::pending::<()>().await;
    }
    match network.script.lock().unwrap().profiles.get(&query["repo"]) {
        Some((status, record)) => (*status, Json(record.clone())).into_response(),
        None => (StatusCode::BAD_REQUEST, Json(json!({"error": "RecordNotFound"}))).into_response(),
    }
}

async fn blob(
    State(network): State<Arc<Network>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    assert!(query["did"].starts_with("did:plc:"));
    network.pictures.fetch_add(1, Ordering::SeqCst);
    match network.script.lock().unwrap().blobs.get(&query["cid"]) {
        Some(bytes) => ([("content-type", "image/png")], bytes.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
