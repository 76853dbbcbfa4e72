//! Pushed authorization requests (RFC 9126): the client stores its request here and gets a `request_uri`, valid once
//! and for a minute.
//!
//! The `request_uri` is a handle with the log index that wrote the request, so that the browser may present it to any
//! node. It is bound to the client that pushed. The request is spent by the code that is issued for it, in the same
//! write; until then the user may reload the page.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use conclave_proto::command::v1::{PushRequest, command::Body};
use conclave_state::{
    ReplyBody,
    client::Client,
    ids::{PushedRequestId, SecretHash},
};
use serde_json::json;

use conclave_auth::{
    AuthError,
    authorization::{AuthorizationError, PushedReference},
    complete::{millis, unexpected},
};
use conclave_crypto::{handle::HandleKind, mac};
use conclave_http::Denial;

use crate::authorization::read;
use crate::authorization::request::{InvalidRequest, NoWayBack, Parameters, RequestContext};
use crate::clients::caller;
use crate::form;
use crate::{
    Oidc,
    error::{TokenError, no_store},
    head::RequestHead,
};

/// The prefix of every `request_uri` (RFC 9126 §2.2).
const PREFIX: &str = "urn:ietf:params:oauth:request_uri:";
/// Client credentials, which are not part of the request.
const CREDENTIALS: [&str; 4] = ["client_id", "client_secret", "client_assertion", "client_assertion_type"];

/// A pushed request that was found.
pub(crate) struct PushedParameters {
    pub parameters: Parameters,
    pub pushed: PushedReference,
}

/// The handle in a `request_uri`; `None` if it is not one of this endpoint.
pub(crate) fn handle_of(request_uri: &str) -> Option<&str> {
    request_uri.strip_prefix(PREFIX)
}

/// The pushed request that a browser names.
///
/// # Errors
/// Shown as an error page here, because no redirect URI has been verified yet.
pub(crate) async fn fetch(
    oidc: &Oidc,
    handle: &str,
    client_id: Option<&str>,
) -> Result<PushedParameters, InvalidRequest> {
    let unknown = || InvalidRequest::Here(NoWayBack::UnknownRequestUri);
    let handle = oidc.auth.parse(HandleKind::Pushed, handle).ok_or_else(unknown)?;
    let state = oidc.auth.state_at(&handle).await.ok().flatten().ok_or_else(unknown)?;
    let id = PushedRequestId::new(handle.id);
    let row = state.pushed_request(id, oidc.auth.now(&state)).ok_or_else(unknown)?;
    let secret = SecretHash::new(handle.secret_hash());
    if !row.secret_hash.matches(&secret) || client_id != Some(row.client.as_str()) {
        return Err(unknown());
    }
    let flow = millis(oidc.auth.settings().login.flow_ttl);
    let until_ms = row.expires_at.0.saturating_add(flow);
    let parameters = Parameters::parse(&row.parameters).map_err(InvalidRequest::Here)?;
    Ok(PushedParameters { parameters, pushed: PushedReference { id: handle.id, until_ms } })
}

