//! The authorization endpoint (RFC 6749 §3.1, OIDC Core §3.1.2), by GET and by POST. It parses and validates; `auth`
//! does the rest.

use axum::{
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};

use conclave_auth::{
    AuthError,
    authorization::{AuthorizationRequest, WayBack},
    ticket::LoginTarget,
};
use conclave_http::{ClientInfo, Denial, Fault, RequestId};
use conclave_web::pages::fault_of;

use crate::Oidc;
use crate::authorization::par;
use crate::authorization::read;
use crate::authorization::request::{InvalidRequest, NoWayBack, Parameters, RequestContext};
use crate::clients::document as client_document;

pub(crate) async fn by_get(
    State(oidc): State<Oidc>,
    id: RequestId,
    caller: ClientInfo,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    endpoint(&oidc, &id, &caller, &headers, query.unwrap_or_default().as_bytes()).await
}

/// A cross-site POST carries no SameSite=Lax cookie, so the browser is redirected to GET first (OIDC Core §3.1.2.1
/// requires support for POST).
pub(crate) async fn by_post(State(oidc): State<Oidc>, id: RequestId, body: Bytes) -> Response {
    let Ok(form) = std::str::from_utf8(&body) else {
        return error_page(&oidc, &id, NoWayBack::Unreadable("not a form"));
    };
    if form.len() > MAX_QUERY_BYTES || form.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return error_page(&oidc, &id, NoWayBack::Unreadable("the request is too long or not a form"));
    }
    oidc.site.go_on_to(&format!("{}?{form}", crate::paths::AUTHORIZE))
}

/// Maximum length of a request that is redirected to GET: what browsers and proxies carry in a URL.
const MAX_QUERY_BYTES: usize = 8 * 1024;

#[tracing::instrument(name = "oidc.authorize", skip_all)]
async fn endpoint(
    oidc: &Oidc,
    id: &RequestId,
    caller: &ClientInfo,
    headers: &HeaderMap,
    query: &[u8],
) -> Response {
    let parameters = match known(oidc, caller, query).await {
        Ok(parameters) => parameters,
        Err(mistake) => return error_page(oidc, id, mistake),
    };
    let request = match requested(oidc, parameters).await {
        Ok(request) => request,
        Err(InvalidRequest::Here(mistake @ NoWayBack::UnregisteredRedirectUri)) => {
            return compared(oidc, query).on(error_page(oidc, id, mistake));
        }
        Err(InvalidRequest::Here(mistake)) => return error_page(oidc, id, mistake),
        Err(InvalidRequest::There(mistake)) => {
            let issuer = oidc.auth.settings().public_url.issuer();
            let (redirect_uri, state) = (&mistake.redirect_uri, mistake.state.as_deref());
            let omits_error_issuer = mistake.omits_error_issuer;
            let back = WayBack { redirect_uri, mode: mistake.mode, state, issuer, omits_error_issuer };
            return oidc.site.answer(&back.with_error(mistake.error, mistake.description));
        }
    };
    match next(oidc, id, caller, headers, query, LoginTarget::Authorize(Box::new(request))).await {
        Ok(response) => response,
        Err(fault) => oidc.site.fault(&fault, id),
    }
}

/// Maximum number of registered addresses in a log line.
const MOST_COMPARED: usize = 4;

