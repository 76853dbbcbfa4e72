//! Dynamic client registration (RFC 7591, OIDC Dynamic Registration 1.0) and its management (RFC 7592). Off unless the
//! configuration opens it: to holders of an API token, or to everybody.
//!
//! A client that registered itself asks people once, has no application's access rule and no scope beyond the standard ones. Its
//! redirect URIs pass the same parser as an operator's. What is not supported is refused where ignoring it would mislead the client.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_proto::command::v1::{
    ClientTokens, ClientTokensChange, CreateClient, DeleteClient, GrantTypes, Scopes, UpdateClient, Uris,
    command::Body,
};
use conclave_state::{
    ReplyBody,
    client::{Client, ClientAuthMethod, ConsentMode, GrantType, SigningAlgorithm},
    ids::{SecretHash, TokenId},
    token::ApiRole,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    auth::{AuthError, derive::Derivation, redirect_uri::RedirectUri, throttle::Admission},
    cluster::Committed,
    config::Registration,
    crypto::{
        handle::{Handle, HandleKind},
        hex, mac,
    },
    http::ClientInfo,
};

use super::{
    Oidc,
    error::{TokenError, no_store},
    paths,
};

/// What a client that registers itself may ask for.
const SCOPES: [&str; 7] = ["openid", "profile", "email", "address", "phone", "groups", "offline_access"];
const DEFAULT_SCOPES: &str = "openid profile email offline_access";
const METHODS: [(&str, ClientAuthMethod); 3] = [
    ("client_secret_basic", ClientAuthMethod::SecretBasic),
    ("client_secret_post", ClientAuthMethod::SecretPost),
    ("none", ClientAuthMethod::None),
];
const ALGORITHMS: [(&str, SigningAlgorithm); 4] = [
    ("RS256", SigningAlgorithm::Rs256),
    ("PS256", SigningAlgorithm::Ps256),
    ("ES256", SigningAlgorithm::Es256),
    ("EdDSA", SigningAlgorithm::Eddsa),
];
const GRANT_TYPES: [(&str, GrantType); 3] = [
    ("authorization_code", GrantType::AuthorizationCode),
    ("refresh_token", GrantType::RefreshToken),
    (super::device::GRANT_TYPE, GrantType::DeviceCode),
];

/// What a client says of itself (RFC 7591 §2). Members that are not known here are not looked at.
#[derive(Debug, Deserialize)]
struct Metadata {
    client_id: Option<String>,
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    post_logout_redirect_uris: Vec<String>,
    token_endpoint_auth_method: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
    client_name: Option<String>,
    scope: Option<String>,
    id_token_signed_response_alg: Option<String>,
    userinfo_signed_response_alg: Option<String>,
    subject_type: Option<String>,
    backchannel_logout_uri: Option<String>,
    frontchannel_logout_uri: Option<String>,
    #[serde(default)]
    backchannel_logout_session_required: bool,
    #[serde(default)]
    require_pushed_authorization_requests: bool,
}

