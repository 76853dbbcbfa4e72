//! The decision: who is it from, and may they open this application. The same for every proxy.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use conclave_state::{State, application::Application};

use crate::{
    auth::{
        AuthError,
        policy::{Asked, Circumstances},
        session::SignedIn,
    },
    http::cookie::{CookieError, CookiePolicy, Cookies},
};

use super::{
    ForwardAuth,
    metadata::{Original, UNTOLD},
};

/// The cookie of an application's own host.
pub const APP: &str = "app";

/// What was decided.
#[derive(Debug)]
pub enum Decision {
    /// Let it through, with these people's headers and what the policy adds.
    Allow { signed_in: SignedIn, application: Arc<Application>, extra: Vec<(HeaderName, HeaderValue)> },
    /// Let it through without asking who it is from: its path needs no sign-in. With the policy's headers, empty.
    Public { extra: Vec<(HeaderName, HeaderValue)> },
    /// Nobody is signed in.
    Unauthenticated,
    /// Somebody is, and may not.
    Forbidden { signed_in: SignedIn, application: Arc<Application>, decision: Option<String> },
    /// No application has this host.
    UnknownHost,
    /// The cookies cannot be told from planted ones.
    BadCookies(CookieError),
    /// This node cannot tell now.
    Unavailable,
}

/// Cookies of an application's host follow the scheme that the browser uses there.
pub fn app_cookie(original_scheme: &str) -> CookiePolicy {
    CookiePolicy::host_only(original_scheme == "https")
}

pub async fn decide(
    state: &ForwardAuth,
    original: &Original,
    address: IpAddr,
    headers: &HeaderMap,
) -> Decision {
    match signed_in(state, original, headers).await {
        Ok(None) => nobody(state, original).await,
        Ok(Some(signed_in)) => judge(state, original, address, signed_in),
        Err(Undecided::Cookies(error)) => Decision::BadCookies(error),
        Err(Undecided::Auth(error)) => {
            if let Some(signed_in) = known(state, original, headers) {
                return judge(state, original, address, signed_in);
            }
            tracing::warn!(%error, "a check could not be decided");
            Decision::Unavailable
        }
    }
}

/// Nobody is signed in: to the login, unless the path needs none.
async fn nobody(state: &ForwardAuth, original: &Original) -> Decision {
    let view = state.auth.cluster().view();
    let host = original.url.host();
    let application = match view.application_by_host(&host) {
        Some(application) if state.auth.is_true_origin(&original.url, application) => application,
        _ => return Decision::UnknownHost,
    };
    if public(state, &view, original, application).is_none() {
        return Decision::Unauthenticated;
    }
    // It may have been taken back meanwhile: what opens is looked at in a version that knows every acknowledged change.
    let Ok(version) = state.auth.cluster().serving_view(0).await else { return Decision::Unavailable };
    let still = version.application_by_host(&host).and_then(|app| public(state, &version, original, app));
    still.unwrap_or(Decision::Unauthenticated)
}

fn judge(state: &ForwardAuth, original: &Original, address: IpAddr, signed_in: SignedIn) -> Decision {
    let Some(application) = signed_in.state.application_by_host(&original.url.host()).cloned() else {
        return Decision::UnknownHost;
    };
    if !state.auth.is_true_origin(&original.url, &application) {
        return Decision::UnknownHost;
    }
    let host = original.url.host();
    let around = Circumstances {
        request: Some(asked(original, &host)),
        ..Circumstances::of_session(&signed_in.session, Some(address))
    };
    let open = public(state, &signed_in.state, original, &application);
    if let (Some(open), false) =
        (open, state.auth.admits(&signed_in.state, &application, &signed_in.user, &around))
    {
        return open;
    }
    let judgement = state.auth.judge(&signed_in.state, &application, &signed_in.user, &around);
    if judgement.allowed {
        Decision::Allow { signed_in, application, extra: judgement.headers }
    } else {
        Decision::Forbidden { signed_in, application, decision: judgement.decision }
    }
}

fn asked<'a>(original: &'a Original, host: &'a str) -> Asked<'a> {
    let method = Some(original.method.as_str()).filter(|method| *method != UNTOLD);
    Asked { method, host, target: &original.url.path }
}

fn public(
    state: &ForwardAuth,
    version: &State,
    original: &Original,
    application: &Application,
) -> Option<Decision> {
    let headers = state.auth.public_headers(version, application, &asked(original, &original.url.host()));
    headers.map(|extra| Decision::Public { extra })
}

enum Undecided {
    Cookies(CookieError),
    Auth(AuthError),
}

impl From<CookieError> for Undecided {
    fn from(error: CookieError) -> Self {
        Self::Cookies(error)
    }
}

impl From<AuthError> for Undecided {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

/// Whom this node knew, for an application whose owner chose so: while the cluster is out of reach, and not for long.
fn known(state: &ForwardAuth, original: &Original, headers: &HeaderMap) -> Option<SignedIn> {
    let host = original.url.host();
    let limit = state.auth.cluster().view().application_by_host(&host)?.serve_known_for_ms;
    if limit == 0 {
        return None;
    }
    let cookies = Cookies::parse(headers).ok()?;
    let own = cookies.get(&app_cookie(&original.url.scheme).name(APP)).ok()?;
    let signed_in = state.auth.known_on_host(own, &host, Duration::from_millis(limit))?;
    tracing::info!("let in on what was known: the cluster is out of reach");
    Some(signed_in)
}

/// The cookie of this host, or the session's own where the browser sends it (a shared parent domain).
async fn signed_in(
    state: &ForwardAuth,
    original: &Original,
    headers: &HeaderMap,
) -> Result<Option<SignedIn>, Undecided> {
    let cookies = Cookies::parse(headers)?;
    let own = cookies.get(&app_cookie(&original.url.scheme).name(APP))?;
    if let Some(signed_in) = state.auth.signed_in_on_host(own, &original.url.host()).await? {
        return Ok(Some(signed_in));
    }
    let session = cookies.get(&state.site.session_cookie_name())?;
    Ok(state.auth.signed_in(session).await?)
}
