//! Device authorization (RFC 8628): a device without a browser sends a request, shows a code, and polls until a user
//! has answered elsewhere.
//!
//! Its device code is a handle, so any node knows which version of the state it needs. Polling only reads. The
//! redemption after the user's approval is the one write; it removes the request, so tokens are issued once.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use conclave_proto::command::v1::{RedeemDevice, StartDevice, command::Body};
use conclave_state::{
    Reason, ReplyBody,
    client::Client,
    device::{DeviceAnswer, DeviceRequest},
    ids::DeviceId,
};
use serde_json::{Value, json};

use conclave_auth::{
    AuthError,
    complete::{millis, unexpected},
    dispatch::device_page,
    policy::Circumstances,
    user_code,
    write_key::WriteKey,
};
use conclave_cluster::ProposeError;
use conclave_crypto::{handle::HandleKind, mac};

use crate::authorization::request::{Parameters, resources, scopes, wanted_resources};
use crate::clients::caller;
use crate::form;
use crate::token::grants::{self, Binding};
use crate::token::request::TokenRequest;
use crate::token::tokens::TokenResponse;
use crate::{
    Oidc,
    error::{TokenError, no_store},
    head::RequestHead,
};

/// Maximum number of attempts when a user code is in use: with 10,000 of 25,600,000,000 taken, even a second attempt is
/// rare.
const MAX_TRIES: u32 = 3;

const BAD_CODE: TokenError = TokenError::InvalidGrant("the device code is invalid");

pub(crate) async fn endpoint(oidc: State<Oidc>, headers: RequestHead, body: Bytes) -> Response {
    match start(&oidc, &headers, &body).await {
        Ok(answer) => (no_store(), Json(answer)).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn start(oidc: &Oidc, headers: &RequestHead, body: &[u8]) -> Result<Value, TokenError> {
    let (form, mut write_key) = form::read_form(oidc, "device", headers, body, b"")?;
    let client = caller::authenticated(oidc, headers, &form).await?;
    let command = command(&client, &form, oidc)?;
    for _ in 0..MAX_TRIES {
        match ask(oidc, &write_key, command.clone()).await {
            Err(ProposeError::Refused(refusal)) if refusal.reason == Reason::UserCodeTaken => {
                write_key = write_key.then("another user code");
            }
            Err(error) => return Err(AuthError::from(error).into()),
            Ok(answer) => return Ok(answer),
        }
    }
    Err(TokenError::Unavailable)
}

fn command(client: &Client, form: &Parameters, oidc: &Oidc) -> Result<StartDevice, TokenError> {
    Ok(StartDevice {
        client_id: client.id.to_string(),
        scopes: scopes(form, client)
            .ok_or(TokenError::InvalidScope("no requested scope is allowed for the client"))?,
        resources: wanted_resources(form, client).map_err(TokenError::InvalidTarget)?,
        ttl_ms: millis(oidc.auth.settings().authorization.device_ttl),
        ..StartDevice::default()
    })
}

async fn ask(oidc: &Oidc, write_key: &WriteKey, command: StartDevice) -> Result<Value, ProposeError> {
    let (id, secret) = (write_key.id("device"), write_key.secret("device"));
    let made = user_code::make(write_key.secret("user code").expose());
    let user_code = made.ok_or(ProposeError::Unavailable)?;
    let command = StartDevice {
        device_id: id.to_vec(),
        secret_hash: mac::sha256(secret.expose()).to_vec(),
        user_code_hash: user_code::hash(&oidc.auth.deriving_keys().request, &user_code).to_vec(),
        ..command
    };
    let committed = oidc.auth.cluster().propose(write_key.request(), Body::StartDevice(command)).await?;
    let ReplyBody::Recorded(recorded) = &committed.body else { return Err(ProposeError::Unknown) };
    let settings = &oidc.auth.settings().authorization;
    let url = &oidc.auth.settings().public_url;
    Ok(json!({
        "device_code": oidc.auth.issue(HandleKind::Device, id, secret, 0, recorded.index),
        "user_code": user_code,
        "verification_uri": url.join(&device_page("")),
        "verification_uri_complete": url.join(&device_page(&user_code)),
        "expires_in": settings.device_ttl.as_secs(),
        "interval": settings.device_interval.as_secs(),
    }))
}

/// The version of the policy that admits the user who approved; 0 if none does, and then the rules refuse.
fn admitted_by(oidc: &Oidc, state: &conclave_state::State, client: &Client, device: &DeviceRequest) -> u64 {
    let DeviceAnswer::Allowed { session } = device.answer else { return 0 };
    let live = state.live_session(session, oidc.auth.now(state));
    live.map_or(0, |(session, user)| {
        let around = Circumstances::of_session(session, session.address.parse().ok());
        oidc.auth.admitted_by(state, client, user, &around)
    })
}

/// A poll (RFC 8628 §3.4): returns tokens once a user has approved.
///
/// # Errors
/// [`TokenError`].
#[tracing::instrument(name = "oidc.token.device", skip_all)]
pub(crate) async fn redeem(oidc: &Oidc, request: &TokenRequest<'_>) -> Result<TokenResponse, TokenError> {
    let text = request.form.get("device_code").ok_or(TokenError::InvalidRequest("device_code is missing"))?;
    let (handle, known) =
        grants::handle_and_client(oidc, request, HandleKind::Device, text, BAD_CODE).await?;
    let (client, binding) = (Arc::clone(&known.client), Binding::of(known, request)?);
    let id = DeviceId::new(handle.id);
    if !oidc.polls.is_in_time(id, oidc.auth.settings().authorization.device_interval) {
        return Err(TokenError::SlowDown);
    }
    let state = oidc.auth.state_at(&handle).await?.ok_or(BAD_CODE)?;
    let device = state.device_request(id, oidc.auth.now(&state));
    if device.is_some_and(|device| device.client != client.id) {
        return Err(BAD_CODE);
    }
    match device.map(|device| device.answer) {
        Some(DeviceAnswer::Waiting) => return Err(TokenError::AuthorizationPending),
        // A retry with an idempotency key may repeat a redemption whose response was lost: the log remembers it.
        None if !request.headers.contains_key("idempotency-key") => return Err(TokenError::ExpiredToken),
        Some(DeviceAnswer::Allowed { .. } | DeviceAnswer::Denied) | None => {}
    }
    if let Some(device) = device {
        // Before the write: an error must not spend the device code.
        resources(&request.form, &device.resources).map_err(TokenError::InvalidTarget)?;
    }
    let settings = &oidc.auth.settings().tokens;
    let command = RedeemDevice {
        device_id: id.to_vec(),
        secret_hash: handle.secret_hash().to_vec(),
        client_id: client.id.to_string(),
        grant_id: request.write_key.id("grant").to_vec(),
        family_id: request.write_key.id("family").to_vec(),
        refresh_ttl_ms: millis(settings.refresh_ttl),
        access_ttl_ms: millis(settings.access_ttl),
        dpop_jkt: binding.bound.jkt.map(|jkt| jkt.to_vec()).unwrap_or_default(),
        proofs: binding.proofs,
        policy_version: device.map_or(0, |device| admitted_by(oidc, &state, &client, device)),
    };
    let committed =
        oidc.auth.cluster().propose(request.write_key.request(), Body::RedeemDevice(command)).await;
    let committed = committed.map_err(AuthError::from)?;
    oidc.polls.forget(id);
    match &committed.body {
        ReplyBody::CodeRedeemed(_) => {
            grants::redeemed(oidc, &client, &request.form, binding.bound, &committed)
        }
        other => Err(unexpected(other).into()),
    }
}
