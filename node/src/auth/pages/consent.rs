//! `/consent`: the person says yes or no to the client. The ticket stands for exactly what the page showed.

use std::sync::Arc;

use axum::{
    Form,
    extract::{State, rejection::FormRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Deserialize;

use crate::{
    auth::{
        authorization::AuthorizationError,
        dispatch::{Next, Visitor},
        ticket::{Step, Target, TicketError},
    },
    http::{ClientInfo, Fault, RequestId},
};

use super::site::{Site, fault_of, fault_of_ticket};

#[derive(Deserialize)]
pub struct Submitted {
    ticket: String,
    csrf: String,
    decision: String,
}

pub async fn submit(
    State(site): State<Arc<Site>>,
    id: RequestId,
    client: ClientInfo,
    headers: HeaderMap,
    form: Result<Form<Submitted>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        let detail = "The form arrived incomplete. Go back, reload the page and try again.";
        return site
            .fault(&Fault::new(StatusCode::BAD_REQUEST, "bad_form", "The form is incomplete", detail), &id);
    };
    match submitted(&site, &id, &client, &headers, form).await {
        Ok(response) => response,
        Err(fault) => site.fault(&fault, &id),
    }
}

async fn submitted(
    site: &Site,
    id: &RequestId,
    client: &ClientInfo,
    headers: &HeaderMap,
    form: Submitted,
) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    site.check_csrf(&browser, "/consent", &form.csrf)?;
    let ticket = site.auth.open(&form.ticket, Some(browser.id.as_str())).map_err(fault_of_ticket)?;
    let (Step::Consent { session }, Target::Authorize(request)) = (ticket.step, &ticket.target) else {
        return Err(fault_of_ticket(TicketError::NotOurs));
    };
    // Anything but a plain yes is a no.
    if form.decision != "allow" {
        let way_back = site.auth.way_back(request);
        let denied = way_back.with_error(AuthorizationError::AccessDenied, "the person said no");
        return Ok(site.show(Next::Answer(denied), &browser, id));
    }
    let visitor = site.visitor(&browser).await?.from(client.ip);
    let derivation = site.derivation(headers, &[b"consent", form.ticket.as_bytes()]);
    // The page was shown to the person of that session. Whoever sits here now under another one is asked anew.
    let same = visitor.signed_in.as_ref().is_some_and(|signed_in| *signed_in.session.id.bytes() == session);
    let visitor = Visitor { consented: same.then(|| ticket.clone()), ..visitor };
    let next = site.auth.next(&ticket.target, &visitor, &derivation).await.map_err(|e| fault_of(&e))?;
    Ok(site.show(next, &browser, id))
}
