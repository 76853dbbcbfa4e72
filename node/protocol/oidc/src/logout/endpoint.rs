//! RP-initiated logout (OIDC RP-Initiated Logout 1.0). A valid ID token of the browser's session ends that session,
//! whatever else is wrong with the request; so does its `sid` as `logout_hint`. Otherwise the user must confirm. The
//! address to return to must equal a registered one of the client that the hint or `client_id` names.

use axum::{
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::{Deserialize, Serialize};

use conclave_auth::{
    AuthError,
    ticket::{LoginStep, LoginTarget},
};
use conclave_http::{Fault, RequestId};
use conclave_web::pages::{fault_of as fault_of_auth, fault_of_ticket, see_other};

use crate::Oidc;
use crate::authorization::hint::{self, Hint, Unread};
use crate::authorization::request::Parameters;

/// The purpose that the seal of a posted request is bound to.
const PURPOSE: &str = "logout-request/1";
/// The parameter that carries such a request in the GET.
const POSTED: &str = "posted";

pub(crate) async fn by_get(
    State(oidc): State<Oidc>,
    id: RequestId,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let result = async {
        let request = parse_request(&oidc, query.unwrap_or_default().as_bytes()).await?;
        answer(&oidc, &id, &headers, request, false).await
    };
    result.await.unwrap_or_else(|fault| oidc.site.fault(&fault, &id))
}

/// The body is read here, up to the limit of a body. A cross-site POST carries no SameSite=Lax cookie. If the browser
/// presents no session that the request is part of, it is redirected to GET with the parsed request: an ID token may be
/// longer than a URL.
pub(crate) async fn by_post(
    State(oidc): State<Oidc>,
    id: RequestId,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let result = async {
        let request = parse_request(&oidc, &body).await?;
        answer(&oidc, &id, &headers, request, true).await
    };
    let result = result.await;
    oidc.site.formed(&headers, result, &id)
}

/// A relying party's logout request, checked.
#[derive(Debug, Serialize, Deserialize)]
struct LogoutRequest {
    /// The session that the relying party proved to be part of.
    sid: Option<String>,
    /// The address to which the user returns.
    target: Option<LoginTarget>,
    /// The reason why the user does not return, although the relying party named an address.
    mistake: Option<Mistake>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Mistake {
    OtherClient,
    UnknownClient,
    /// The requested address.
    UnregisteredUri(String),
}

async fn parse_request(oidc: &Oidc, encoded: &[u8]) -> Result<LogoutRequest, Fault> {
    let parameters = Parameters::parse(encoded).map_err(|_| unreadable())?;
    if let Some(text) = parameters.get(POSTED) {
        return oidc.auth.open_sealed(PURPOSE, text).map_err(fault_of_ticket);
    }
    let hint = match parameters.get("id_token_hint") {
        Some(token) => read(oidc, token).await?,
        None => None,
    };
    let sid = hint.as_ref().and_then(|hint| hint.sid.clone());
    let sid = sid.or_else(|| parameters.get("logout_hint").map(str::to_owned));
    let (target, mistake) = match target(oidc, &parameters, hint.as_ref()).await? {
        Ok(target) => (target, None),
        Err(mistake) => (None, Some(mistake)),
    };
    Ok(LogoutRequest { sid, target, mistake })
}

/// A hint that was not made here is ignored: the user must confirm.
async fn read(oidc: &Oidc, token: &str) -> Result<Option<Hint>, Fault> {
    match hint::read(oidc, token).await {
        Ok(hint) => Ok(Some(hint)),
        Err(Unread::Foreign) => {
            tracing::info!(
                "a logout request carries an ID token that was not made here; the user must confirm"
            );
            Ok(None)
        }
        Err(Unread::Unavailable) => Err(fault_of_auth(&AuthError::Unavailable)),
    }
}

/// The address to return to, if one is named and registered.
async fn target(
    oidc: &Oidc,
    parameters: &Parameters,
    hint: Option<&Hint>,
) -> Result<Result<Option<LoginTarget>, Mistake>, Fault> {
    let named = parameters.get("client_id");
    if hint.zip(named).is_some_and(|(hint, named)| hint.aud != named) {
        return Ok(Err(Mistake::OtherClient));
    }
    let Some(uri) = parameters.get("post_logout_redirect_uri") else { return Ok(Ok(None)) };
    let Some(client_id) = hint.map(|hint| hint.aud.as_str()).or(named) else {
        // With a hint that cannot be parsed the client is unknown. The user must confirm, and stays here.
        let unread = parameters.get("id_token_hint").is_some();
        return Ok(if unread { Ok(None) } else { Err(Mistake::UnknownClient) });
    };
    let registered = may_return(oidc, client_id, uri).await?;
    let uri = with_state(uri, parameters.get("state"));
    Ok(registered.map(|()| Some(LoginTarget::Leave { uri })))
}

/// Answers the request. An ID token of this very session proves that the relying party is part of it, and no
/// confirmation is needed. Without one an attacker could have sent the browser here, so the user must confirm.
#[tracing::instrument(name = "oidc.logout", skip_all)]
async fn answer(
    oidc: &Oidc,
    id: &RequestId,
    headers: &HeaderMap,
    request: LogoutRequest,
    by_form: bool,
) -> Result<Response, Fault> {
    let site = &oidc.site;
    let browser = site.browser(headers)?;
    let visitor = site.visitor(&browser).await?;
    let hinted = request.sid.as_deref();
    let own = visitor.signed_in.filter(|s| hinted.is_some_and(|sid| sid == s.session.id.to_string()));
    if let Some(signed_in) = own {
        let frames = site.sign_out(headers, &signed_in).await.map_err(|e| fault_of_auth(&e))?;
        return Ok(match request.mistake {
            // The session has ended; the wrong address only concerns the way on.
            Some(mistake) if by_form => {
                site.without_session(site.formed(headers, Err(signed_out_but(&mistake)), id))
            }
            Some(mistake) => site.without_session(site.fault(&signed_out_but(&mistake), id)),
            None if by_form => site.signed_out_by_form(request.target.as_ref(), &frames, &browser),
            None => site.signed_out(request.target.as_ref(), &frames),
        });
    }
    if by_form {
        let text = oidc.auth.seal_for_browser(PURPOSE, &request).map_err(|e| fault_of_auth(&e))?;
        return Ok(site.go_on_to(&format!("{}?{POSTED}={text}", crate::paths::LOGOUT)));
    }
    if let Some(mistake) = request.mistake {
        return Err(fault_of(&mistake));
    }
    let Some(target) = request.target else { return Ok(see_other("/logout")) };
    // Not bound to a browser: it only names a checked address.
    let ticket = oidc.auth.ticket(LoginStep::Logout, target, None);
    let text = oidc.auth.seal(&ticket).map_err(|e| fault_of_auth(&e))?;
    Ok(site.go_on_to(&format!("/logout?ticket={text}")))
}

/// Checks the address. The client may have been registered, or its addresses changed, a moment ago on another node, so
/// the leader is consulted before the address is refused.
async fn may_return(oidc: &Oidc, client_id: &str, uri: &str) -> Result<Result<(), Mistake>, Fault> {
    let unavailable = || fault_of_auth(&AuthError::Unavailable);
    let state = oidc.auth.cluster().serving_view(0).await.map_err(|_| unavailable())?;
    if is_registered(&state, client_id, uri).is_ok() {
        return Ok(Ok(()));
    }
    match oidc.auth.cluster().confirmed_view().await {
        Some(state) => Ok(is_registered(&state, client_id, uri)),
        None => Err(unavailable()),
    }
}

fn is_registered(state: &conclave_state::State, client_id: &str, uri: &str) -> Result<(), Mistake> {
    let client = state.client(client_id).filter(|client| !client.disabled);
    let client = client.ok_or(Mistake::UnknownClient)?;
    let registered = client.post_logout_redirect_uris.iter().any(|registered| registered == uri);
    if registered { Ok(()) } else { Err(Mistake::UnregisteredUri(uri.to_owned())) }
}

fn with_state(uri: &str, state: Option<&str>) -> String {
    let Some(state) = state else { return uri.to_owned() };
    let joint = if uri.contains('?') { '&' } else { '?' };
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("state", state).finish();
    format!("{uri}{joint}{query}")
}

impl Mistake {
    /// The error code, and a description of the application's mistake.
    fn words(&self) -> (&'static str, String) {
        match self {
            Self::OtherClient => (
                "client_mismatch",
                "The application's logout request names another client than its ID token.".into(),
            ),
            Self::UnknownClient => (
                "unknown_client",
                "The application's logout request does not say which registered application it is.".into(),
            ),
            Self::UnregisteredUri(uri) => (
                "post_logout_redirect_uri_mismatch",
                format!(
                    "The application asked to send you to {uri}, which is not registered for it. A post-logout address must equal a \
                     registered one exactly."
                ),
            ),
        }
    }
}

/// The session has ended; the user stays here.
fn signed_out_but(mistake: &Mistake) -> Fault {
    let (code, detail) = mistake.words();
    Fault::new(StatusCode::BAD_REQUEST, code, "You are signed out", detail)
        .with_way_on("/login", "Sign in again")
}

/// Nothing has ended: the request proved no session of this browser.
fn fault_of(mistake: &Mistake) -> Fault {
    let (code, detail) = mistake.words();
    Fault::new(StatusCode::BAD_REQUEST, code, "Signing out from the application failed", detail)
        .with_way_on("/logout", "Sign out here")
}

fn unreadable() -> Fault {
    let detail = "The application's logout request cannot be read.";
    Fault::new(StatusCode::BAD_REQUEST, "bad_request", "Signing out from the application failed", detail)
        .with_way_on("/logout", "Sign out here")
}
