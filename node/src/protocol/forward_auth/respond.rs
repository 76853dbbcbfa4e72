//! The decision in the words that each proxy understands (reference: forward-auth.md §2, §5).
//!
//! Allow is 200, never 204 (Envoy takes a 204 for a denial). All but nginx pass a 302 on; nginx turns one into a 500, so it gets a
//! 401 with the same `Location`. nginx hears 200, 401 and 403 only, save for 503 when this node cannot tell.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use crate::{
    auth::ticket::{Step, Target},
    http::{Fault, RequestId},
};

use super::{
    ForwardAuth,
    check::Decision,
    identity,
    metadata::{Dialect, Original, Refused},
};

pub fn to_proxy(
    state: &ForwardAuth,
    dialect: Dialect,
    original: &Original,
    decision: Decision,
    id: &RequestId,
) -> Response {
    match decision {
        Decision::Allow { signed_in, application, extra } => {
            match identity::headers(&state.auth, &signed_in, &application.slug) {
                Some(mut headers) => {
                    headers.extend(extra);
                    (StatusCode::OK, headers, "ok").into_response()
                }
                None => {
                    fault(state, "unwritable_identity", "Your account cannot be told to the application", id)
                }
            }
        }
        Decision::Unauthenticated => unauthenticated(state, dialect, original, id),
        Decision::Public { extra } => {
            let mut headers = identity::nobody();
            headers.extend(extra);
            (StatusCode::OK, headers, "ok").into_response()
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
