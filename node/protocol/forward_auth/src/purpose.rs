//! The purpose of a request, from the client's own headers: the use of the response, whether the client is a browser,
//! and whether it asks the application for another method than that of the request line. None of this admits a request.

use axum::http::{HeaderMap, HeaderName, Method, header};

use super::metadata::METHOD_UNKNOWN;

/// Fetch Metadata headers.
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
/// Headers of browsers that prefetch a page; the second name is the older one.
const PREFETCH: [HeaderName; 2] =
    [HeaderName::from_static("sec-purpose"), HeaderName::from_static("purpose")];
/// Headers by which many frameworks let a POST replace another method. Proxies should remove them.
const METHOD_OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];
/// The header by which scripts identify themselves.
const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// A browser's use of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Shown as a page: the browser can be redirected.
    Navigation,
    /// Shown in a frame of another site, where the sign-in is never shown.
    Framed,
    /// Any other: a script, a socket, a prefetch, a machine client.
    Other,
}

/// True for browsers: they send their mode with each request (Fetch Metadata), or accept `text/html`.
pub(crate) fn is_browser(headers: &HeaderMap) -> bool {
    let wants_page =
        |value: &axum::http::HeaderValue| value.to_str().is_ok_and(|text| text.contains("text/html"));
    headers.contains_key(FETCH_MODE)
        || headers.contains_key(REQUESTED_WITH)
        || headers.get_all(header::ACCEPT).iter().any(wants_page)
}

/// A browser's use of the response (docs/forward-auth.md). A navigation has `Sec-Fetch-Mode: navigate`, or accepts
/// `text/html` by name. `Accept: */*` alone is sent by programs such as git, curl and package managers.
pub(crate) fn purpose(method: &Method, headers: &HeaderMap) -> Purpose {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let reads = *method == Method::GET || *method == Method::HEAD || method.as_str() == METHOD_UNKNOWN;
    let is_socket = headers.contains_key(header::UPGRADE) || headers.contains_key(header::SEC_WEBSOCKET_KEY);
    if !reads || is_socket {
        return Purpose::Other;
    }
    let mode = text(&FETCH_MODE);
    let is_navigation = match mode {
        Some(mode) => mode == "navigate",
        None => {
            let wants_page = text(&header::ACCEPT).is_some_and(|accept| accept.contains("text/html"));
            wants_page && text(&REQUESTED_WITH).is_none()
        }
    };
    // Depending on the browser, an embedded object is fetched as a navigation or not.
    let is_framed =
        mode.is_some() && matches!(text(&FETCH_DEST), Some("iframe" | "frame" | "embed" | "object"));
    let is_prefetch = || PREFETCH.iter().any(|name| text(name).is_some_and(|text| text.contains("prefetch")));
    match (is_framed, is_navigation) {
        (true, _) => Purpose::Framed,
        (false, true) if !is_prefetch() => Purpose::Navigation,
        (false, _) => Purpose::Other,
    }
}

/// True if a header requests another method, in any spelling that an application may read as one of
/// [`METHOD_OVERRIDES`].
pub(crate) fn method_in_doubt(headers: &HeaderMap) -> bool {
    let is_alias = |name: &&str| name.contains(['_', '.']);
    METHOD_OVERRIDES.iter().any(|name| headers.contains_key(name))
        || headers.keys().map(HeaderName::as_str).filter(is_alias).any(|name| {
            let plain = name.replace(['_', '.'], "-");
            METHOD_OVERRIDES.iter().any(|known| *known == plain.as_str())
        })
}