/// The log line for an unregistered address: the received one and the registered ones.
fn compared(oidc: &Oidc, query: &[u8]) -> Denial {
    let parameter = |name: &str| {
        let found = url::form_urlencoded::parse(query).find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let (client_id, came) = (parameter("client_id"), parameter("redirect_uri"));
    let state = oidc.auth.cluster().view();
    let registered = state.client(&client_id).map(|client| {
        let uris = client.redirect_uris.iter().take(MOST_COMPARED);
        uris.map(ToString::to_string).collect::<Vec<_>>().join(" ")
    });
    let registered = registered.unwrap_or_default();
    let detail = format!("redirect_uri {came} is not registered; registered: {registered}");
    Denial::new("redirect_uri_mismatch", detail).of(client_id)
}

/// The parameters, after the client's metadata document was brought up to date.
async fn known(oidc: &Oidc, caller: &ClientInfo, query: &[u8]) -> Result<Parameters, NoWayBack> {
    let parameters = Parameters::parse(query)?;
    if let Some(client_id) = parameters.get("client_id") {
        client_document::bring_up_to_date(oidc, caller.ip, client_id).await?;
    }
    Ok(parameters)
}

/// The request in the browser's own parameters, or the pushed request that they name.
async fn requested(oidc: &Oidc, parameters: Parameters) -> Result<AuthorizationRequest, InvalidRequest> {
    let must_be_pushed = oidc.auth.settings().authorization.require_pushed;
    let direct = RequestContext { pushed: None, must_be_pushed };
    let (parameters, circumstances) = match parameters.get("request_uri").and_then(par::handle_of) {
        Some(handle) => {
            let fetched = par::fetch(oidc, handle, parameters.get("client_id")).await?;
            (fetched.parameters, RequestContext { pushed: Some(fetched.pushed), ..direct })
        }
        None => (read::opened(oidc, parameters).await.map_err(InvalidRequest::Here)?, direct),
    };
    let request = read::validated(oidc, &parameters, circumstances).await?;
    read::hinted(oidc, &parameters, request).await
}

async fn next(
    oidc: &Oidc,
    id: &RequestId,
    client: &ClientInfo,
    headers: &HeaderMap,
    query: &[u8],
    target: LoginTarget,
) -> Result<Response, Fault> {
    let browser = oidc.site.browser(headers)?;
    let visitor = oidc.site.visitor(&browser).await?.from(client.ip);
    let session = visitor.signed_in.as_ref().map(|s| *s.session.id.bytes()).unwrap_or_default();
    let write_key = oidc.site.write_key(headers, &[b"authorize", query, &session]);
    let next = oidc.auth.next(&target, &visitor, &write_key).await;
    let next = next.map_err(|error| fault_of(&error))?;
    Ok(oidc.site.show(next, &browser, id))
}

/// Shows an error page here, never a redirect: there is no verified address to report the error to.
pub(crate) fn error_page(oidc: &Oidc, id: &RequestId, mistake: NoWayBack) -> Response {
    let (code, title, detail) = match mistake {
        NoWayBack::Unavailable => return oidc.site.fault(&fault_of(&AuthError::Unavailable), id),
        NoWayBack::Unreadable(why) => {
            ("bad_request", "The request cannot be read", format!("The application sent a request that cannot be read: {why}."))
        }
        NoWayBack::UnknownClient => (
            "unknown_client",
            "Unknown application",
            "The application that sent you here is not registered. Check its client_id, or ask your administrator.".into(),
        ),
        NoWayBack::Document(why) => (
            "client_document",
            "The application cannot be identified",
            format!("The application that sent you here describes itself by a document, and {why}. Tell the operator of the application."),
        ),
        NoWayBack::DisabledClient => (
            "client_disabled",
            "Application disabled",
            "The application that sent you here has been disabled. Ask your administrator.".into(),
        ),
        NoWayBack::RequestObject(why) => (
            "bad_request_object",
            "The request cannot be trusted",
            format!("The application sent a signed request that is not valid: {why}."),
        ),
        NoWayBack::UnknownRequestUri => (
            "unknown_request_uri",
            "The request has expired",
            "The application's request has expired or was used before. Go back to the application and start again.".into(),
        ),
        NoWayBack::UnregisteredRedirectUri => (
            "redirect_uri_mismatch",
            "Wrong return address",
            "The redirect_uri is not registered for this application. It must match a registered value exactly.".into(),
        ),
    };
    oidc.site.fault(&Fault::new(StatusCode::BAD_REQUEST, code, title, detail), id)
}
