//! The decision: identifies the user of a request, and decides if they may open the application. It does not depend on
//! the proxy.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use conclave_state::{State, application::Application};

use conclave_auth::{
    AuthError,
    policy::{AppRequest, Circumstances},
    session::SignedIn,
};
use conclave_crypto::handle::{HandleContents, HandleKind};
use conclave_http::cookie::{CookieError, CookiePolicy, Cookies};

use super::{
    ForwardAuth, identity,
    machine_client::{self, MachineAuthentication},
    metadata::{METHOD_UNKNOWN, MetadataError, Original},
};

/// The cookie of an application's own host.
pub(crate) const APP: &str = "app";
/// The cookie of a domain whose hosts share one sign-in (`http.app_domains`).
pub(crate) const APP_OF_DOMAIN: &str = "app_domain";

/// The result of a check.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Allow the request, adding the user's identity headers and the policy's extra headers.
    Allow {
        signed_in: SignedIn,
        application: Arc<Application>,
        credential: Credential,
        extra: Vec<(HeaderName, HeaderValue)>,
    },
    /// Allow the request without identifying a user, because its path needs no sign-in. The policy's headers are added,
    /// empty.
    Public { extra: Vec<(HeaderName, HeaderValue)> },
    /// No user is signed in. `refused` is true if a machine client sent credentials that are not accepted.
    Unauthenticated { application: Arc<Application>, refused: bool },
    /// The user is signed in, but may not open the application.
    Forbidden { signed_in: SignedIn, application: Arc<Application>, decision: Option<String> },
    /// No application has this host.
    UnknownHost,
    /// An application has this host, but at another scheme or port.
    WrongOrigin { application: Arc<Application> },
    /// The cookies cannot be distinguished from planted ones.
    BadCookies(CookieError),
    /// This node cannot decide now, for a reason that is logged.
    Unavailable { why: String },
}

impl Decision {
    /// The extra headers that the policy adds to an admitted request.
    pub(crate) fn extra(&self) -> &[(HeaderName, HeaderValue)] {
        match self {
            Self::Allow { extra, .. } | Self::Public { extra } => extra,
            _ => &[],
        }
    }

    /// Refuses a request with a header that the application could read as one of the policy's extra headers, which are
    /// known only after the decision.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub(crate) fn no_aliases(&self, headers: &HeaderMap) -> Result<(), MetadataError> {
        let names: Vec<_> = self.extra().iter().map(|(name, _)| name.clone()).collect();
        let is_alias = |name: &HeaderName| identity::is_look_alike(name.as_str(), &names);
        if !names.is_empty() && headers.keys().any(is_alias) {
            return Err(MetadataError::Alias("an extra header of the policy"));
        }
        Ok(())
    }
}

/// The kind of credential that admitted the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A cookie.
    Session,
    /// A machine client's `Authorization` header, which is then for us and not for the application.
    Token,
}

/// The policy for cookies of an application's host: they follow the scheme that the browser uses there.
pub(crate) fn app_cookie(original_scheme: &str) -> CookiePolicy {
    CookiePolicy::host_only(original_scheme == "https")
}

/// The decision, if it needs no communication: on a version that this node may decide on by itself, and that includes
/// all the cookies presented. `None` if [`decide`] has to wait.
#[tracing::instrument(name = "forward_auth.check_at_once", skip_all, level = "debug")]
pub(crate) fn decide_at_once(
    state: &ForwardAuth,
    original: &Original,
    headers: &HeaderMap,
) -> Option<Decision> {
    let presented = match Presented::read(state, original, headers) {
        Ok(presented) => presented,
        Err(error) => return Some(Decision::BadCookies(error)),
    };
    let view = state.auth.cluster().covered_view()?;
    if presented.index() > view.index() {
        return None;
    }
    if let Some(signed_in) = presented.who(state, &view, &original.host) {
        return Some(judge(state, original, signed_in, Credential::Session));
    }
    match protected(state, &view, original) {
        Some(application) if machine_client::has_credentials(application.check, headers) => None,
        Some(application) => Some(visitor(state, &view, original, application)),
        None => Some(unprotected(&view, original)),
    }
}

/// The decision about a host where this version has no protected application.
fn unprotected(version: &State, original: &Original) -> Decision {
    match version.application_by_host(&original.host) {
        Some(application) => Decision::WrongOrigin { application: Arc::clone(application) },
        None => Decision::UnknownHost,
    }
}

/// The handles in a request, opened: of the host, of its domain, and of the session itself if browsers send that cookie
/// here.
struct Presented {
    app_sessions: [Option<HandleContents>; 2],
    session: Option<HandleContents>,
}

