//! Responses to clients: a redirect, or a form that posts itself (OAuth 2.0 Form Post Response Mode 1.0).
//!
//! The form's page is the only page here with a script. Its content security policy allows exactly that script, by
//! hash. Without JavaScript the user presses the button.

use std::sync::LazyLock;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::views;
use conclave_auth::authorization::{ClientResponse, ResponseMode};
use conclave_crypto::mac;

use super::site::{Site, see_other};

/// No field of the page may be named `submit`: it would shadow the form's method.
const SCRIPT: &str = "document.forms[0].submit()";

/// The script's source expression (CSP 3 §2.3.1).
static SCRIPT_SOURCE: LazyLock<String> =
    LazyLock::new(|| format!("'sha256-{}'", STANDARD.encode(mac::sha256(SCRIPT.as_bytes()))));

impl Site {
    /// Sends the browser back to the client with the response.
    pub fn answer(&self, answer: &ClientResponse) -> Response {
        answer.mark_denial(match answer.mode {
            ResponseMode::Query | ResponseMode::Fragment => see_other(&answer.location()),
            ResponseMode::FormPost => {
                let fields =
                    answer.parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
                self.form_post(&answer.redirect_uri, &fields.collect::<Vec<_>>())
            }
        })
    }

    /// The page that posts these fields to a registered redirect URI.
    pub(super) fn form_post(&self, action: &str, fields: &[(String, String)]) -> Response {
        let field = |(name, value): &(String, String)| views::HiddenField {
            name: name.clone(),
            value: value.clone(),
        };
        let view = views::FormPostView {
            action: action.to_owned(),
            fields: fields.iter().map(field).collect(),
            script: SCRIPT,
        };
        let policy = HeaderValue::from_str(&POLICY);
        policy.map_or_else(
            |_| StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            |policy| {
                ([(header::CONTENT_SECURITY_POLICY, policy)], Html(self.pages.render(&view))).into_response()
            },
        )
    }
}

/// Without `form-action`: the page has one form, made here. The client's callback may redirect to any other origin, and
/// browsers apply `form-action` to those redirects too.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src {}; style-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
        *SCRIPT_SOURCE
    )
});
