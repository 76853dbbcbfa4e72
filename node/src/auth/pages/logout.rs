//! `/logout`: asks, then ends the session everywhere. A relying party's logout comes here with a ticket that names where the
//! person goes afterwards.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Query, State, rejection::FormRejection},
    http::{HeaderMap, StatusCode},
    response::{Html, IntoResponse, Response},
};
use conclave_proto::command::v1::{RevokeSession, command::Body};
use serde::Deserialize;

use crate::{
    auth::{
        AuthError,
        session::SignedIn,
        ticket::{Step, Target, TicketError},
    },
    http::{Fault, RequestId},
    web::views,
};

use super::site::{Browser, Site, allow_way_home, fault_of, fault_of_ticket, see_other};

#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    ticket: String,
}

#[derive(Deserialize)]
pub struct Submitted {
    csrf: String,
    #[serde(default)]
    ticket: String,
}

pub async fn show(
    State(site): State<Arc<Site>>,
    id: RequestId,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Response {
    match shown(&site, &headers, &asked.ticket).await {
        Ok(response) => response,
        Err(fault) => site.fault(&fault, &id),
    }
}

async fn shown(site: &Site, headers: &HeaderMap, ticket: &str) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    let target = leave_target(site, &browser, ticket)?;
    let visitor = site.visitor(&browser).await?;
    let Some(signed_in) = visitor.signed_in else { return Ok(left(site, target.as_ref())) };
    let view = views::LogoutView {
        form: site.form(&browser, "/logout", ticket),
        username: signed_in.user.username.to_string(),
        back: Some(views::Link { url: "/".into(), label: "Stay signed in".into() }),
    };
    let mut response = Html(site.pages.render(&view)).into_response();
    target.iter().for_each(|target| allow_way_home(&mut response, target));
    Ok(site.with_browser(&browser, response))
}

pub async fn submit(
    State(site): State<Arc<Site>>,
    id: RequestId,
    headers: HeaderMap,
    form: Result<Form<Submitted>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        let detail = "The form arrived incomplete. Go back, reload the page and try again.";
        return site
            .fault(&Fault::new(StatusCode::BAD_REQUEST, "bad_form", "The form is incomplete", detail), &id);
    };
    match submitted(&site, &headers, form).await {
        Ok(response) => response,
        Err(fault) => site.fault(&fault, &id),
    }
}

async fn submitted(site: &Site, headers: &HeaderMap, form: Submitted) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    site.check_csrf(&browser, "/logout", &form.csrf)?;
    let target = leave_target(site, &browser, &form.ticket)?;
    if let Some(signed_in) = site.visitor(&browser).await?.signed_in {
        end(site, headers, &signed_in).await.map_err(|e| fault_of(&e))?;
    }
    Ok(site.without_session(left(site, target.as_ref())))
}

/// Ends the session, for every node and every client of it.
///
/// # Errors
/// When the cluster cannot take the write: then the person is still signed in, and told so.
async fn end(site: &Site, headers: &HeaderMap, signed_in: &SignedIn) -> Result<(), AuthError> {
    let id = signed_in.session.id;
    let derivation = site.derivation(headers, &[b"logout", id.bytes()]);
    let order = RevokeSession { session_id: id.to_vec() };
    site.auth.cluster().propose(derivation.request(), Body::RevokeSession(order)).await?;
    Ok(())
}

fn leave_target(site: &Site, browser: &Browser, ticket: &str) -> Result<Option<Target>, Fault> {
    if ticket.is_empty() {
        return Ok(None);
    }
    let ticket = site.auth.open(ticket, Some(browser.id.as_str())).map_err(fault_of_ticket)?;
    match ticket.step {
        Step::Logout => Ok(Some(ticket.target)),
        _ => Err(fault_of_ticket(TicketError::NotOurs)),
    }
}

/// Signed out: to the relying party if it named a place that was checked, else a page here.
fn left(site: &Site, target: Option<&Target>) -> Response {
    match target {
        Some(Target::Leave { uri }) => see_other(uri),
        _ => {
            let view = views::SignedOutView { sign_in_url: "/login".into(), back: None };
            Html(site.pages.render(&view)).into_response()
        }
    }
}
