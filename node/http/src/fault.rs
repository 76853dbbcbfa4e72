//! A failed request, as reported to its caller: a page for users, a problem document for programs.

use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::denial::Denial;
use super::request_id::RequestId;

/// The error, in words for the user or program. It contains nothing that an attacker must not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub status: StatusCode,
    /// A stable code, for programs and for the manual: `body_too_large`.
    pub code: &'static str,
    /// A few words: `Request too large`.
    pub title: &'static str,
    /// A sentence or two: the cause and the remedy.
    pub detail: String,
    /// The link on the error page; `None` means the start page of this site.
    pub way_on: Option<WayOn>,
}

/// A link on an error page. Never an unchecked address from a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayOn {
    pub url: String,
    pub label: String,
}

impl Fault {
    pub fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self { status, code, title, detail: detail.into(), way_on: None }
    }

    /// The fault with this link on its page.
    #[must_use]
    pub fn with_way_on(self, url: impl Into<String>, label: &str) -> Self {
        Self { way_on: Some(WayOn { url: url.into(), label: label.to_owned() }), ..self }
    }

    /// No route has this path.
    pub fn not_found() -> Self {
        let detail = "There is nothing at this address.";
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found", detail)
    }

    /// The path has a route, but not for this method.
    pub fn method_not_allowed() -> Self {
        let detail = "This address cannot be opened in this way.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Not allowed", detail)
    }

    /// An error that the caller cannot remedy.
    pub fn internal() -> Self {
        let detail = "Something went wrong on this server. Please try again; if it happens again, tell your administrator the request id.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong", detail)
    }

    pub(super) fn timeout() -> Self {
        let detail = "This server could not finish the request in time. Please try again in a moment.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "That took too long", detail)
    }

    pub(super) fn body_too_large(limit: usize) -> Self {
        let detail = format!("The request body is larger than the {limit} bytes this server accepts.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Request too large", detail)
    }

    pub(super) fn body_unreadable() -> Self {
        let detail = "The request body ended early or could not be read.";
        Self::new(StatusCode::BAD_REQUEST, "body_unreadable", "Bad request", detail)
    }

    /// The problem document (RFC 9457).
    pub fn problem(&self, id: &RequestId) -> Response {
        let document = Problem {
            r#type: "about:blank",
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            request_id: id.as_str(),
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let response = (self.status, [(CONTENT_TYPE, "application/problem+json")], body).into_response();
        Denial::new(self.code, &self.detail).on(response)
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: &'a str,
}

/// True if the caller is a browser that shows a page, and not a program.
pub fn wants_page(headers: &HeaderMap) -> bool {
    let accepts = |value: &http::HeaderValue| value.to_str().is_ok_and(|value| value.contains("text/html"));
    headers.get_all(ACCEPT).iter().any(accepts)
}
