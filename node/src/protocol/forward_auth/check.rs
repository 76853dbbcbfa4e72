//! The decision: who is it from, and may they open this application. The same for every proxy.

use std::{sync::Arc, time::Duration};

use axum::http::HeaderMap;
use conclave_state::application::Application;

use crate::{
    auth::{AuthError, session::SignedIn},
    http::cookie::{CookieError, CookiePolicy, Cookies},
};

use super::{ForwardAuth, metadata::Original};

/// The cookie of an application's own host.
pub const APP: &str = "app";

/// What was decided.
#[derive(Debug)]
pub enum Decision {
    /// Let it through, with these people's headers.
    Allow { signed_in: SignedIn, application: Arc<Application> },
    /// Nobody is signed in.
    Unauthenticated,
    /// Somebody is, and may not.
    Forbidden { signed_in: SignedIn, application: Arc<Application> },
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

pub async fn decide(state: &ForwardAuth, original: &Original, headers: &HeaderMap) -> Decision {
    match signed_in(state, original, headers).await {
        Ok(None) => match state.auth.cluster().view().application_by_host(&original.url.host()) {
            Some(application) if state.auth.is_true_origin(&original.url, application) => {
                Decision::Unauthenticated
            }
            _ => Decision::UnknownHost,
        },
        Ok(Some(signed_in)) => judge(state, original, signed_in),
        Err(Undecided::Cookies(error)) => Decision::BadCookies(error),
        Err(Undecided::Auth(error)) => {
            if let Some(signed_in) = known(state, original, headers) {
                return judge(state, original, signed_in);
            }
            tracing::warn!(%error, "a check could not be decided");
            Decision::Unavailable
        }
    }
}

fn judge(state: &ForwardAuth, original: &Original, signed_in: SignedIn) -> Decision {
    let Some(application) = signed_in.state.application_by_host(&original.url.host()).cloned() else {
        return Decision::UnknownHost;
    };
    if !state.auth.is_true_origin(&original.url, &application) {
        return Decision::UnknownHost;
    }
    if application.access.admits(&signed_in.user) {
        Decision::Allow { signed_in, application }
    } else {
        Decision::Forbidden { signed_in, application }
    }
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
