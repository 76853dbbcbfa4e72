//! `/device`: the user types the code that a device shows, sees the device's request, and accepts or rejects it (RFC
//! 8628 §3.3).
//!
//! An attacker may have started the device and sent the code, so the page shows what will be allowed and tells the user
//! to compare the code. Codes are looked up only for signed-in users, and a limited number of times per address.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Form,
    extract::{Query, State, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use conclave_proto::command::v1::{AnswerDevice, command::Body};
use conclave_state::{
    Reason,
    device::{DeviceAnswer, DeviceRequest},
    ids::{DeviceId, SessionId},
};
use serde::Deserialize;

use crate::views;
use conclave_auth::{
    AuthError,
    client_name::shown_name,
    dispatch::{Next, Visitor},
    policy::Circumstances,
    session::SignedIn,
    throttle::Admission,
    ticket::{LoginStep, LoginTarget, Ticket, TicketError},
    user_code,
    write_key::WriteKey,
};
use conclave_http::{ClientInfo, Fault, RequestId};

use super::{
    onward::Onward,
    site::{Browser, Site, fault_of, fault_of_ticket, lines, see_other},
};

const ACTION: &str = "/device";
const ANSWER: &str = "/device/answer";

#[derive(Deserialize)]
pub(super) struct DeviceQuery {
    #[serde(default)]
    user_code: String,
    #[serde(default)]
    problem: Option<DeviceProblem>,
}

#[derive(Deserialize)]
pub(super) struct UserCodeForm {
    csrf: String,
    #[serde(default)]
    user_code: String,
}

#[derive(Deserialize)]
pub(super) struct DeviceDecisionForm {
    ticket: String,
    csrf: String,
    decision: String,
}

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    id: RequestId,
    headers: HeaderMap,
    Query(query): Query<DeviceQuery>,
) -> Response {
    match shown(&site, &id, &headers, &query).await {
        Ok(response) => response,
        Err(fault) => site.fault(&fault, &id),
    }
}

async fn shown(
    site: &Site,
    id: &RequestId,
    headers: &HeaderMap,
    query: &DeviceQuery,
) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    let visitor = site.visitor(&browser).await?;
    let text = user_code::parse(&query.user_code).unwrap_or_default();
    match &visitor.signed_in {
        Some(signed_in) => {
            Ok(form_page(site, &browser, signed_in, &text, query.problem.map(DeviceProblem::text)))
        }
        None => sign_in(site, id, headers, &browser, &visitor, text).await,
    }
}

async fn sign_in(
    site: &Site,
    id: &RequestId,
    headers: &HeaderMap,
    browser: &Browser,
    visitor: &Visitor,
    user_code: String,
) -> Result<Response, Fault> {
    let write_key = site.write_key(headers, &[b"device"]);
    let next = site.auth.next(&LoginTarget::Device { user_code }, visitor, &write_key).await;
    Ok(site.show(next.map_err(|e| fault_of(&e))?, browser, id))
}

fn form_page(
    site: &Site,
    browser: &Browser,
    signed_in: &SignedIn,
    text: &str,
    error: Option<&str>,
) -> Response {
    let view = views::DeviceView {
        form: site.form(browser, ACTION, ""),
        user_code: text.to_owned(),
        username: signed_in.user.username.to_string(),
        error: error.map(str::to_owned),
    };
    site.with_browser(browser, Html(site.pages.render(&view)).into_response())
}

pub(super) async fn submit(
    State(site): State<Arc<Site>>,
    id: RequestId,
    client: ClientInfo,
    headers: HeaderMap,
    form: Result<Form<UserCodeForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else { return site.formed(&headers, Err(incomplete()), &id) };
    let result = submitted(&site, &id, client.ip, &headers, form).await;
    site.formed(&headers, result.map_err(to_start), &id)
}

async fn submitted(
    site: &Site,
    id: &RequestId,
    address: IpAddr,
    headers: &HeaderMap,
    form: UserCodeForm,
) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    site.check_csrf(&browser, ACTION, &form.csrf)?;
    let visitor = site.visitor(&browser).await?;
    let text = user_code::parse(&form.user_code).unwrap_or_default();
    let Some(signed_in) = &visitor.signed_in else {
        return sign_in(site, id, headers, &browser, &visitor, text).await;
    };
    if let Admission::Refused { retry_in } = site.auth.user_codes().address(address) {
        return Ok(refused(site, &browser, signed_in, &text, DeviceProblem::TooMany, Some(retry_in)));
    }
    let Some(device) = find(site, &text).await else {
        return Ok(refused(site, &browser, signed_in, &text, DeviceProblem::Unknown, None));
    };
    site.auth.user_codes().address_succeeded(address);
    let ticket = confirm_ticket(site, &browser, signed_in, device.id, &text);
    if browser.reads_pages {
        let sealed = site.auth.seal(&ticket).map_err(|e| fault_of(&e))?;
        return Ok(see_other(&format!("{ANSWER}?ticket={sealed}")));
    }
    confirm_page(site, id, &browser, &Person { signed_in, address }, &device, ticket)
}