impl Presented {
    /// Reads the cookies.
    ///
    /// # Errors
    /// Fails if the cookies cannot be distinguished from planted ones.
    fn read(state: &ForwardAuth, original: &Original, headers: &HeaderMap) -> Result<Self, CookieError> {
        let cookies = Cookies::of(headers);
        let opened = |kind, text: Option<&str>| text.and_then(|text| state.auth.parse(kind, text));
        let scheme = &original.url.scheme;
        let of_domain = match domain_cookie(state, scheme, &original.host) {
            Some(policy) => cookies.ours(&policy, APP_OF_DOMAIN)?,
            None => None,
        };
        let of_host = cookies.ours(&app_cookie(scheme), APP)?;
        Ok(Self {
            app_sessions: [of_host, of_domain].map(|text| opened(HandleKind::AppSession, text)),
            session: opened(HandleKind::Session, state.site.session_in(&cookies)?),
        })
    }

    fn handles(&self) -> impl Iterator<Item = &HandleContents> {
        self.app_sessions.iter().chain([&self.session]).flatten()
    }

    /// The lowest index at which a version includes all of them.
    fn index(&self) -> u64 {
        self.handles().map(|handle| handle.index).max().unwrap_or(0)
    }

    /// The user of the first live handle.
    fn who(&self, state: &ForwardAuth, view: &Arc<State>, host: &str) -> Option<SignedIn> {
        let mut app_sessions = self.app_sessions.iter().flatten();
        let on_host = app_sessions.find_map(|handle| state.auth.live_on_host(view, handle, host));
        on_host.or_else(|| self.session.as_ref().and_then(|session| state.auth.live(view, session)))
    }
}

/// The cookie policy of the domain with which this host shares a sign-in, if there is one.
pub(crate) fn domain_cookie(state: &ForwardAuth, original_scheme: &str, host: &str) -> Option<CookiePolicy> {
    let domain = state.auth.app_domain(host)?;
    Some(CookiePolicy::for_domain(original_scheme == "https", domain))
}

#[tracing::instrument(name = "forward_auth.check", skip_all, level = "debug")]
pub(crate) async fn decide(state: &ForwardAuth, original: &Original, headers: &HeaderMap) -> Decision {
    match signed_in(state, original, headers).await {
        Ok(None) => without_session(state, original, headers).await,
        Ok(Some(signed_in)) => judge(state, original, signed_in, Credential::Session),
        Err(Undecided::Cookies(error)) => Decision::BadCookies(error),
        Err(Undecided::Auth(error)) => {
            if let Some(signed_in) = known(state, original, headers) {
                return judge(state, original, signed_in, Credential::Session);
            }
            unavailable(&error)
        }
    }
}

fn unavailable(error: &AuthError) -> Decision {
    Decision::Unavailable { why: error.to_string() }
}

/// The decision without a session: a machine client may have sent other credentials.
async fn without_session(state: &ForwardAuth, original: &Original, headers: &HeaderMap) -> Decision {
    let application = match confirmed(state, original).await {
        Ok(Some(application)) => application,
        Ok(None) => return unprotected(&state.auth.cluster().view(), original),
        Err(error) => return unavailable(&error),
    };
    match machine_client::authenticate(state, original, &application, headers).await {
        Ok(MachineAuthentication::SignedIn(signed_in)) => {
            judge(state, original, signed_in, Credential::Token)
        }
        Ok(MachineAuthentication::Nothing) => nobody(state, original, application).await,
        // On a public path the credentials may be for the application itself.
        Ok(MachineAuthentication::Refused) => match nobody(state, original, application).await {
            Decision::Unauthenticated { application, .. } => {
                Decision::Unauthenticated { application, refused: true }
            }
            other => other,
        },
        Err(error) => unavailable(&error),
    }
}

/// The application at this host in this version, if the request has its true origin.
fn protected(state: &ForwardAuth, version: &State, original: &Original) -> Option<Arc<Application>> {
    let found = version.application_by_host(&original.host)?;
    state.auth.is_true_origin(&original.url, found).then(|| Arc::clone(found))
}

/// The application at this host. Its absence is reported only from a version with every acknowledged change: an
/// application may have been created at another node a moment ago (docs/design/README.md, P5).
async fn confirmed(state: &ForwardAuth, original: &Original) -> Result<Option<Arc<Application>>, AuthError> {
    let cluster = state.auth.cluster();
    if let Some(application) = protected(state, &cluster.view(), original) {
        return Ok(Some(application));
    }
    let version = match cluster.covered_view() {
        Some(version) => version,
        None if state.unknown.may_ask(&original.host, state.auth.runtime().clock.monotonic()) => {
            cluster.serving_view(0).await?
        }
        None => return Err(AuthError::Busy),
    };
    Ok(protected(state, &version, original))
}

