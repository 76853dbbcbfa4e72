//! The decision in the words that each proxy understands (reference: forward-auth.md §2, §5).
//!
//! Allow is 200, never 204 (Envoy takes a 204 for a denial). All but nginx pass a 302 on; nginx turns one into a 500, so it gets a
//! 401 with the same `Location`. nginx hears 200, 401 and 403 only, save for 503 when this node cannot tell.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use conclave_state::application::Application;

use crate::{
    auth::{
        AuthError,
        pages::fault_of,
        session::SignedIn,
        ticket::{Step, Target},
    },
    http::{Fault, RequestId},
};

use super::{
    ForwardAuth, assertion,
    check::Decision,
    identity,
    metadata::{Dialect, Original, Refused},
    program,
};

pub fn to_proxy(
    state: &ForwardAuth,
    dialect: Dialect,
    original: &Original,
    decision: Decision,
    id: &RequestId,
) -> Response {
    match decision {
        Decision::Allow { signed_in, application, extra, .. } => {
            let Some(mut head) = state.written.head(state, &signed_in, &application) else {
                let what = "Your account cannot be told to the application";
                return fault(state, "unwritable_identity", what, id);
            };
            if application.check.assertion
                && let Err(error) = assert(state, &signed_in, original, &mut head)
            {
                return state.site.fault(&fault_of(&error), id);
            }
            head.extend(extra);
            allow(head)
        }
        Decision::Public { extra } => {
            let mut headers = identity::nobody();
            headers.extend(extra);
            (StatusCode::OK, headers, "ok").into_response()
        }
        Decision::Unauthenticated { application, refused } => {
            let asks = application.check.bearer || application.check.basic;
            if asks && !original.is_browser {
                return challenge(&application, refused);
            }
            unauthenticated(state, dialect, original, id)
        }
        Decision::Forbidden { signed_in, application, decision } => {
            state.site.forbidden(&application.name, &signed_in.user.username, decision.as_deref(), id)
        }
        Decision::UnknownHost => {
            fault(state, "unknown_application", "This address is not registered as an application here", id)
        }
        Decision::BadCookies(error) => {
            tracing::info!("refused a check for its cookies: {error}");
            fault(
                state,
                "bad_cookie",
                "Your browser sent cookies that cannot be used; remove the cookies of this site",
                id,
            )
        }
        Decision::Unavailable => {
            let detail =
                "This server cannot tell at the moment whether you are signed in. Try again in a moment.";
            let fault =
                Fault::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "One moment, please", detail);
            state.site.fault(&fault, id)
        }
    }
}

/// Both names carry it: ours, and the one that applications set up for authentik look at.
fn assert(
    state: &ForwardAuth,
    signed_in: &SignedIn,
    original: &Original,
    head: &mut HeaderMap,
) -> Result<(), AuthError> {
    let text = assertion::sign(&state.auth, signed_in, original)?;
    let value = HeaderValue::from_str(&text).map_err(|error| AuthError::Internal(error.to_string()))?;
    head.insert(identity::AUTHENTIK_JWT, value.clone());
    head.insert(identity::ASSERTION, value);
    Ok(())
}

/// A program is asked for what it may bring, and is led nowhere.
fn challenge(application: &Arc<Application>, refused: bool) -> Response {
    let mut response =
        (StatusCode::UNAUTHORIZED, "sign in with a token or an app password\n").into_response();
    for challenge in program::challenges(application, refused) {
        response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn allow(head: HeaderMap) -> Response {
    let mut response = Response::new(Body::from("ok"));
    *response.headers_mut() = head;
    response
}

/// The metadata was refused: 403 whatever the proxy, since nothing is known of who asks.
pub fn unreadable(state: &ForwardAuth, refused: Refused, id: &RequestId) -> Response {
    tracing::warn!(request.id = %id, "refused a forward-auth check: {refused}");
    fault(
        state,
        "bad_check",
        "The proxy in front of this application asked in a way that is not accepted",
        id,
    )
}

fn fault(state: &ForwardAuth, code: &'static str, what: &str, id: &RequestId) -> Response {
    let detail = format!("{what}. If you run it, the log of this server says more under the request id.");
    state.site.fault(&Fault::new(StatusCode::FORBIDDEN, code, "Not allowed", detail), id)
}

fn unauthenticated(state: &ForwardAuth, dialect: Dialect, original: &Original, id: &RequestId) -> Response {
    let Some(location) = login_location(state, original).and_then(|l| HeaderValue::from_str(&l).ok()) else {
        return fault(state, "too_long", "The address is too long to come back to after signing in", id);
    };
    let redirect = original.is_navigation && dialect.passes_redirects();
    let status = if redirect { StatusCode::FOUND } else { StatusCode::UNAUTHORIZED };
    let page = Fault::new(
        status,
        "sign_in",
        "Please sign in",
        "You are not signed in. Sign in and open the page again.",
    );
    let mut response = (status, Html(state.site.pages.fault(&page, id))).into_response();
    // nginx sends whoever is told an address there (deploy/proxies/nginx.conf): a program or a socket is told none.
    if original.is_navigation || dialect.passes_redirects() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Where the sign-in starts: on the application's own host, or at once here when both share the session's cookie.
fn login_location(state: &ForwardAuth, original: &Original) -> Option<String> {
    // Programs and WebSockets are not taken back to the URL they called; a person is taken to the front page.
    let mut url = original.url.clone();
    if !original.is_navigation {
        "/".clone_into(&mut url.path);
    }
    let start = format!("{}{}/start", url.origin(), url.mount.prefix());
    let shared = state.auth.shares_session_cookie(&url.host());
    let ticket = state.auth.ticket(Step::Outside, Target::Open { url, binding: None }, None);
    let text = state.auth.seal(&ticket).ok()?;
    if shared {
        return Some(state.auth.settings().public_url.join(&format!("/login?ticket={text}")));
    }
    Some(format!("{start}?ticket={text}"))
}
