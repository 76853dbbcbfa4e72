//! The decision as a response for each proxy (docs/forward-auth.md).
//!
//! Allow is 200, never 204 (Envoy treats a 204 as a denial). All proxies but nginx pass on a 302; nginx turns it into a
//! 500, so it gets a 401 with that `Location`. nginx handles only 200, 401 and 403, and 503 when this node cannot
//! decide. On any status but 200 the shipped configuration requests [`Dialect::NginxPage`], and passes on that response
//! whole.
//!
//! The head of every response is bounded: for an admitted request by [`MAX_HEAD_BYTES`], for a redirect to the sign-in
//! by 4 KiB, the default limit of proxies.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use conclave_state::application::Application;

use conclave_auth::{AuthError, authorization::origin_of, session::SignedIn, ticket::LoginTarget};
use conclave_http::{Denial, Fault, RequestId, denial::not_denied};
use conclave_web::pages::fault_of;

use super::{
    ForwardAuth, assertion,
    check::Decision,
    fast_path::ResponseHead,
    identity::{self, MAX_HEAD_BYTES},
    machine_client,
    metadata::{Dialect, MetadataError, Original},
    sign_in,
};

pub(crate) fn to_proxy(
    state: &ForwardAuth,
    dialect: Dialect,
    original: &Original,
    decision: Decision,
    id: &RequestId,
) -> Response {
    match decision {
        // The page of a refusal was requested, but the request is allowed by now.
        Decision::Allow { .. } | Decision::Public { .. } if dialect == Dialect::NginxPage => {
            state.site.fault(&fault_of_change(), id)
        }
        Decision::Allow { signed_in, application, extra, .. } => {
            admitted(state, dialect, original, &signed_in, &application, extra, id)
        }
        Decision::Public { extra } => {
            let mut headers = identity::nobody();
            headers.extend(extra);
            (StatusCode::OK, headers, "ok").into_response()
        }
        Decision::Unauthenticated { application, refused } => {
            let asks = application.check.bearer || application.check.basic;
            let response = if asks && !original.is_browser {
                challenge(&application, refused)
            } else {
                sign_in::unauthenticated(state, dialect, original, id)
            };
            if !refused {
                // A redirect to the sign-in is not a denial.
                let is_fault = response.status().is_server_error();
                return if is_fault { response } else { not_denied(response) };
            }
            let why = "the token or app password is not accepted; it may have expired or been revoked";
            denied(dialect, original, "-", &application.slug, "bad_credentials", why).on(response)
        }
        Decision::Forbidden { signed_in, application, decision } => {
            let (name, user) = (&application.name, &signed_in.user.username);
            let decided = decision.as_deref().unwrap_or("-");
            let why = format!(
                "the policy does not admit the user; conclave policy explain {decided} shows the reason"
            );
            // Another account signs in here and is then redirected to the requested address.
            let is_its_own = state.auth.is_true_origin(&original.url, &application);
            let target = is_its_own.then(|| LoginTarget::Leave { uri: original.url.to_string() });
            let page = state.site.forbidden(name, user, decision.as_deref(), target.as_ref(), id);
            denied(dialect, original, user, &application.slug, "forbidden", &why).on(page)
        }
        Decision::UnknownHost => {
            let page = fault(
                state,
                "unknown_application",
                "This address is not registered as an application here",
                id,
            );
            let why = "no application has this host; add it with conclave app create or app update --host";
            denied(dialect, original, "-", "-", "unknown_application", why).on(page)
        }
        Decision::WrongOrigin { application } => wrong_origin(state, dialect, original, &application, id),
        Decision::BadCookies(error) => {
            let what = "Your browser sent cookies that cannot be used; remove the cookies of this site";
            let page = fault(state, "bad_cookie", what, id);
            denied(dialect, original, "-", "-", "bad_cookie", &error.to_string()).on(page)
        }
        Decision::Unavailable { why } => {
            log_unavailable(original, id, &why);
            // The warning is its log line.
            not_denied(state.site.fault(&fault_of_unavailable(), id))
        }
    }
}

/// The denial of a check; the edge writes its log line. Of the values that a client chose (path, headers) only the host
/// is logged.
///
/// nginx sends two requests: for the decision, and then for its page. The second has its own kind, so that each event
/// is counted once.
fn denied(
    dialect: Dialect,
    original: &Original,
    subject: &str,
    application: &str,
    reason: &'static str,
    why: &str,
) -> Denial {
    let kind = if dialect == Dialect::NginxPage { "check_page" } else { "check" };
    let detail = format!("host {}, application {application}: {why}", original.host);
    Denial { kind: Some(kind), ..Denial::new(reason, detail).of(subject) }
}

/// Logs a check that this node could not decide. It is a warning, because it affects more than one visitor.
pub(crate) fn log_unavailable(original: &Original, id: &RequestId, why: &str) {
    tracing::warn!(
        request.id = %id,
        client.address = %original.address,
        host = %original.host,
        reason = "unavailable",
        "a check for {} could not be decided: {why}",
        original.host
    );
}