/// The decision without a user: sign-in required, unless the path is public.
async fn nobody(state: &ForwardAuth, original: &Original, application: Arc<Application>) -> Decision {
    let view = state.auth.cluster().view();
    if public(state, &view, original, &application).is_none() {
        return visitor(state, &view, original, application);
    }
    // The path may have been closed meanwhile, so it is opened only by a version with every acknowledged change.
    let version = match state.auth.cluster().serving_view(0).await {
        Ok(version) => version,
        Err(error) => return unavailable(&error.into()),
    };
    match version.application_by_host(&original.host).cloned() {
        Some(application) => visitor(state, &version, original, application),
        None => Decision::Unauthenticated { application, refused: false },
    }
}

/// The decision without a user, in this version of the state.
fn visitor(
    state: &ForwardAuth,
    version: &State,
    original: &Original,
    application: Arc<Application>,
) -> Decision {
    let open = public(state, version, original, &application);
    state.auth.watch_visitor(version, &application, &app_request(original), open.is_some());
    open.unwrap_or(Decision::Unauthenticated { application, refused: false })
}

/// The decision for a path that is public in this version of the state; `None` for any other.
fn public(
    state: &ForwardAuth,
    version: &State,
    original: &Original,
    application: &Application,
) -> Option<Decision> {
    let headers = state.auth.public_headers(version, application, &app_request(original));
    headers.map(|extra| Decision::Public { extra })
}

fn app_request(original: &Original) -> AppRequest<'_> {
    let is_certain = |method: &&str| *method != METHOD_UNKNOWN && !original.method_in_doubt;
    let method = Some(original.method.as_str()).filter(is_certain);
    AppRequest { method, host: &original.host, target: &original.url.path }
}

fn judge(state: &ForwardAuth, original: &Original, signed_in: SignedIn, credential: Credential) -> Decision {
    let Some(application) = signed_in.state.application_by_host(&original.host).cloned() else {
        return Decision::UnknownHost;
    };
    if !state.auth.is_true_origin(&original.url, &application) {
        return Decision::WrongOrigin { application };
    }
    let around = Circumstances {
        request: Some(app_request(original)),
        ..Circumstances::of_session(&signed_in.session, Some(original.address))
    };
    if let Some(open) = public(state, &signed_in.state, original, &application)
        && !state.auth.admits(&signed_in.state, &application, &signed_in.user, &around)
    {
        state.auth.watch(&signed_in.state, &application, &signed_in.user, &around, true);
        return open;
    }
    let judgement = state.auth.judge(&signed_in.state, &application, &signed_in.user, &around);
    if judgement.allowed {
        Decision::Allow { signed_in, application, credential, extra: judgement.headers }
    } else {
        Decision::Forbidden { signed_in, application, decision: judgement.decision }
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

/// The user as last known to this node, for an application whose owner enabled this: while the cluster is unreachable,
/// and only for a limited time.
fn known(state: &ForwardAuth, original: &Original, headers: &HeaderMap) -> Option<SignedIn> {
    let host = &original.host;
    let limit = state.auth.cluster().view().application_by_host(host)?.serve_known_for_ms;
    if limit == 0 {
        return None;
    }
    let presented = Presented::read(state, original, headers).ok()?;
    let view = state.auth.cluster().known_view(Duration::from_millis(limit))?;
    if view.index() < presented.index() {
        return None;
    }
    let signed_in = presented
        .app_sessions
        .iter()
        .flatten()
        .find_map(|handle| state.auth.live_on_host(&view, handle, host))?;
    tracing::info!("a request was admitted by an earlier state: the cluster is unreachable");
    Some(signed_in)
}

/// The signed-in user, from a version that includes the presented handles. A handle that is ahead of the whole cluster
/// belongs to another history and is ignored.
async fn signed_in(
    state: &ForwardAuth,
    original: &Original,
    headers: &HeaderMap,
) -> Result<Option<SignedIn>, Undecided> {
    let presented = Presented::read(state, original, headers)?;
    for handle in presented.handles() {
        let Some(view) = state.auth.state_at(handle).await? else { continue };
        let found = match handle.kind {
            HandleKind::AppSession => state.auth.live_on_host(&view, handle, &original.host),
            _ => state.auth.live(&view, handle),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
