//! `/recover`: the holder of a recovery link sets a password and becomes an administrator again.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Query, State, rejection::FormRejection},
    http::{HeaderMap, StatusCode},
    response::{Html, IntoResponse as _, Response},
};
use conclave_state::Reason;
use serde::Deserialize;

use crate::views;
use conclave_auth::{AuthError, recovery::Recovery, ticket::TicketError};
use conclave_crypto::password::{MIN_PASSWORD_CHARS, PlaintextPassword};
use conclave_http::{Fault, RequestId};

use super::site::{Browser, Site, fault_of, see_other};

const ACTION: &str = "/recover";

#[derive(Deserialize)]
pub(super) struct RecoveryQuery {
    #[serde(default)]
    link: String,
    #[serde(default)]
    problem: Option<RecoveryProblem>,
}

/// The reason why the form is shown again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RecoveryProblem {
    Differ,
    TooShort,
    TooLong,
}

impl RecoveryProblem {
    const fn name(self) -> &'static str {
        match self {
            Self::Differ => "differ",
            Self::TooShort => "too-short",
            Self::TooLong => "too-long",
        }
    }

    fn text(self) -> String {
        match self {
            Self::Differ => "The two passwords differ.".into(),
            Self::TooShort => format!("A password has at least {MIN_PASSWORD_CHARS} characters."),
            Self::TooLong => "That password is too long.".into(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct RecoveryForm {
    ticket: String,
    csrf: String,
    password: String,
    again: String,
}

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    id: RequestId,
    headers: HeaderMap,
    Query(query): Query<RecoveryQuery>,
) -> Response {
    let shown = site.browser(&headers).and_then(|browser| {
        let recovery = opened(&site, &query.link)?;
        Ok(page(&site, &browser, &recovery, &query.link, query.problem))
    });
    shown.unwrap_or_else(|fault| site.fault(&fault, &id))
}

pub(super) async fn submit(
    State(site): State<Arc<Site>>,
    id: RequestId,
    headers: HeaderMap,
    form: Result<Form<RecoveryForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        let detail = "The form arrived incomplete. Go back, reload the page and try again.";
        let fault = Fault::new(StatusCode::BAD_REQUEST, "bad_form", "The form is incomplete", detail);
        return site.formed(&headers, Err(fault), &id);
    };
    let result = submitted(&site, &headers, form).await;
    site.formed(&headers, result, &id)
}

async fn submitted(site: &Site, headers: &HeaderMap, form: RecoveryForm) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    site.check_csrf(&browser, ACTION, &form.csrf)?;
    let recovery = opened(site, &form.ticket)?;
    let again = |problem: RecoveryProblem| {
        if browser.reads_pages {
            return Ok(see_other(&format!("{ACTION}?link={}&problem={}", form.ticket, problem.name())));
        }
        Ok(page(site, &browser, &recovery, &form.ticket, Some(problem)))
    };
    if form.password != form.again {
        return again(RecoveryProblem::Differ);
    }
    let Ok(password) = PlaintextPassword::new(form.password) else { return again(RecoveryProblem::TooLong) };
    if password.char_count() < MIN_PASSWORD_CHARS {
        return again(RecoveryProblem::TooShort);
    }
    let write_key = site.write_key(headers, &[b"recover", form.ticket.as_bytes()]);
    match site.auth.recover(&recovery, password, &write_key).await {
        Ok(()) => Ok(see_other("/login")),
        Err(AuthError::Refused(refusal))
            if matches!(refusal.reason, Reason::TicketSpent | Reason::TicketExpired) =>
        {
            Err(used())
        }
        Err(error) => Err(fault_of(&error)),
    }
}

/// Opens the link, if it can be used here.
fn opened(site: &Site, link: &str) -> Result<Recovery, Fault> {
    let recovery = site.auth.open_recovery(link).map_err(fault_of_link)?;
    if recovery.lacks_account(&site.auth.cluster().view()) {
        let name = &recovery.username;
        let detail = format!(
            "There is no account named {name}. Check the name, or, to create an administrator with this name, make another link: conclave recover admin {name} --create."
        );
        return Err(Fault::new(StatusCode::NOT_FOUND, "no_such_user", "There is no such account", detail));
    }
    Ok(recovery)
}

fn page(
    site: &Site,
    browser: &Browser,
    recovery: &Recovery,
    link: &str,
    problem: Option<RecoveryProblem>,
) -> Response {
    let view = views::RecoverView {
        form: site.form(browser, ACTION, link),
        username: recovery.username.clone(),
        error: problem.map(RecoveryProblem::text),
    };
    let status =
        if problem.is_some() && !browser.reads_pages { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    site.with_browser(browser, (status, Html(site.pages.render(&view))).into_response())
}

fn fault_of_link(error: TicketError) -> Fault {
    match error {
        TicketError::Expired => Fault::new(
            StatusCode::BAD_REQUEST,
            "link_expired",
            "This link is too old",
            "A recovery link is valid for a quarter of an hour. Make another one: conclave recover admin.",
        ),
        TicketError::NotOurs | TicketError::OtherBrowser => Fault::new(
            StatusCode::BAD_REQUEST,
            "bad_link",
            "This link cannot be used",
            "It is damaged, or was made with another cluster secret. Copy all of it, or make another one: conclave recover admin.",
        ),
    }
}

fn used() -> Fault {
    Fault::new(
        StatusCode::CONFLICT,
        "link_used",
        "This link was used before",
        "A recovery link can be used once. If it was not you, make another one at once and check who is an administrator: \
         conclave user list.",
    )
}
