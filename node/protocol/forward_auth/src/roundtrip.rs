//! Sign-in and sign-out on an application's own host: `/.conclave/start`, `/.conclave/callback`, `/.conclave/sign-out`.
//! The proxy sends these paths here without a check.

use axum::{
    extract::{Query, RawQuery, State},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_state::Reason;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use conclave_auth::{
    AuthError,
    ticket::{AppUrl, LoginStep, LoginTarget, Mount, Ticket, TicketError, browser_hash},
};
use conclave_http::{Fault, RequestId, cookie::Cookies, host::canonical_authority};
use conclave_web::pages::{fault_of, fault_of_ticket, see_other};

use super::{
    ForwardAuth,
    address::{self, Parts},
    check::{APP, APP_OF_DOMAIN, app_cookie, domain_cookie},
    sign_in,
};

/// The cookie that identifies a browser on an application's host.
const APP_BROWSER: &str = "app_browser";

#[derive(Deserialize)]
pub(crate) struct CallbackQuery {
    #[serde(default)]
    ticket: String,
}

pub(crate) async fn start(
    State(state): State<ForwardAuth>,
    id: RequestId,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    match started(&state, &headers, query.as_deref().unwrap_or_default()) {
        Ok(response) => response,
        Err(fault) => state.site.fault(&fault, &id),
    }
}

/// Binds the attempt to this browser on this host, and redirects it to the login.
fn started(state: &ForwardAuth, headers: &HeaderMap, query: &str) -> Result<Response, Fault> {
    let (url, asked_at_ms) = match parameter(query, "ticket") {
        None => (registered(state, headers, &return_address(query))?, None),
        Some(text) => {
            let ticket = state.auth.open(text, None).map_err(fault_of_ticket)?;
            let (LoginStep::Outside, LoginTarget::Open { url, .. }) = (ticket.step, ticket.target) else {
                return Err(fault_of_ticket(TicketError::NotOurs));
            };
            (url, Some(ticket.issued_at_ms))
        }
    };
    let policy = app_cookie(&url.scheme);
    let known = browser_cookie(headers, &url.scheme);
    let browser = known.unwrap_or_else(|| URL_SAFE_NO_PAD.encode(state.auth.runtime().entropy.bytes::<32>()));
    let target = LoginTarget::Open { url, binding: Some(browser_hash(&browser)) };
    let mut bound = state.auth.ticket(LoginStep::Outside, target, None);
    // The attempt began at the check: the redirect loop guard must see that attempts from before a redirect are not a
    // loop.
    bound.issued_at_ms = asked_at_ms.unwrap_or(bound.issued_at_ms);
    let text = state.auth.seal(&bound).map_err(|e| fault_of(&e))?;
    let response = see_other(&state.auth.settings().public_url.join(&format!("/login?ticket={text}")));
    Ok(with_cookie(response, policy.set(APP_BROWSER, &browser, None).ok()))
}

/// The raw value of a query parameter.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The URL to return to, which nginx configurations for authentik send as `rd` instead of a ticket. nginx cannot
/// encode: an `rd` that begins with an unescaped `http://` or `https://` extends to the end of the query, unchanged.
/// Any other `rd` is one parameter, decoded once.
fn return_address(query: &str) -> Vec<u8> {
    let is_start = |at: usize| at == 0 || query.get(..at).is_some_and(|before| before.ends_with('&'));
    let at = query.match_indices("rd=").map(|(at, _)| at).find(|at| is_start(*at));
    let Some(rest) = at.and_then(|at| query.get(at + "rd=".len()..)) else { return Vec::new() };
    if rest.starts_with("https://") || rest.starts_with("http://") {
        return rest.as_bytes().to_vec();
    }
    percent_decode_str(rest.split('&').next().unwrap_or(rest)).collect()
}

/// The address of a URL that an attacker may have written into a link: accepted only on the true origin of a registered
/// application. It leads only to a sign-in and a page of that application, and the round trip ends only in the browser
/// and on the host where it began. A path alone is on the host of the request.
fn registered(state: &ForwardAuth, headers: &HeaderMap, text: &[u8]) -> Result<AppUrl, Fault> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let scheme = if state.auth.settings().public_url.is_secure() { "https" } else { "http" };
    let whole = if text.starts_with(b"/") { Some((scheme, host, text)) } else { address::cut(text) };
    let parts = whole.map(|(scheme, authority, path)| Parts {
        scheme: ("rd", scheme),
        authority: ("rd", authority),
        path: ("rd", path),
    });
    let url = parts.and_then(|parts| address::read(&parts, Mount::Authentik).ok());
    let view = state.auth.cluster().view();
    let is_known = |url: &AppUrl| {
        let application = view.application_by_host(&url.host());
        application.is_some_and(|application| state.auth.is_true_origin(url, application))
    };
    let mut url = url.filter(is_known).ok_or_else(|| fault_of_ticket(TicketError::NotOurs))?;
    url.path = sign_in::return_path(&url.path);
    Ok(url)
}