/// The reason why the form is shown again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DeviceProblem {
    TooMany,
    Unknown,
}

impl DeviceProblem {
    const fn name(self) -> &'static str {
        match self {
            Self::TooMany => "too-many",
            Self::Unknown => "unknown",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::TooMany => "Too many attempts. Try again later.",
            Self::Unknown => {
                "That code is wrong or has expired. Check the code on your device; a code is valid for a few minutes only."
            }
        }
    }
}

/// Shows the form again: for a browser at its own address, for a program with an error status.
fn refused(
    site: &Site,
    browser: &Browser,
    signed_in: &SignedIn,
    text: &str,
    problem: DeviceProblem,
    retry_in: Option<Duration>,
) -> Response {
    if browser.reads_pages {
        let parameters = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("user_code", text)
            .append_pair("problem", problem.name())
            .finish();
        return see_other(&format!("{ACTION}?{parameters}"));
    }
    let mut response = form_page(site, browser, signed_in, text, Some(problem.text()));
    *response.status_mut() = match problem {
        DeviceProblem::TooMany => StatusCode::TOO_MANY_REQUESTS,
        DeviceProblem::Unknown => StatusCode::BAD_REQUEST,
    };
    if let Some(retry_in) = retry_in {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_in.as_secs().max(1)));
    }
    response
}

#[derive(Deserialize)]
pub(super) struct DeviceConfirmationQuery {
    #[serde(default)]
    ticket: String,
}

/// Shows the confirmation page at its own address: after a form, and when the browser reloads it.
pub(super) async fn confirm(
    State(site): State<Arc<Site>>,
    id: RequestId,
    client: ClientInfo,
    headers: HeaderMap,
    Query(query): Query<DeviceConfirmationQuery>,
) -> Response {
    let shown = async {
        let browser = site.browser(&headers)?;
        let (ticket, session, device) = ticket_of(&site, &browser, &query.ticket)?;
        let visitor = site.visitor(&browser).await?;
        let own = visitor.signed_in.filter(|signed_in| *signed_in.session.id.bytes() == session);
        let state = site.auth.cluster().view();
        let device = state.device_request(device, site.auth.now(&state));
        let waiting = device.filter(|device| device.answer == DeviceAnswer::Waiting).cloned();
        let (Some(signed_in), Some(device)) = (own, waiting) else { return Err(over()) };
        let person = Person { signed_in: &signed_in, address: client.ip };
        confirm_page(&site, &id, &browser, &person, &device, ticket)
    };
    shown.await.unwrap_or_else(|fault: Fault| site.fault(&to_start(fault), &id))
}

/// The ticket of the confirmation page, with its session and its device.
fn ticket_of(site: &Site, browser: &Browser, text: &str) -> Result<(Ticket, [u8; 16], DeviceId), Fault> {
    let in_words = |error| fault_of_ticket(error).with_way_on(ACTION, "Type the code again");
    let ticket = site.auth.open(text, Some(browser.id.as_str())).map_err(in_words)?;
    match ticket.step {
        LoginStep::Device { session, device } => Ok((ticket, session, DeviceId::new(device))),
        _ => Err(in_words(TicketError::NotOurs)),
    }
}

fn confirm_ticket(
    site: &Site,
    browser: &Browser,
    signed_in: &SignedIn,
    device: DeviceId,
    user_code: &str,
) -> Ticket {
    let step = LoginStep::Device { session: *signed_in.session.id.bytes(), device: *device.bytes() };
    let target = LoginTarget::Device { user_code: user_code.to_owned() };
    site.auth.ticket(step, target, Some(browser.id.as_str()))
}

/// Finds a device request by its code. It may have been made a moment ago at another node, so the leader is consulted
/// before a code counts as unknown.
async fn find(site: &Site, code: &str) -> Option<Arc<DeviceRequest>> {
    if code.is_empty() {
        return None;
    }
    let keys = site.auth.cluster_keys().all();
    let hashes: Vec<_> = keys.map(|keys| user_code::hash(&keys.request, code)).collect();
    let here = site.auth.cluster().view();
    let find_in = |state: &conclave_state::State| {
        let now = site.auth.now(state);
        let found = hashes.iter().find_map(|hash| state.device_by_user_code(hash, now)).cloned();
        found.filter(|device| device.answer == DeviceAnswer::Waiting)
    };
    match find_in(&here) {
        Some(device) => Some(device),
        None => find_in(&*site.auth.cluster().confirmed_view().await?),
    }
}

/// The signed-in user and their address.
struct Person<'a> {
    signed_in: &'a SignedIn,
    address: IpAddr,
}

