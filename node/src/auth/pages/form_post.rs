//! Answers to clients: a redirect, or a form that posts itself (OAuth 2.0 Form Post Response Mode 1.0).
//!
//! The form's page is the only one here with a script. The policy allows exactly that script, by its hash, and posting to exactly
//! the client's origin; without JavaScript the person presses the button.

use std::sync::LazyLock;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    auth::authorization::{Answer, ResponseMode, origin_of},
    crypto::mac,
    web::views,
};

use super::site::{Site, see_other};

/// Nothing in the page is called `submit`: it would stand in the way of the form's own method.
const SCRIPT: &str = "document.forms[0].submit()";

/// The script's source expression (CSP 3 §2.3.1).
static SCRIPT_SOURCE: LazyLock<String> =
    LazyLock::new(|| format!("'sha256-{}'", STANDARD.encode(mac::sha256(SCRIPT.as_bytes()))));

impl Site {
    /// Sends the browser back to the client with the answer.
    pub fn answer(&self, answer: &Answer) -> Response {
        match answer.mode {
            ResponseMode::Query => see_other(&answer.location()),
            ResponseMode::FormPost => self.form_post(answer),
        }
    }

    fn form_post(&self, answer: &Answer) -> Response {
        // A URI that was registered has an origin, or a scheme of its own.
        let Some(policy) = origin_of(&answer.redirect_uri).and_then(|origin| policy(&origin)) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let field = |(name, value): &(&'static str, String)| views::Hidden {
            name: (*name).to_owned(),
            value: value.clone(),
        };
        let view = views::FormPostView {
            action: answer.redirect_uri.clone(),
            fields: answer.parameters.iter().map(field).collect(),
            script: SCRIPT,
        };
        ([(header::CONTENT_SECURITY_POLICY, policy)], Html(self.pages.render(&view))).into_response()
    }
}

fn policy(origin: &str) -> Option<HeaderValue> {
    let is_plain = !origin.contains([' ', ';', ',', '\'']);
    let policy = format!(
        "default-src 'none'; script-src {}; style-src 'self'; img-src 'self' data:; base-uri 'none'; \
         frame-ancestors 'none'; form-action {origin}",
        *SCRIPT_SOURCE
    );
    HeaderValue::from_str(&policy).ok().filter(|_| is_plain)
}