/// The value of this host's browser cookie. A duplicate counts as absent and is set anew.
fn browser_cookie(headers: &HeaderMap, scheme: &str) -> Option<String> {
    let cookies = Cookies::of(headers);
    let value = cookies.get(&app_cookie(scheme).name(APP_BROWSER)).ok().flatten()?;
    (!value.is_empty() && value.len() <= 64).then(|| value.to_owned())
}

fn with_cookie(mut response: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

pub(crate) async fn callback(
    State(state): State<ForwardAuth>,
    id: RequestId,
    headers: HeaderMap,
    Query(query): Query<CallbackQuery>,
) -> Response {
    match open_app_session(&state, &headers, &query.ticket).await {
        Ok(response) => response,
        Err(fault) => state.site.fault(&fault, &id),
    }
}

/// Spends the app-SSO ticket for this host's cookie, and redirects to the requested page.
async fn open_app_session(state: &ForwardAuth, headers: &HeaderMap, text: &str) -> Result<Response, Fault> {
    let (ticket, url) = opened(state, headers, text)?;
    let write_key = state.site.write_key(headers, &[b"arrive", text.as_bytes()]);
    let home = see_other(&url.to_string());
    match state.auth.open_app_session(&ticket, &write_key).await {
        Ok(cookie) => {
            let life = Some(state.auth.settings().login.session_ttl);
            let set = match domain_cookie(state, &url.scheme, &url.host()) {
                Some(policy) => policy.set(APP_OF_DOMAIN, &cookie, life),
                None => app_cookie(&url.scheme).set(APP, &cookie, life),
            };
            Ok(with_cookie(home, set.ok()))
        }
        // A second click or the back button: the page decides again if the visitor is signed in.
        Err(AuthError::Refused(refusal))
            if matches!(refusal.reason, Reason::TicketSpent | Reason::SessionUnknown) =>
        {
            Ok(home)
        }
        Err(error) => Err(fault_of(&error)),
    }
}

/// Opens the ticket. The ticket names the host, and so the cookie that must prove the browser; the ticket is accepted
/// only with that cookie.
fn opened(state: &ForwardAuth, headers: &HeaderMap, text: &str) -> Result<(Ticket, AppUrl), Fault> {
    let schemes = ["https", "http"];
    let browsers = schemes.map(|scheme| browser_cookie(headers, scheme));
    let mut result = Err(TicketError::OtherBrowser);
    for browser in browsers.iter().flatten() {
        result = state.auth.open(text, Some(browser));
        if !matches!(result, Err(TicketError::OtherBrowser)) {
            break;
        }
    }
    let ticket = result.map_err(fault_of_ticket)?;
    match (&ticket.step, &ticket.target) {
        (LoginStep::AppSso { .. }, LoginTarget::Open { url, .. }) if ticket.browser.is_some() => {
            let url = url.clone();
            Ok((ticket, url))
        }
        _ => Err(fault_of_ticket(TicketError::NotOurs)),
    }
}

/// Removes the cookies of this host and of its domain, and redirects to the sign-out page, which ends the session
/// everywhere.
pub(crate) async fn sign_out(State(state): State<ForwardAuth>, headers: HeaderMap) -> Response {
    let mut response = see_other(&state.auth.settings().public_url.join("/logout"));
    // The host header is the browser's own; a browser accepts cookies only for its own domain.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = canonical_authority("https", host).unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    for scheme in ["https", "http"] {
        response = with_cookie(response, app_cookie(scheme).clear(APP).ok());
        if let Some(policy) = domain_cookie(&state, scheme, host) {
            response = with_cookie(response, policy.clear(APP_OF_DOMAIN).ok());
        }
    }
    response
}
