//! The start of a sign-in: the user types an identifier, and is redirected to their own server.

use std::time::Duration;

use axum::{
    Form,
    extract::{Query, State, rejection::FormRejection},
    http::{HeaderMap, StatusCode},
    response::{Html, IntoResponse, Response},
};
use serde::Deserialize;
use tokio::time::timeout;
use tracing::{Instrument as _, info_span};
use url::Url;

use super::{
    Atproto,
    client::{self, ClientIdentity},
    error::AtmosphereError,
    exchange::Exchange,
    identifier::{self, Identifier},
    server::{self, Server},
    transaction::Transaction,
};
use conclave_auth::{
    AuthError,
    throttle::Admission,
    ticket::{LoginStep, LoginTarget, Ticket, TicketError},
    upstream::wanted_age,
};
use conclave_crypto::mac;
use conclave_http::{ClientInfo, Fault, RequestId};
use conclave_web::pages::Browser;
use conclave_web::views;

pub(crate) const START: &str = "/atproto/start";
/// Time limit for everything before the redirect: three documents and a post, each of which may be slow.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
pub(crate) struct AtmosphereQuery {
    #[serde(default)]
    ticket: String,
    /// The one-time token of the first user.
    #[serde(default)]
    first: String,
}

#[derive(Deserialize)]
pub(crate) struct AtmosphereForm {
    csrf: String,
    ticket: String,
    handle: String,
    #[serde(default)]
    first: String,
}

/// The values already filled in on the page.
struct FormValues {
    text: String,
    first: String,
    handle: String,
}

pub(crate) async fn show(
    State(atproto): State<Atproto>,
    id: RequestId,
    headers: HeaderMap,
    Query(query): Query<AtmosphereQuery>,
) -> Response {
    let shown = async {
        let browser = atproto.site.browser(&headers)?;
        let text = match query.ticket.as_str() {
            // The holder of the first token does not come from another page.
            "" if !query.first.is_empty() => fresh(&atproto, &browser)?,
            text => text.to_owned(),
        };
        let ticket = ticket(&atproto, &browser, &text)?;
        let values = FormValues { text, first: query.first.clone(), handle: String::new() };
        Ok(page(&atproto, &browser, &ticket, &values, None))
    };
    shown.await.unwrap_or_else(|fault: Fault| atproto.site.fault(&fault, &id))
}

fn fresh(atproto: &Atproto, browser: &Browser) -> Result<String, Fault> {
    let auth = &atproto.site.auth;
    let ticket = auth.ticket(LoginStep::Login { fresh: false }, LoginTarget::Home, Some(browser.id.as_str()));
    auth.seal(&ticket).map_err(|error| AtmosphereError::from(error).fault())
}

/// The ticket of a login or a link in progress in this browser.
fn ticket(atproto: &Atproto, browser: &Browser, text: &str) -> Result<Ticket, Fault> {
    let ticket = atproto.site.auth.open(text, Some(browser.id.as_str()));
    let ticket = ticket.map_err(|error| AtmosphereError::from(error).fault())?;
    if !matches!(ticket.step, LoginStep::Login { .. } | LoginStep::Link { .. }) || ticket.browser.is_none() {
        return Err(AtmosphereError::from(TicketError::NotOurs).fault());
    }
    Ok(ticket)
}

fn page(
    atproto: &Atproto,
    browser: &Browser,
    ticket: &Ticket,
    values: &FormValues,
    error: Option<&AtmosphereError>,
) -> Response {
    let mut form = atproto.site.form(browser, START, &values.text);
    if !values.first.is_empty() {
        form.hidden.push(views::HiddenField { name: "first".into(), value: values.first.clone() });
    }
    let fault = error.map(AtmosphereError::fault);
    let view = views::AtmosphereView {
        form,
        handle: values.handle.clone(),
        error: fault.as_ref().map(|fault| format!("{}. {}", fault.title, fault.detail)),
        code: error.map(|error| error.code().to_owned()).unwrap_or_default(),
        linking: matches!(ticket.step, LoginStep::Link { .. }),
    };
    let status = fault.map_or(StatusCode::OK, |fault| fault.status);
    let response = (status, Html(atproto.site.pages.render(&view))).into_response();
    atproto.site.with_browser(browser, response)
}

