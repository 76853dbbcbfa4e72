//! RP-initiated logout (OIDC RP-Initiated Logout 1.0). The person is always asked here; where they go afterwards must be
//! registered, to the letter, for the client that the ID token hint or `client_id` names.

use axum::{
    body::Bytes,
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};

use crate::{
    auth::{
        pages::see_other,
        ticket::{Step, Target},
    },
    http::{Fault, RequestId},
};

use super::{Oidc, hint, request::Parameters};

pub async fn by_get(State(oidc): State<Oidc>, id: RequestId, RawQuery(query): RawQuery) -> Response {
    endpoint(&oidc, &id, query.unwrap_or_default().as_bytes()).await
}

pub async fn by_post(State(oidc): State<Oidc>, id: RequestId, body: Bytes) -> Response {
    endpoint(&oidc, &id, &body).await
}

enum Mistake {
    Unreadable,
    BadHint,
    OtherClient,
    UnknownClient,
    UnregisteredUri,
}

async fn endpoint(oidc: &Oidc, id: &RequestId, encoded: &[u8]) -> Response {
    match location(oidc, encoded).await {
        Ok(location) => see_other(&location),
        Err(mistake) => oidc.site.fault(&fault_of(&mistake), id),
    }
}

async fn location(oidc: &Oidc, encoded: &[u8]) -> Result<String, Mistake> {
    let parameters = Parameters::parse(encoded).map_err(|_| Mistake::Unreadable)?;
    let hinted = parameters.get("id_token_hint").map(|hint| hinted_client(oidc, hint)).transpose()?;
    let named = parameters.get("client_id").map(str::to_owned);
    if let (Some(hinted), Some(named)) = (&hinted, &named)
        && hinted != named
    {
        return Err(Mistake::OtherClient);
    }
    let Some(uri) = parameters.get("post_logout_redirect_uri") else { return Ok("/logout".into()) };
    let client_id = hinted.or(named).ok_or(Mistake::UnknownClient)?;
    may_return(oidc, &client_id, uri).await?;
    let uri = with_state(uri, parameters.get("state"));
    // Bound to no browser: a cross-site POST brings no cookie. It only names a place that was checked.
    let ticket = oidc.auth.ticket(Step::Logout, Target::Leave { uri }, None);
    let text = oidc.auth.seal(&ticket).map_err(|_| Mistake::Unreadable)?;
    Ok(format!("/logout?ticket={text}"))
}

/// A client may have been registered, or its addresses changed, a moment ago on another node: before it is refused, the leader is
/// asked.
async fn may_return(oidc: &Oidc, client_id: &str, uri: &str) -> Result<(), Mistake> {
    let refused = match is_registered(&oidc.auth.cluster().view(), client_id, uri) {
        Ok(()) => return Ok(()),
        Err(mistake) => mistake,
    };
    match oidc.auth.cluster().confirmed_view().await {
        Some(state) => is_registered(&state, client_id, uri),
        None => Err(refused),
    }
}

fn is_registered(state: &conclave_state::State, client_id: &str, uri: &str) -> Result<(), Mistake> {
    let client = state.client(client_id).ok_or(Mistake::UnknownClient)?;
    let registered = client.post_logout_redirect_uris.iter().any(|registered| registered == uri);
    if registered { Ok(()) } else { Err(Mistake::UnregisteredUri) }
}

fn hinted_client(oidc: &Oidc, hint: &str) -> Result<String, Mistake> {
    hint::read(oidc, hint).map(|hint| hint.aud).ok_or(Mistake::BadHint)
}

fn with_state(uri: &str, state: Option<&str>) -> String {
    let Some(state) = state else { return uri.to_owned() };
    let joint = if uri.contains('?') { '&' } else { '?' };
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("state", state).finish();
    format!("{uri}{joint}{query}")
}

fn fault_of(mistake: &Mistake) -> Fault {
    let (code, detail) = match mistake {
        Mistake::Unreadable => ("bad_request", "The application's logout request cannot be read."),
        Mistake::BadHint => (
            "bad_id_token_hint",
            "The application's logout request carries an ID token that was not made here.",
        ),
        Mistake::OtherClient => {
            ("client_mismatch", "The application's logout request names another client than its ID token.")
        }
        Mistake::UnknownClient => (
            "unknown_client",
            "The application's logout request does not say which registered application it is.",
        ),
        Mistake::UnregisteredUri => (
            "post_logout_redirect_uri_mismatch",
            "The application asked to send you to an address that is not registered for it.",
        ),
    };
    let detail = format!("{detail} You can still sign out at /logout of this site.");
    Fault::new(StatusCode::BAD_REQUEST, code, "Signing out from the application failed", detail)
}