/// Admits the request, with all headers for the application.
fn admitted(
    state: &ForwardAuth,
    dialect: Dialect,
    original: &Original,
    signed_in: &SignedIn,
    application: &Application,
    extra: Vec<(HeaderName, HeaderValue)>,
    id: &RequestId,
) -> Response {
    let unwritable = |what: &str, reason, why: &str| {
        let page = fault(state, reason, what, id);
        denied(dialect, original, &signed_in.user.username, &application.slug, reason, why).on(page)
    };
    let Some(ResponseHead { mut headers, mut bytes }) = state.heads.head(state, signed_in, application)
    else {
        let what = "Your account's data cannot be sent to the application";
        return unwritable(what, "unwritable_identity", "a value of the user cannot be written in a header");
    };
    if application.check.assertion {
        match assert(state, signed_in, application, original, &mut headers) {
            Ok(more) => bytes += more,
            Err(error) => return state.site.fault(&fault_of(&error), id),
        }
    }
    bytes += identity::bytes_of(extra.iter().map(|(name, value)| (name, value)));
    if bytes > MAX_HEAD_BYTES {
        let why =
            format!("the answer would have {bytes} bytes of headers, at most {MAX_HEAD_BYTES} are sent");
        let what = "The data for the application does not fit into one response";
        return unwritable(what, "answer_too_long", &why);
    }
    headers.extend(extra);
    allow(headers)
}

/// The response if the application has another scheme or port than the request.
fn wrong_origin(
    state: &ForwardAuth,
    dialect: Dialect,
    original: &Original,
    application: &Application,
    id: &RequestId,
) -> Response {
    let on_this_host = origin_of(&application.launch_url)
        .filter(|origin| origin.split_once("://").is_some_and(|(_, host)| host.starts_with(&original.host)));
    let (true_origin, asked) =
        (on_this_host.unwrap_or_else(|| format!("https://{}", original.host)), original.url.origin());
    let why = format!(
        "the application is at {true_origin}, not at {asked}; set its launch URL if {asked} is right"
    );
    let what = format!("This application is registered at {true_origin}/, not at {asked}/");
    let page = fault(state, "unknown_application", &what, id);
    denied(dialect, original, "-", &application.slug, "wrong_origin", &why).on(page)
}

/// Adds the assertion, under each name that the application reads; returns the number of bytes added.
fn assert(
    state: &ForwardAuth,
    signed_in: &SignedIn,
    application: &Application,
    original: &Original,
    head: &mut HeaderMap,
) -> Result<usize, AuthError> {
    let text = assertion::sign(&state.auth, signed_in, application, original)?;
    let value = HeaderValue::from_str(&text).map_err(|error| AuthError::Internal(error.to_string()))?;
    let names = identity::assertion_names(application.identity_headers.profile);
    for name in names {
        head.insert(*name, value.clone());
    }
    // The names and their empty values were counted already.
    Ok(text.len() * names.len())
}

/// The response to a machine client: challenges for the accepted credentials, without a redirect.
fn challenge(application: &Arc<Application>, refused: bool) -> Response {
    let mut response =
        (StatusCode::UNAUTHORIZED, "sign in with a token or an app password\n").into_response();
    for challenge in machine_client::challenges(application, refused) {
        response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn allow(head: HeaderMap) -> Response {
    let mut response = Response::new(Body::from("ok"));
    *response.headers_mut() = head;
    response
}

/// The response to refused metadata: 403 for every proxy, since nothing is known about the client.
pub(crate) fn unreadable(state: &ForwardAuth, refused: MetadataError, id: &RequestId) -> Response {
    let what = "The proxy in front of this application sent a check that is not accepted";
    let page = fault(state, "bad_check", what, id);
    Denial { kind: Some("check"), ..Denial::new("bad_check", refused.to_string()) }.on(page)
}

fn fault_of_unavailable() -> Fault {
    let detail = "This server cannot check at the moment if you are signed in. Try again in a moment.";
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "One moment, please", detail)
}

fn fault_of_change() -> Fault {
    let detail = "The page could not be opened a moment ago, and can be opened now. Reload it.";
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, "try_again", "One moment, please", detail)
}

/// The page for an unavailable cluster. It does not depend on the state of this node: a proxy requests it when it got
/// no response.
pub(crate) async fn unavailable_page(State(state): State<ForwardAuth>, id: RequestId) -> Response {
    let detail =
        "The sign-in service cannot answer at the moment. Nothing was changed. Try again in a moment.";
    let fault = Fault::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "One moment, please", detail);
    state.site.fault(&fault, &id)
}

fn fault(state: &ForwardAuth, code: &'static str, what: &str, id: &RequestId) -> Response {
    let detail =
        format!("{what}. If you run it, the log of this server has the details under the request id.");
    state.site.fault(&Fault::new(StatusCode::FORBIDDEN, code, "Not allowed", detail), id)
}