/// The reason why a request is refused.
enum PushError {
    Client(TokenError),
    Request(AuthorizationError, &'static str),
}

impl From<TokenError> for PushError {
    fn from(error: TokenError) -> Self {
        Self::Client(error)
    }
}

impl IntoResponse for PushError {
    fn into_response(self) -> Response {
        match self {
            Self::Client(error) => error.into_response(),
            Self::Request(error, why) => {
                let body = json!({ "error": error.code(), "error_description": why });
                let response = (StatusCode::BAD_REQUEST, no_store(), Json(body)).into_response();
                Denial::new(error.code(), why).on(response)
            }
        }
    }
}

pub(crate) async fn endpoint(State(oidc): State<Oidc>, headers: RequestHead, body: Bytes) -> Response {
    match push(&oidc, &headers, &body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

#[tracing::instrument(name = "oidc.push", skip_all)]
async fn push(oidc: &Oidc, headers: &RequestHead, body: &[u8]) -> Result<Response, PushError> {
    let (form, write_key) = form::read_form(oidc, "par", headers, body, b"")?;
    let client = caller::authenticated(oidc, headers, &form).await?;
    if form.get("request_uri").is_some() {
        return Err(TokenError::InvalidRequest("a request_uri cannot be pushed").into());
    }
    if form.get("client_id").is_some_and(|id| id != client.id.as_str()) {
        return Err(TokenError::InvalidRequest("client_id contradicts the client's credentials").into());
    }
    let parameters = Parameters::parse(with_client(&client, &form).as_bytes()).map_err(refused)?;
    let encoded = read::opened(oidc, parameters).await.map_err(refused)?.encoded_without(&[]);
    check(oidc, &encoded).await?;

    let (id, secret) = (write_key.id("pushed"), write_key.secret("pushed"));
    let ttl = oidc.auth.settings().authorization.pushed_ttl;
    let command = PushRequest {
        pushed_request_id: id.to_vec(),
        client_id: client.id.to_string(),
        secret_hash: mac::sha256(secret.expose()).to_vec(),
        parameters: encoded.into_bytes(),
        ttl_ms: millis(ttl),
    };
    let committed = oidc.auth.cluster().propose(write_key.request(), Body::PushRequest(command)).await;
    let committed = committed.map_err(|error| TokenError::from(AuthError::from(error)))?;
    let ReplyBody::Recorded(recorded) = &committed.body else {
        return Err(TokenError::from(unexpected(&committed.body)).into());
    };
    let handle = oidc.auth.issue(HandleKind::Pushed, id, secret, 0, recorded.index);
    let answer = json!({ "request_uri": format!("{PREFIX}{handle}"), "expires_in": ttl.as_secs() });
    Ok((StatusCode::CREATED, no_store(), Json(answer)).into_response())
}

/// The request as the browser could have sent it.
fn with_client(client: &Client, form: &Parameters) -> String {
    let own = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("client_id", client.id.as_str())
        .finish();
    let rest = form.encoded_without(&CREDENTIALS);
    if rest.is_empty() { own } else { format!("{own}&{rest}") }
}

/// Checks the request like one of a browser, so that the client gets its errors at once (RFC 9126 §2.1).
async fn check(oidc: &Oidc, encoded: &str) -> Result<(), PushError> {
    let pushed = Some(PushedReference { id: [0; 16], until_ms: 0 });
    let circumstances = RequestContext { pushed, must_be_pushed: false };
    let parameters = Parameters::parse(encoded.as_bytes()).map_err(InvalidRequest::Here);
    let checked = match parameters {
        Ok(parameters) => match read::validated(oidc, &parameters, circumstances).await {
            Ok(request) => read::hinted(oidc, &parameters, request).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    match checked {
        Ok(_) => Ok(()),
        Err(InvalidRequest::There(mistake)) => Err(PushError::Request(mistake.error, mistake.description)),
        Err(InvalidRequest::Here(mistake)) => Err(refused(mistake)),
    }
}

/// The error response in place of a browser's error page.
fn refused(mistake: NoWayBack) -> PushError {
    let why = match mistake {
        NoWayBack::RequestObject(why) => {
            return PushError::Request(AuthorizationError::InvalidRequestObject, why);
        }
        NoWayBack::UnregisteredRedirectUri => "redirect_uri is not registered for the client",
        NoWayBack::Unreadable(why) | NoWayBack::Document(why) => why,
        NoWayBack::UnknownClient | NoWayBack::DisabledClient => "the client is not known",
        NoWayBack::UnknownRequestUri => "a request_uri cannot be pushed",
        NoWayBack::Unavailable => {
            return PushError::Request(AuthorizationError::TemporarilyUnavailable, "try again in a moment");
        }
    };
    PushError::Request(AuthorizationError::InvalidRequest, why)
}
