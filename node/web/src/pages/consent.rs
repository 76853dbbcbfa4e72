//! `/consent`: the user accepts or rejects the client. The ticket stands for exactly what the page showed.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Query, State, rejection::FormRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Deserialize;

use conclave_auth::{
    authorization::AuthorizationError,
    dispatch::{Next, Visitor},
    ticket::{LoginStep, LoginTarget, Note, Ticket, TicketError},
    write_key::WriteKey,
};
use conclave_http::{ClientInfo, Fault, RequestId};

use super::site::{Browser, Site, fault_of, fault_of_ticket};

#[derive(Deserialize)]
pub(super) struct ConsentForm {
    ticket: String,
    csrf: String,
    decision: String,
}

#[derive(Deserialize)]
pub(super) struct ConsentQuery {
    #[serde(default)]
    ticket: String,
}

/// Shows the page at its own address: after a form, and when the browser reloads it.
pub(super) async fn show(
    State(site): State<Arc<Site>>,
    id: RequestId,
    client: ClientInfo,
    headers: HeaderMap,
    Query(query): Query<ConsentQuery>,
) -> Response {
    let shown = async {
        let browser = site.browser(&headers)?;
        let opened = site.auth.reopen(&query.ticket, Some(browser.id.as_str())).map_err(fault_of_ticket)?;
        let page = Page { site: &site, client: &client, headers: &headers, browser: &browser };
        let next = page.asked_again(opened).await?;
        Ok(site.show(next, &browser, &id))
    };
    shown.await.unwrap_or_else(|fault: Fault| site.fault(&fault, &id))
}

pub(super) async fn submit(
    State(site): State<Arc<Site>>,
    id: RequestId,
    client: ClientInfo,
    headers: HeaderMap,
    form: Result<Form<ConsentForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        let detail = "The form arrived incomplete. Go back, reload the page and try again.";
        let fault = Fault::new(StatusCode::BAD_REQUEST, "bad_form", "The form is incomplete", detail);
        return site.formed(&headers, Err(fault), &id);
    };
    let result = submitted(&site, &id, &client, &headers, form).await;
    site.formed(&headers, result, &id)
}

async fn submitted(
    site: &Site,
    id: &RequestId,
    client: &ClientInfo,
    headers: &HeaderMap,
    form: ConsentForm,
) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    let checked = site.check_csrf(&browser, "/consent", &form.csrf);
    let opened = site.auth.reopen(&form.ticket, Some(browser.id.as_str())).map_err(fault_of_ticket)?;
    let page = Page { site, client, headers, browser: &browser };
    let next = match checked {
        Ok(()) => page.answered(opened, &form).await?,
        // A form that this site did not show is not an answer; the page is shown again.
        Err(_) if browser.reads_pages => page.asked_again(opened).await?,
        Err(fault) => return Err(fault),
    };
    Ok(site.answer_form(next, &browser, id))
}

/// A browser at the page.
struct Page<'a> {
    site: &'a Site,
    client: &'a ClientInfo,
    headers: &'a HeaderMap,
    browser: &'a Browser,
}

impl Page<'_> {
    async fn answered(
        &self,
        (ticket, trouble): (Ticket, Option<TicketError>),
        form: &ConsentForm,
    ) -> Result<Next, Fault> {
        let (LoginStep::Consent { session }, LoginTarget::Authorize(request)) = (ticket.step, &ticket.target)
        else {
            return Err(fault_of_ticket(TicketError::NotOurs));
        };
        if trouble.is_some() {
            return self.asked_again((ticket, trouble)).await;
        }
        // Every value except "allow" is a rejection.
        if form.decision != "allow" {
            let way_back = self.site.auth.way_back(request);
            return Ok(Next::Answer(
                way_back.with_error(AuthorizationError::AccessDenied, "the user denied the request"),
            ));
        }
        let visitor = self.site.visitor(self.browser).await?.from(self.client.ip);
        // A second click by the same user in the same browser is the same write, and gets the first reply.
        let key = &self.site.auth.deriving_keys().request;
        let browser = self.browser.id.as_str().as_bytes();
        let write_key = WriteKey::of_step(key, &[b"consent", &ticket.id, browser, &session]);
        // The page was shown to the user of that session. Another user gets a page of their own.
        let same =
            visitor.signed_in.as_ref().is_some_and(|signed_in| *signed_in.session.id.bytes() == session);
        let visitor = Visitor { consented: same.then(|| ticket.clone()), ..visitor };
        let next = self.site.auth.next(&ticket.target, &visitor, &write_key).await;
        next.map_err(|e| fault_of(&e))
    }

    /// Shows the page again, after its request was checked again.
    async fn asked_again(&self, (ticket, trouble): (Ticket, Option<TicketError>)) -> Result<Next, Fault> {
        let LoginStep::Consent { session } = ticket.step else {
            return Err(fault_of_ticket(TicketError::NotOurs));
        };
        if trouble.is_some()
            && let Some(gone) = self.site.auth.still_stands(&ticket.target).await.map_err(|e| fault_of(&e))?
        {
            return Ok(Next::Gone(gone));
        }
        let visitor = self.site.visitor(self.browser).await?.from(self.client.ip);
        // The page follows a sign-in by that session's user in this browser, so seeing it again needs no new sign-in.
        let same =
            visitor.signed_in.as_ref().is_some_and(|signed_in| *signed_in.session.id.bytes() == session);
        let note = match trouble {
            Some(trouble) => Some(Note { why: trouble.why(), username: String::new() }),
            None => ticket.note,
        };
        // An old page proves nothing about the age of the sign-in.
        let just_now = same && trouble.is_none();
        let visitor = Visitor { just_now, note, ..visitor };
        let write_key = self.site.write_key(self.headers, &[b"consent-again", &ticket.id]);
        let next = self.site.auth.next(&ticket.target, &visitor, &write_key).await;
        next.map_err(|e| fault_of(&e))
    }
}
