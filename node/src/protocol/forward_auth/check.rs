//! The decision: who is it from, and may they open this application. The same for every proxy.

use std::{sync::Arc, time::Duration};

use axum::http::HeaderMap;
use conclave_state::application::Application;

use crate::{
    auth::{AuthError, session::SignedIn},
    crypto::handle::{Handle, HandleKind},
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

/// The decision, when it needs nobody's answer: on a version that this node may decide on by itself, and that knows of all the
/// cookies presented. None: [`decide`] has to wait for something.
pub fn decide_at_once(state: &ForwardAuth, original: &Original, headers: &HeaderMap) -> Option<Decision> {
    let presented = match Presented::read(state, original, headers) {
        Ok(presented) => presented,
        Err(error) => return Some(Decision::BadCookies(error)),
    };
    let view = state.auth.cluster().covered_view()?;
    if presented.index() > view.index() {
        return None;
    }
    let Presented { own, session } = presented;
    let host = &original.host;
    let on_host = own.and_then(|own| state.auth.live_on_host(&view, &own, host));
    let signed_in = on_host.or_else(|| session.and_then(|session| state.auth.live(&view, &session)));
    Some(match signed_in {
        Some(signed_in) => judge(state, original, signed_in),
        None => nobody(state, original),
    })
}

/// The handles that a request brought, opened.
struct Presented {
    own: Option<Handle>,
    session: Option<Handle>,
}

impl Presented {
    fn read(state: &ForwardAuth, original: &Original, headers: &HeaderMap) -> Result<Self, CookieError> {
        let cookies = Cookies::parse(headers)?;
        let opened = |name: &str, kind| {
            let text = cookies.get(name)?;
            Ok(text.and_then(|text| state.auth.parse(kind, text)))
        };
        Ok(Self {
            own: opened(&app_cookie(&original.url.scheme).name(APP), HandleKind::AppSession)?,
            session: opened(&state.site.session_cookie_name(), HandleKind::Session)?,
        })
    }

    /// The least that a version must have seen to know of them.
    fn index(&self) -> u64 {
        let index = |handle: &Option<Handle>| handle.as_ref().map_or(0, |handle| handle.index);
        index(&self.own).max(index(&self.session))
    }
}

pub async fn decide(state: &ForwardAuth, original: &Original, headers: &HeaderMap) -> Decision {
    match signed_in(state, original, headers).await {
        Ok(None) => nobody(state, original),
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

/// Nobody is signed in: worth saying only where there is something to sign in to.
fn nobody(state: &ForwardAuth, original: &Original) -> Decision {
    match state.auth.cluster().view().application_by_host(&original.host) {
        Some(application) if state.auth.is_true_origin(&original.url, application) => {
            Decision::Unauthenticated
        }
        _ => Decision::UnknownHost,
    }
}

fn judge(state: &ForwardAuth, original: &Original, signed_in: SignedIn) -> Decision {
    let Some(application) = signed_in.state.application_by_host(&original.host).cloned() else {
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
    let host = &original.host;
    let limit = state.auth.cluster().view().application_by_host(host)?.serve_known_for_ms;
    if limit == 0 {
        return None;
    }
    let cookies = Cookies::parse(headers).ok()?;
    let own = cookies.get(&app_cookie(&original.url.scheme).name(APP)).ok()?;
    let signed_in = state.auth.known_on_host(own, host, Duration::from_millis(limit))?;
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
    if let Some(signed_in) = state.auth.signed_in_on_host(own, &original.host).await? {
        return Ok(Some(signed_in));
    }
    let session = cookies.get(&state.site.session_cookie_name())?;
    Ok(state.auth.signed_in(session).await?)
}