pub(crate) async fn submit(
    State(atproto): State<Atproto>,
    id: RequestId,
    client: ClientInfo,
    headers: HeaderMap,
    form: Result<Form<AtmosphereForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        let detail = "The form arrived incomplete. Go back, reload the page and try again.";
        let fault = Fault::new(StatusCode::BAD_REQUEST, "bad_form", "The form is incomplete", detail);
        return atproto.site.fault(&fault, &id);
    };
    let begun = async {
        let browser = atproto.site.browser(&headers)?;
        atproto.site.check_csrf(&browser, START, &form.csrf)?;
        let ticket = ticket(&atproto, &browser, &form.ticket)?;
        Ok::<_, Fault>((browser, ticket))
    };
    let (browser, ticket) = match begun.await {
        Ok(begun) => begun,
        Err(fault) => return atproto.site.fault(&fault, &id),
    };
    let starting = start_login(&atproto, &client, &ticket, &form).instrument(info_span!("atproto.start"));
    match starting.await {
        Ok((location, transaction)) => away(&atproto, &id, &browser, &location, &transaction),
        Err(error) => {
            let handle = form.handle.chars().take(512).collect();
            let values = FormValues { text: form.ticket, first: form.first, handle };
            page(&atproto, &browser, &ticket, &values, Some(&error))
        }
    }
}

fn away(
    atproto: &Atproto,
    id: &RequestId,
    browser: &Browser,
    location: &str,
    transaction: &Transaction,
) -> Response {
    let sealed = match transaction.seal(&atproto.site.auth) {
        Ok(sealed) => sealed,
        Err(error) => return atproto.site.fault(&AtmosphereError::from(error).fault(), id),
    };
    let name = Transaction::cookie(&transaction.state());
    let life = atproto.site.auth.settings().login.flow_ttl;
    let response =
        atproto.site.with_own_cookie(&name, &sealed, Some(life), atproto.site.leave(location, browser));
    atproto.site.with_browser(browser, response)
}

/// Resolves the typed identifier and pushes the request; returns the address for the browser.
async fn start_login(
    atproto: &Atproto,
    caller: &ClientInfo,
    ticket: &Ticket,
    form: &AtmosphereForm,
) -> Result<(String, Transaction), AtmosphereError> {
    if wanted_age(ticket).is_some() {
        return Err(AtmosphereError::NotFresh);
    }
    // The next step costs requests to other servers, so the number of attempts per address is limited.
    if let Admission::Refused { .. } = atproto.site.auth.upstream_attempts().address(caller.ip) {
        return Err(AtmosphereError::TooMany);
    }
    let (client, upstream) = atproto.open().await?;
    let identifier = identifier::parse(&form.handle, atproto.net().dev)?;
    let way = timeout(LIMIT, way_to(atproto, &identifier)).await;
    let (server, did) = way.map_err(|_| too_slow())??;
    let mut transaction =
        Transaction::begin(ticket.clone(), &upstream, &*atproto.site.auth.runtime().entropy)?;
    transaction.issuer.clone_from(&server.issuer);
    transaction.did = did;
    transaction.kid = key_of(atproto, client)?;
    if !form.first.is_empty() {
        transaction.first_token_hash = mac::sha256(form.first.as_bytes()).to_vec();
    }
    let exchange = Exchange {
        auth: &atproto.site.auth,
        net: atproto.net(),
        client,
        server: &server,
        transaction: &transaction,
    };
    let pushed = timeout(LIMIT, exchange.push(identifier.hint())).await.map_err(|_| too_slow())??;
    Ok((address(&server, client, &pushed)?, transaction))
}

fn too_slow() -> AtmosphereError {
    AtmosphereError::Unreachable(conclave_http::outbound::OutboundError::TooSlow)
}

/// The authorization server, and the DID that must sign in there.
#[tracing::instrument(name = "atproto.resolve", skip_all)]
async fn way_to(
    atproto: &Atproto,
    identifier: &Identifier,
) -> Result<(Server, Option<String>), AtmosphereError> {
    let net = atproto.net();
    if let Identifier::Server(origin) = identifier {
        return Ok((server::behind(net, origin).await?, None));
    }
    let resolved = atproto.resolver.resolve(identifier).await?.ok_or(AtmosphereError::BadIdentifier)?;
    let issuer = server::issuer_of(net, &resolved.pds).await?;
    Ok((server::described(net, &issuer).await?, Some(resolved.did.as_str().to_owned())))
}

fn key_of(atproto: &Atproto, client: &ClientIdentity) -> Result<Option<String>, AtmosphereError> {
    if !client.is_confidential {
        return Ok(None);
    }
    let auth = &atproto.site.auth;
    let state = auth.cluster().view();
    let key = client::proving_key(&state, auth.now(&state)).ok_or(AuthError::Unavailable)?;
    Ok(Some(key.kid.to_string()))
}

fn address(server: &Server, client: &ClientIdentity, pushed: &str) -> Result<String, AtmosphereError> {
    let mut url = Url::parse(&server.authorization)
        .map_err(|_| AtmosphereError::ProviderInvalid("its authorization endpoint is not a URL"))?;
    url.query_pairs_mut().append_pair("client_id", &client.id).append_pair("request_uri", pushed);
    Ok(url.into())
}
