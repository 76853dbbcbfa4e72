//! RP-initiated logout (OIDC RP-Initiated Logout 1.0). The person is asked, unless the ID token hint is of the session that ends;
//! where they go afterwards must be registered, to the letter, for the client that the hint or `client_id` names.

use axum::{
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};

use crate::{
    auth::{
        AuthError,
        pages::{fault_of as fault_of_auth, see_other},
        ticket::{Step, Target},
    },
    http::{Fault, RequestId},
};

use super::{
    Oidc,
    hint::{self, Hint, Unread},
    request::Parameters,
};

pub async fn by_get(
    State(oidc): State<Oidc>,
    id: RequestId,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let result = match asked(&oidc, query.unwrap_or_default().as_bytes()).await {
        Ok(asked) => answer(&oidc, &headers, asked).await,
        Err(mistake) => Err(fault_of(&mistake)),
    };
    result.unwrap_or_else(|fault| oidc.site.fault(&fault, &id))
}

/// A cross-site POST brings no SameSite=Lax cookie, so the browser is sent round by GET first.
pub async fn by_post(State(oidc): State<Oidc>, id: RequestId, body: Bytes) -> Response {
    let form = std::str::from_utf8(&body).ok();
    let form = form.filter(|f| f.len() <= MAX_QUERY_BYTES && f.bytes().all(|b| b.is_ascii_graphic()));
    match form {
        Some(form) => see_other(&format!("{}?{form}", super::paths::LOGOUT)),
        None => oidc.site.fault(&fault_of(&Mistake::Unreadable), &id),
    }
}

/// Longest request that is sent round by GET: what browsers and proxies carry in a URL.
const MAX_QUERY_BYTES: usize = 8 * 1024;

enum Mistake {
    Unreadable,
    BadHint,
    OtherClient,
    UnknownClient,
    UnregisteredUri,
    Unavailable,
}

/// What a relying party asks for, checked.
struct Asked {
    hint: Option<Hint>,
    /// Where the person goes afterwards.
    target: Option<Target>,
}

async fn asked(oidc: &Oidc, encoded: &[u8]) -> Result<Asked, Mistake> {
    let parameters = Parameters::parse(encoded).map_err(|_| Mistake::Unreadable)?;
    let hint = match parameters.get("id_token_hint") {
        Some(token) => Some(hint::read(oidc, token).await.map_err(|unread| match unread {
            Unread::Foreign => Mistake::BadHint,
            Unread::Unavailable => Mistake::Unavailable,
        })?),
        None => None,
    };
    let named = parameters.get("client_id");
    if hint.as_ref().zip(named).is_some_and(|(hint, named)| hint.aud != named) {
        return Err(Mistake::OtherClient);
    }
    let Some(uri) = parameters.get("post_logout_redirect_uri") else {
        return Ok(Asked { hint, target: None });
    };
    let client_id = hint.as_ref().map(|hint| hint.aud.as_str()).or(named).ok_or(Mistake::UnknownClient)?;
    may_return(oidc, client_id, uri).await?;
    let uri = with_state(uri, parameters.get("state"));
    Ok(Asked { hint, target: Some(Target::Leave { uri }) })
}

/// With an ID token of this very session the relying party has shown that it is part of it, and nobody need be asked. Anyone else
/// could have made the person come here, so they are.
async fn answer(oidc: &Oidc, headers: &HeaderMap, asked: Asked) -> Result<Response, Fault> {
    let browser = oidc.site.browser(headers)?;
    let visitor = oidc.site.visitor(&browser).await?;
    let hinted = asked.hint.and_then(|hint| hint.sid);
    let own = visitor.signed_in.filter(|s| hinted.is_some_and(|sid| sid == s.session.id.to_string()));
    if let Some(signed_in) = own {
        let frames = oidc.site.sign_out(headers, &signed_in).await.map_err(|e| fault_of_auth(&e))?;
        return Ok(oidc.site.signed_out(asked.target.as_ref(), &frames));
    }
    let Some(target) = asked.target else { return Ok(see_other("/logout")) };
    // Bound to no browser: it only names a place that was checked.
    let ticket = oidc.auth.ticket(Step::Logout, target, None);
    let text = oidc.auth.seal(&ticket).map_err(|e| fault_of_auth(&e))?;
    Ok(see_other(&format!("/logout?ticket={text}")))
}

/// A client may have been registered, or its addresses changed, a moment ago on another node: before it is refused, the leader is
/// asked.
async fn may_return(oidc: &Oidc, client_id: &str, uri: &str) -> Result<(), Mistake> {
    let state = oidc.auth.cluster().serving_view(0).await.map_err(|_| Mistake::Unavailable)?;
    if is_registered(&state, client_id, uri).is_ok() {
        return Ok(());
    }
    match oidc.auth.cluster().confirmed_view().await {
        Some(state) => is_registered(&state, client_id, uri),
        None => Err(Mistake::Unavailable),
    }
}

fn is_registered(state: &conclave_state::State, client_id: &str, uri: &str) -> Result<(), Mistake> {
    let client = state.client(client_id).filter(|client| !client.disabled);
    let client = client.ok_or(Mistake::UnknownClient)?;
    let registered = client.post_logout_redirect_uris.iter().any(|registered| registered == uri);
    if registered { Ok(()) } else { Err(Mistake::UnregisteredUri) }
}

fn with_state(uri: &str, state: Option<&str>) -> String {
    let Some(state) = state else { return uri.to_owned() };
    let joint = if uri.contains('?') { '&' } else { '?' };
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("state", state).finish();
    format!("{uri}{joint}{query}")
}

fn fault_of(mistake: &Mistake) -> Fault {
    let (code, detail) = match mistake {
        Mistake::Unavailable => return fault_of_auth(&AuthError::Unavailable),
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
