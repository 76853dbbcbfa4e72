//! Dynamic client registration (RFC 7591, OIDC Dynamic Registration 1.0) and its management (RFC 7592). Off unless the
//! configuration opens it: to holders of an API token, or to all clients.
//!
//! `client_metadata` defines the accepted metadata and its effect.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_proto::command::v1::{CreateClient, DeleteClient, command::Body};
use conclave_state::{
    ReplyBody,
    client::{Client, ClientAuthMethod, SigningAlgorithm},
    ids::{SecretHash, TokenId},
    token::ApiRole,
};
use serde_json::{Value, json};

use conclave_auth::{AuthError, throttle::Admission, write_key::WriteKey};
use conclave_cluster::CommittedWrite;
use conclave_config::Registration;
use conclave_crypto::{
    handle::{HandleContents, HandleKind},
    hex, mac,
};
use conclave_http::{ClientInfo, Denial};

use crate::clients::metadata::{self, InvalidMetadata, Metadata, ValidatedMetadata, WITH_SECRET};
use crate::{
    Oidc,
    error::{TokenError, no_store},
    paths,
};

/// The reason why there is no registration (RFC 7591 §3.2.2).
enum Refused {
    /// The endpoint is closed.
    Off,
    /// No token, or an invalid one.
    Token,
    TooMany,
    RedirectUri(String),
    Metadata(&'static str),
    Failed(AuthError),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let answer = |status, code: &'static str, why: &str| {
            let body = Json(json!({ "error": code, "error_description": why }));
            Denial::new(code, why).on((status, no_store(), body).into_response())
        };
        match self {
            Self::Off => {
                let why = "registration is off; oidc.registration in the configuration turns it on";
                Denial::new("registration_off", why).on(StatusCode::NOT_FOUND.into_response())
            }
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

pub(crate) async fn register(
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
    let keys = &oidc.auth.deriving_keys().request;
    let write_key = WriteKey::of_request(keys, key, &parts, &*oidc.auth.runtime().entropy);
    let (id, token) = (write_key.id("client"), write_key.secret("registration"));
    // 256 bits as text: the hash is of the text that the client presents.
    let has_secret = matches!(checked.method, ClientAuthMethod::SecretBasic | ClientAuthMethod::SecretPost);
    let secret = has_secret.then(|| URL_SAFE_NO_PAD.encode(write_key.secret("client").expose()));
    let client_id = hex::encode(&id);
    let command = CreateClient {
        secret_hash: secret.as_ref().map(|text| mac::sha256(text.as_bytes()).to_vec()).unwrap_or_default(),
        registration_token_hash: mac::sha256(token.expose()).to_vec(),
        ..checked.create(&client_id)
    };
    let committed = propose(oidc, &write_key, Body::CreateClient(command)).await?;
    let client = committed.state.client(&client_id).ok_or(Refused::Off)?;
    let token = oidc.auth.issue(HandleKind::Registration, id, token, 0, committed.index);
    let mut answer = registration_response(oidc, client, &token);
    if let (Some(secret), Some(members)) = (secret, answer.as_object_mut()) {
        members.insert("client_secret".into(), json!(secret));
        members.insert("client_secret_expires_at".into(), json!(0));
    }
    Ok((StatusCode::CREATED, no_store(), Json(answer)).into_response())
}

/// Ensures a key for the algorithm. A PS256 key is made when a client first needs one. The state must have it before
/// the client is registered to rely on it.
async fn provide_key(oidc: &Oidc, algorithm: SigningAlgorithm) -> Result<(), Refused> {
    oidc.auth.provide_signing_key(algorithm).await.map_err(Refused::Failed)
}

async fn propose(oidc: &Oidc, write_key: &WriteKey, body: Body) -> Result<CommittedWrite, Refused> {
    let committed = oidc.auth.cluster().propose(write_key.request(), body).await;
    let committed = committed.map_err(|error| Refused::Failed(error.into()))?;
    match &committed.body {
        ReplyBody::Done(_) => Ok(committed),
        other => Err(Refused::Failed(conclave_auth::complete::unexpected(other))),
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

async fn state_at(
    oidc: &Oidc,
    handle: &HandleContents,
) -> Result<std::sync::Arc<conclave_state::State>, Refused> {
    oidc.auth.state_at(handle).await.map_err(Refused::Failed)?.ok_or(Refused::Token)
}

/// The single bearer token of the request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, token) = values.next()?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && values.next().is_none()).then_some(token.trim())
}

/// The client as it is registered (RFC 7591 §3.2.1).
fn registration_response(oidc: &Oidc, client: &Client, token: &str) -> Value {
    let url = &oidc.auth.settings().public_url;
    let mut answer = metadata::to_metadata(client);
    if let Some(members) = answer.as_object_mut() {
        members.insert("registration_access_token".into(), json!(token));
        let uri = url.join(&format!("{}/{}", paths::REGISTER, client.id));
        members.insert("registration_client_uri".into(), json!(uri));
    }
    answer
}

/// The metadata to register, checked. Keys are accepted by value only: a client cannot make this cluster fetch an
/// address.
fn check(body: &[u8]) -> Result<ValidatedMetadata, Refused> {
    let metadata = Metadata::parse(body)?;
    if metadata.jwks_uri.is_some() {
        return Err(Refused::Metadata("jwks_uri is not supported; give the keys in jwks"));
    }
    Ok(metadata.check(WITH_SECRET)?)
}

impl From<InvalidMetadata> for Refused {
    fn from(why: InvalidMetadata) -> Self {
        match why {
            InvalidMetadata::RedirectUri(why) => Self::RedirectUri(why),
            InvalidMetadata::Metadata(why) => Self::Metadata(why),
        }
    }
}

/// A client that proved to be this one.
struct Own {
    client: std::sync::Arc<Client>,
    token: String,
}

/// Authenticates the client by its registration token. Every failure gives the same error (RFC 7592 §2.1).
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

pub(crate) async fn read(
    State(oidc): State<Oidc>,
    headers: HeaderMap,
    Path(client_id): Path<String>,
) -> Response {
    match own(&oidc, &headers, &client_id).await {
        Ok(own) => (no_store(), Json(registration_response(&oidc, &own.client, &own.token))).into_response(),
        Err(refused) => refused.into_response(),
    }
}

pub(crate) async fn replace(
    State(oidc): State<Oidc>,
    headers: HeaderMap,
    Path(client_id): Path<String>,
    body: Bytes,
) -> Response {
    replaced(&oidc, &headers, &client_id, &body).await.unwrap_or_else(IntoResponse::into_response)
}

/// Replaces all metadata at once: omitted members fall back to their default (RFC 7592 §2.2).
async fn replaced(
    oidc: &Oidc,
    headers: &HeaderMap,
    client_id: &str,
    body: &[u8],
) -> Result<Response, Refused> {
    let own = own(oidc, headers, client_id).await?;
    let checked = check(body)?;
    if checked.named() != Some(client_id) {
        return Err(Refused::Metadata("client_id is missing or another client's"));
    }
    if checked.method != own.client.auth_method {
        return Err(Refused::Metadata("token_endpoint_auth_method cannot change; register anew"));
    }
    provide_key(oidc, checked.algorithm).await?;
    let command = checked.update(client_id);
    let write_key = fresh(oidc);
    let committed = propose(oidc, &write_key, Body::UpdateClient(command)).await?;
    let client = committed.state.client(client_id).ok_or(Refused::Token)?;
    Ok((no_store(), Json(registration_response(oidc, client, &own.token))).into_response())
}

pub(crate) async fn delete(
    State(oidc): State<Oidc>,
    headers: HeaderMap,
    Path(client_id): Path<String>,
) -> Response {
    let deleted = async {
        own(&oidc, &headers, &client_id).await?;
        let command = DeleteClient { client_id: client_id.clone() };
        propose(&oidc, &fresh(&oidc), Body::DeleteClient(command)).await
    };
    match deleted.await {
        Ok(_) => (StatusCode::NO_CONTENT, no_store()).into_response(),
        Err(refused) => refused.into_response(),
    }
}

fn fresh(oidc: &Oidc) -> WriteKey {
    WriteKey::fresh(&oidc.auth.deriving_keys().request, &*oidc.auth.runtime().entropy)
}