/// Why there is no registration (RFC 7591 §3.2.2).
enum Refused {
    /// The endpoint is closed.
    Off,
    /// No token, or one that is not good here.
    Token,
    TooMany,
    RedirectUri(String),
    Metadata(&'static str),
    Failed(AuthError),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let answer = |status, code: &str, why: &str| {
            (status, no_store(), Json(json!({ "error": code, "error_description": why }))).into_response()
        };
        match self {
            Self::Off => StatusCode::NOT_FOUND.into_response(),
            Self::Token => {
                let challenge =
                    [(header::WWW_AUTHENTICATE, "Bearer realm=\"conclave\", error=\"invalid_token\"")];
                (challenge, answer(StatusCode::UNAUTHORIZED, "invalid_token", "a valid token is required"))
                    .into_response()
            }
            Self::TooMany => {
                let why = "too many registrations from this address; try again later";
                answer(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable", why)
            }
            Self::RedirectUri(why) => answer(StatusCode::BAD_REQUEST, "invalid_redirect_uri", &why),
            Self::Metadata(why) => answer(StatusCode::BAD_REQUEST, "invalid_client_metadata", why),
            Self::Failed(error) => TokenError::from(error).into_response(),
        }
    }
}

/// The metadata, checked.
struct Checked {
    grant_types: Vec<i32>,
    method: ClientAuthMethod,
    algorithm: SigningAlgorithm,
    scopes: Vec<String>,
    metadata: Metadata,
}

pub async fn register(
    State(oidc): State<Oidc>,
    client: ClientInfo,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    registered(&oidc, &client, &headers, &body).await.unwrap_or_else(IntoResponse::into_response)
}

async fn registered(
    oidc: &Oidc,
    caller: &ClientInfo,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Refused> {
    may_register(oidc, caller, headers).await?;
    let checked = check(body)?;
    provide_key(oidc, checked.algorithm).await?;
    let presented = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    let parts = [b"register".as_slice(), presented, body];
    let keys = &oidc.auth.cluster_keys().request;
    let derivation = Derivation::of_request(keys, key, &parts, &*oidc.auth.runtime().entropy);
    let (id, token) = (derivation.id("client"), derivation.secret("registration"));
    // 256 bits as text: what is hashed is the text that is presented.
    let secret = (checked.method != ClientAuthMethod::None)
        .then(|| URL_SAFE_NO_PAD.encode(derivation.secret("client").expose()));
    let client_id = hex::encode(&id);
    let order = CreateClient {
        client_id: client_id.clone(),
        name: checked.metadata.client_name.clone().unwrap_or_default(),
        auth_method: checked.method.into(),
        secret_hash: secret.as_ref().map(|text| mac::sha256(text.as_bytes()).to_vec()).unwrap_or_default(),
        redirect_uris: checked.metadata.redirect_uris.clone(),
        post_logout_redirect_uris: checked.metadata.post_logout_redirect_uris.clone(),
        scopes: checked.scopes.clone(),
        signing_algorithm: checked.algorithm.into(),
        tokens: Some(ClientTokens { grant_types: checked.grant_types.clone(), ..ClientTokens::default() }),
        consent: ConsentMode::Once.into(),
        back_channel_logout_uri: checked.metadata.backchannel_logout_uri.clone().unwrap_or_default(),
        front_channel_logout_uri: checked.metadata.frontchannel_logout_uri.clone().unwrap_or_default(),
        back_channel_logout_session_required: checked.metadata.backchannel_logout_session_required,
        require_pushed_authorization_requests: checked.metadata.require_pushed_authorization_requests,
        registration_token_hash: mac::sha256(token.expose()).to_vec(),
        ..CreateClient::default()
    };
    let committed = propose(oidc, &derivation, Body::CreateClient(order)).await?;
    let client = committed.state.client(&client_id).ok_or(Refused::Off)?;
    let token = oidc.auth.issue(HandleKind::Registration, id, token, 0, committed.index);
    let mut answer = shown(oidc, client, &token);
    if let (Some(secret), Some(members)) = (secret, answer.as_object_mut()) {
        members.insert("client_secret".into(), json!(secret));
        members.insert("client_secret_expires_at".into(), json!(0));
    }
    Ok((StatusCode::CREATED, no_store(), Json(answer)).into_response())
}

/// PS256 has a key from when a client first wants it. The state must have it before a client is told that it may rely on it.
async fn provide_key(oidc: &Oidc, algorithm: SigningAlgorithm) -> Result<(), Refused> {
    oidc.auth.provide_signing_key(algorithm).await.map_err(Refused::Failed)
}

async fn propose(oidc: &Oidc, derivation: &Derivation, body: Body) -> Result<Committed, Refused> {
    let committed = oidc.auth.cluster().propose(derivation.request(), body).await;
    let committed = committed.map_err(|error| Refused::Failed(error.into()))?;
    match &committed.body {
        ReplyBody::Done(_) => Ok(committed),
        other => Err(Refused::Failed(crate::auth::complete::unexpected(other))),
    }
}

async fn may_register(oidc: &Oidc, caller: &ClientInfo, headers: &HeaderMap) -> Result<(), Refused> {
    match oidc.auth.settings().authorization.registration {
        Registration::Off => Err(Refused::Off),
        Registration::Open => match oidc.auth.registrations().address(caller.ip) {
            Admission::Refused { .. } => Err(Refused::TooMany),
            Admission::Free | Admission::Reserve { .. } => Ok(()),
        },
        Registration::Token => {
            let handle = bearer(headers).and_then(|text| oidc.auth.parse(HandleKind::Api, text));
            let handle = handle.ok_or(Refused::Token)?;
            let state = state_at(oidc, &handle).await?;
            let token = state.live_token(TokenId::new(handle.id), oidc.auth.now(&state));
            let good = token.is_some_and(|token| {
                matches!(token.role, ApiRole::Registrar | ApiRole::Admin)
                    && token.secret_hash.matches(&SecretHash::new(handle.secret_hash()))
            });
            if good { Ok(()) } else { Err(Refused::Token) }
        }
    }
}

async fn state_at(oidc: &Oidc, handle: &Handle) -> Result<std::sync::Arc<conclave_state::State>, Refused> {
    oidc.auth.state_at(handle).await.map_err(Refused::Failed)?.ok_or(Refused::Token)
}

/// The one bearer token of the request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, token) = values.next()?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && values.next().is_none()).then_some(token.trim())
}

fn check(body: &[u8]) -> Result<Checked, Refused> {
    let metadata: Metadata = serde_json::from_slice(body)
        .map_err(|_| Refused::Metadata("the body is not a JSON object of client metadata"))?;
    if metadata.redirect_uris.is_empty() {
        return Err(Refused::RedirectUri("redirect_uris is missing".into()));
    }
    for uri in metadata.redirect_uris.iter().chain(&metadata.post_logout_redirect_uris) {
        RedirectUri::parse(uri).map_err(|error| Refused::RedirectUri(format!("{uri} {error}")))?;
    }
    let logout_uris = [&metadata.backchannel_logout_uri, &metadata.frontchannel_logout_uri];
    let is_sound = |uri: &String| RedirectUri::parse(uri).is_ok() && uri.starts_with("http");
    if !logout_uris.into_iter().flatten().all(is_sound) {
        return Err(Refused::Metadata("a logout URI is not an https address"));
    }
    let only = |asked: &Option<Vec<String>>, known: &[&str]| {
        asked.as_ref().is_none_or(|asked| asked.iter().all(|one| known.contains(&one.as_str())))
    };
    if !only(&metadata.response_types, &["code"]) {
        return Err(Refused::Metadata("only response_types [\"code\"] is supported"));
    }
    if !only(&metadata.grant_types, &GRANT_TYPES.map(|(name, _)| name)) {
        return Err(Refused::Metadata("grant_types holds one that is not supported"));
    }
    if metadata.subject_type.as_deref().is_some_and(|subject| subject != "public") {
        return Err(Refused::Metadata("only subject_type public is supported"));
    }
    if metadata.userinfo_signed_response_alg.is_some() {
        return Err(Refused::Metadata("userinfo_signed_response_alg is not supported here"));
    }
    let method = choice(metadata.token_endpoint_auth_method.as_deref(), &METHODS)
        .ok_or(Refused::Metadata("token_endpoint_auth_method is not one that is supported"))?;
    let algorithm = choice(metadata.id_token_signed_response_alg.as_deref(), &ALGORITHMS)
        .ok_or(Refused::Metadata("id_token_signed_response_alg is not one that is supported"))?;
    let asked = metadata.scope.as_deref().unwrap_or(DEFAULT_SCOPES);
    let scopes = SCOPES.iter().filter(|scope| asked.split(' ').any(|one| one == **scope));
    let asked: Option<&[String]> = metadata.grant_types.as_deref();
    let grant_types = GRANT_TYPES
        .iter()
        .filter(|(name, grant_type)| {
            asked.map_or(*grant_type != GrantType::DeviceCode, |asked| asked.iter().any(|one| one == name))
        })
        .map(|(_, grant_type)| i32::from(*grant_type))
        .collect();
    Ok(Checked {
        grant_types,
        method,
        algorithm,
        scopes: scopes.map(|s| (*s).to_owned()).collect(),
        metadata,
    })
}

/// One of a few words; the first when nothing is said.
fn choice<T: Copy>(text: Option<&str>, choices: &[(&str, T)]) -> Option<T> {
    let found = choices.iter().find(|(word, _)| text.is_none_or(|text| text == *word));
    found.map(|(_, value)| *value)
}

fn word<T: PartialEq>(value: &T, choices: &[(&'static str, T)]) -> &'static str {
    choices.iter().find(|(_, choice)| choice == value).map(|(word, _)| *word).unwrap_or_default()
}

/// The client as it is registered (RFC 7591 §3.2.1).
fn shown(oidc: &Oidc, client: &Client, token: &str) -> Value {
    let url = &oidc.auth.settings().public_url;
    let mut answer = json!({
        "client_id": client.id.as_str(),
        "client_id_issued_at": client.created_at.0 / 1_000,
        "client_name": client.name,
        "redirect_uris": client.redirect_uris,
        "post_logout_redirect_uris": client.post_logout_redirect_uris,
        "token_endpoint_auth_method": word(&client.auth_method, &METHODS),
        "grant_types": client.tokens.grant_types().iter().map(|one| word(one, &GRANT_TYPES)).collect::<Vec<_>>(),
        "response_types": ["code"],
        "scope": client.scopes.join(" "),
        "subject_type": "public",
        "id_token_signed_response_alg": word(&client.signing_algorithm, &ALGORITHMS),
        "backchannel_logout_session_required": client.requests.back_channel_logout_session_required,
        "require_pushed_authorization_requests": client.requests.must_be_pushed,
        "registration_access_token": token,
        "registration_client_uri": url.join(&format!("{}/{}", paths::REGISTER, client.id)),
    });
    for (name, uri) in [
        ("backchannel_logout_uri", &client.back_channel_logout_uri),
        ("frontchannel_logout_uri", &client.requests.front_channel_logout_uri),
    ] {
        if let (false, Some(members)) = (uri.is_empty(), answer.as_object_mut()) {
            members.insert(name.into(), json!(uri));
        }
    }
    answer
}

/// A client that proved to be this one.
struct Own {
    client: std::sync::Arc<Client>,
    token: String,
}

/// Whatever is wrong with the token, the answer is one (RFC 7592 §2.1).
async fn own(oidc: &Oidc, headers: &HeaderMap, client_id: &str) -> Result<Own, Refused> {
    if oidc.auth.settings().authorization.registration == Registration::Off {
        return Err(Refused::Off);
    }
    let text = bearer(headers).ok_or(Refused::Token)?;
    let handle = oidc.auth.parse(HandleKind::Registration, text).ok_or(Refused::Token)?;
    let state = state_at(oidc, &handle).await?;
    let client = state.client(client_id).filter(|_| hex::encode(&handle.id) == client_id);
    let client = client.filter(|client| {
        let stored = client.requests.registration_token_hash;
        stored.is_some_and(|stored| stored.matches(&SecretHash::new(handle.secret_hash())))
    });
    let client = client.ok_or(Refused::Token)?.clone();
    Ok(Own { client, token: text.to_owned() })
}

pub async fn read(State(oidc): State<Oidc>, headers: HeaderMap, Path(client_id): Path<String>) -> Response {
    match own(&oidc, &headers, &client_id).await {
        Ok(own) => (no_store(), Json(shown(&oidc, &own.client, &own.token))).into_response(),
        Err(refused) => refused.into_response(),
    }
}

pub async fn replace(
    State(oidc): State<Oidc>,
    headers: HeaderMap,
    Path(client_id): Path<String>,
    body: Bytes,
) -> Response {
    replaced(&oidc, &headers, &client_id, &body).await.unwrap_or_else(IntoResponse::into_response)
}

/// All of the metadata at once: what is left out falls back to its default (RFC 7592 §2.2).
async fn replaced(
    oidc: &Oidc,
    headers: &HeaderMap,
    client_id: &str,
    body: &[u8],
) -> Result<Response, Refused> {
    let own = own(oidc, headers, client_id).await?;
    let checked = check(body)?;
    if checked.metadata.client_id.as_deref() != Some(client_id) {
        return Err(Refused::Metadata("client_id is missing or another client's"));
    }
    if checked.method != own.client.auth_method {
        return Err(Refused::Metadata("token_endpoint_auth_method cannot change; register anew"));
    }
    provide_key(oidc, checked.algorithm).await?;
    let metadata = checked.metadata;
    let order = UpdateClient {
        client_id: client_id.to_owned(),
        name: Some(metadata.client_name.unwrap_or_default()),
        redirect_uris: Some(Uris { uris: metadata.redirect_uris }),
        post_logout_redirect_uris: Some(Uris { uris: metadata.post_logout_redirect_uris }),
        scopes: Some(Scopes { scopes: checked.scopes }),
        signing_algorithm: Some(checked.algorithm.into()),
        tokens: Some(ClientTokensChange {
            grant_types: Some(GrantTypes { grant_types: checked.grant_types }),
            ..ClientTokensChange::default()
        }),
        front_channel_logout_uri: Some(metadata.frontchannel_logout_uri.unwrap_or_default()),
        back_channel_logout_uri: Some(metadata.backchannel_logout_uri.unwrap_or_default()),
        back_channel_logout_session_required: Some(metadata.backchannel_logout_session_required),
        require_pushed_authorization_requests: Some(metadata.require_pushed_authorization_requests),
        ..UpdateClient::default()
    };
    let derivation = fresh(oidc);
    let committed = propose(oidc, &derivation, Body::UpdateClient(order)).await?;
    let client = committed.state.client(client_id).ok_or(Refused::Token)?;
    Ok((no_store(), Json(shown(oidc, client, &own.token))).into_response())
}

pub async fn delete(State(oidc): State<Oidc>, headers: HeaderMap, Path(client_id): Path<String>) -> Response {
    let deleted = async {
        own(&oidc, &headers, &client_id).await?;
        let order = DeleteClient { client_id: client_id.clone() };
        propose(&oidc, &fresh(&oidc), Body::DeleteClient(order)).await
    };
    match deleted.await {
        Ok(_) => (StatusCode::NO_CONTENT, no_store()).into_response(),
        Err(refused) => refused.into_response(),
    }
}

fn fresh(oidc: &Oidc) -> Derivation {
    Derivation::fresh(&oidc.auth.cluster_keys().request, &*oidc.auth.runtime().entropy)
}