fn confirm_page(
    site: &Site,
    id: &RequestId,
    browser: &Browser,
    person: &Person<'_>,
    device: &DeviceRequest,
    ticket: Ticket,
) -> Result<Response, Fault> {
    let signed_in = person.signed_in;
    let state = site.auth.cluster().view();
    let Some(client) = state.client(device.client.as_str()).filter(|client| !client.disabled) else {
        return Ok(site.show(Next::Gone(conclave_auth::dispatch::MissingObject::Client), browser, id));
    };
    let around = Circumstances::of_session(&signed_in.session, Some(person.address));
    let judgement = site.auth.judge_client(&state, client, &signed_in.user, &around);
    if !judgement.allowed {
        let decision = judgement.decision.as_deref();
        return Ok(site.forbidden(
            &shown_name(client),
            &signed_in.user.username,
            decision,
            Some(&ticket.target),
            id,
        ));
    }
    let text = site.auth.seal(&ticket).map_err(|e| fault_of(&e))?;
    let view = views::ConsentView {
        form: site.form(browser, ANSWER, &text),
        application: shown_name(client),
        username: signed_in.user.username.to_string(),
        scopes: lines(&device.scopes),
        destination: String::new(),
        user_code: match ticket.target {
            LoginTarget::Device { user_code } => user_code,
            _ => String::new(),
        },
        note: None,
    };
    Ok(site.with_browser(browser, Html(site.pages.render(&view)).into_response()))
}

pub(super) async fn answer(
    State(site): State<Arc<Site>>,
    id: RequestId,
    client: ClientInfo,
    headers: HeaderMap,
    form: Result<Form<DeviceDecisionForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else { return site.formed(&headers, Err(incomplete()), &id) };
    let result = record_decision(&site, client.ip, &headers, form).await;
    site.formed(&headers, result.map_err(to_start), &id)
}

/// Every failure of these pages links to the form for a code, unless it has a better link.
fn to_start(fault: Fault) -> Fault {
    match fault.way_on {
        Some(_) => fault,
        None => fault.with_way_on(ACTION, "Type a code"),
    }
}

/// The version of the policy that lets the user answer for the device's client.
fn admitted_by(site: &Site, signed_in: &SignedIn, address: IpAddr, device: DeviceId) -> u64 {
    let state = &signed_in.state;
    let device = state.device_request(device, site.auth.now(state));
    let client = device.and_then(|device| state.client(device.client.as_str()));
    let around = Circumstances::of_session(&signed_in.session, Some(address));
    client.map_or(0, |client| site.auth.admitted_by(state, client, &signed_in.user, &around))
}

async fn record_decision(
    site: &Site,
    address: IpAddr,
    headers: &HeaderMap,
    form: DeviceDecisionForm,
) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    site.check_csrf(&browser, ANSWER, &form.csrf)?;
    let (ticket, session, device) = ticket_of(site, &browser, &form.ticket)?;
    // The page was shown to the user of that session, and only that user may answer it.
    let signed_in = site.visitor(&browser).await?.signed_in;
    let signed_in = signed_in.filter(|signed_in| *signed_in.session.id.bytes() == session);
    let Some(signed_in) = signed_in else { return Err(fault_of_ticket(TicketError::OtherBrowser)) };
    // Every value except "allow" is a rejection.
    let allow = form.decision == "allow";
    let command = AnswerDevice {
        device_id: device.to_vec(),
        session_id: SessionId::new(session).to_vec(),
        allow,
        ticket_id: ticket.id.to_vec(),
        ticket_expires_at_ms: ticket.expires_at_ms,
        policy_version: admitted_by(site, &signed_in, address, device),
    };
    // A second click is the same write, and gets the first reply.
    let key = &site.auth.deriving_keys().request;
    let parts: [&[u8]; 5] =
        [b"device", &ticket.id, browser.id.as_str().as_bytes(), &session, &[u8::from(allow)]];
    let write_key = WriteKey::of_step(key, &parts);
    let written = site.auth.cluster().propose(write_key.request(), Body::AnswerDevice(command)).await;
    match written.map_err(AuthError::from) {
        Ok(_) if browser.reads_pages => Ok(site.onward(Onward::DeviceDone { allowed: allow }, &browser)),
        Ok(_) => Ok(done(site, allow)),
        Err(AuthError::Refused(refusal)) if is_over(refusal.reason) => Err(over()),
        Err(error) => Err(fault_of(&error)),
    }
}

fn is_over(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::DeviceUnknown | Reason::DeviceExpired | Reason::TicketSpent | Reason::TicketExpired
    )
}

pub(super) fn done(site: &Site, allowed: bool) -> Response {
    let (outcome, title, detail) = if allowed {
        ("allowed", "Device connected", "You're done. Return to your device; you can close this page.")
    } else {
        (
            "denied",
            "Device refused",
            "The device was not given access to your account. You can close this page.",
        )
    };
    let view = views::DeviceDoneView { outcome, title: title.into(), detail: detail.into() };
    Html(site.pages.render(&view)).into_response()
}

fn over() -> Fault {
    let detail = "The device is not waiting any more, or was answered before. Start again on the device.";
    Fault::new(StatusCode::CONFLICT, "device_over", "The device is not waiting any more", detail)
}

fn incomplete() -> Fault {
    let detail = "The form arrived incomplete. Go back, reload the page and try again.";
    Fault::new(StatusCode::BAD_REQUEST, "bad_form", "The form is incomplete", detail)
}
