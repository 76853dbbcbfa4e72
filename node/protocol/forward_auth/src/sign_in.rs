//! The redirect to the sign-in, for a visitor without a session: a redirect, an address, or a page inside a frame. Its
//! head fits into 4 KiB, whatever the requested address.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use conclave_auth::{
    AuthError,
    ticket::{AppUrl, LoginStep, LoginTarget},
};
use conclave_http::{Fault, Framable, RequestId};
use conclave_web::pages::fault_of;

use super::{
    ForwardAuth,
    metadata::{Dialect, Original},
    purpose::Purpose,
};

/// The response to a request without a signed-in user, in the proxy's format.
pub(crate) fn unauthenticated(
    state: &ForwardAuth,
    dialect: Dialect,
    original: &Original,
    id: &RequestId,
) -> Response {
    let location = match login_location(state, original) {
        Ok(location) => location,
        Err(error) => return state.site.fault(&fault_of(&error), id),
    };
    if original.purpose == Purpose::Framed {
        return framed(&location);
    }
    let is_navigation = original.purpose == Purpose::Navigation;
    let redirect = is_navigation && dialect.passes_redirects();
    let status = if redirect { StatusCode::FOUND } else { StatusCode::UNAUTHORIZED };
    let page = Fault::new(
        status,
        "sign_in",
        "Please sign in",
        "You are not signed in. Sign in and open the page again.",
    );
    let mut response = (status, Html(state.site.pages.fault(&page, id))).into_response();
    // An nginx with an earlier configuration redirects to every `Location` that it gets, so a program or a socket gets
    // none.
    if (is_navigation || dialect.passes_redirects())
        && let Ok(location) = HeaderValue::from_str(&location)
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// A page that may be shown in a frame of another site, where the sign-in never is. It links to the sign-in at the top
/// level.
fn framed(location: &str) -> Response {
    let address = location.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Please sign in</title>\
         <p id=\"framed\">You are not signed in.</p>\
         <p><a id=\"sign-in\" href=\"{address}\" target=\"_top\" rel=\"noopener\">Sign in</a></p></html>"
    );
    let mut response = (StatusCode::UNAUTHORIZED, Html(page)).into_response();
    response.extensions_mut().insert(Framable);
    response
}

/// Maximum length of path and query that a visitor returns to, in the ticket's encoding. Sealed and encoded it makes an
/// address of some 2 KiB, and a head that fits into the 4 KiB that proxies accept by default.
const MAX_RETURN_BYTES: usize = 1024;

/// The address of the sign-in: on the application's own host, or directly here if both share the session's cookie.
fn login_location(state: &ForwardAuth, original: &Original) -> Result<String, AuthError> {
    // Programs and WebSockets do not return to the URL that they called; a user is taken to the first page.
    let path = if original.purpose == Purpose::Other { "/" } else { &original.url.path };
    let url = AppUrl { path: return_path(path), ..original.url.clone() };
    let start = format!("{}{}/start", url.origin(), url.mount.prefix());
    let shared = state.auth.shares_session_cookie(&original.host);
    let ticket = state.auth.ticket(LoginStep::Outside, LoginTarget::Open { url, binding: None }, None);
    let text = state.auth.seal(&ticket)?;
    if shared {
        return Ok(state.auth.settings().public_url.join(&format!("/login?ticket={text}")));
    }
    Ok(format!("{start}?ticket={text}"))
}

/// The path and query to return to. If it is too long, the query is dropped, or else it becomes the host's first page.
pub(crate) fn return_path(whole: &str) -> String {
    let bare = whole.split('?').next().unwrap_or(whole);
    // Quotes and backslashes take two bytes in JSON.
    let len =
        |text: &str| text.bytes().map(|byte| if matches!(byte, b'"' | b'\\') { 2 } else { 1 }).sum::<usize>();
    [whole, bare].into_iter().find(|text| len(text) <= MAX_RETURN_BYTES).unwrap_or("/").to_owned()
}
