//! The fast path of the check: decided before the router, when no waiting and no communication is needed.
//!
//! The decision is that of [`check`](super::check); requests that have to wait take the regular path. The identity
//! headers of a user at an application are built once per version of the state, and copied.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use conclave_state::{
    State,
    application::Application,
    ids::{ApplicationId, UserId},
};

use conclave_auth::{session::SignedIn, ticket::Mount};
use conclave_http::{FastPath, dispatcher, headers::fence_headers, request_id};

use super::{
    CHECKS, ForwardAuth, check, identity,
    metadata::{self, CheckRequest, Dialect},
    respond,
};

impl FastPath for ForwardAuth {
    fn matches(&self, path: &str) -> bool {
        path.starts_with("/auth/") || path.starts_with("/outpost.goauthentik.io/auth/")
    }

    fn answer(&self, request: &dispatcher::ProxyRequest<'_>) -> Option<Response> {
        let (mount, dialect) = question(request.uri.path())?;
        let check = CheckRequest {
            dialect,
            mount,
            client: request.client,
            method: request.method,
            uri: request.uri,
            headers: request.headers,
        };
        // Refusals take the regular path, where the request's span surrounds the log lines.
        let original = metadata::read(&check).ok()?;
        let decision = check::decide_at_once(self, &original, request.headers)?;
        decision.no_aliases(request.headers).ok()?;
        Some(respond::to_proxy(self, dialect, &original, decision, request.id))
    }
}

/// The check that a path belongs to.
fn question(path: &str) -> Option<(Mount, Dialect)> {
    CHECKS.iter().find_map(|(mount, dialects)| {
        let rest = path.strip_prefix(mount.checks())?;
        let asks = |dialect: &&Dialect| {
            rest.strip_prefix(dialect.route()).is_some_and(|original| {
                original.is_empty() || **dialect == Dialect::Envoy && original.starts_with('/')
            })
        };
        Some((*mount, *dialects.iter().find(asks)?))
    })
}

/// Maximum number of entries kept, each of some two KiB.
const MOST_KEPT: usize = 4096;

/// The head of a response that admits a user, without the assertion and the policy's extra headers.
#[derive(Clone, Debug)]
pub(crate) struct ResponseHead {
    pub headers: HeaderMap,
    /// The number of bytes including the status line.
    pub bytes: usize,
}

/// Bytes for the status line of a response, its date, the length of its body and the empty line at its end.
const FRAME_BYTES: usize = 128;

/// The headers for admitted requests in one version of the state; a new version starts empty.
#[derive(Debug, Default)]
pub(crate) struct HeadCache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    of: Option<Arc<State>>,
    by: BTreeMap<(UserId, ApplicationId), ResponseHead>,
}

impl HeadCache {
    /// The whole head of the response that admits this user to this application. `None` if it cannot be written.
    pub(crate) fn head(
        &self,
        auth: &ForwardAuth,
        signed_in: &SignedIn,
        to: &Application,
    ) -> Option<ResponseHead> {
        let key = (signed_in.user.id, to.id);
        // A poisoned lock leaves no partial entry: a head is complete or missing.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &signed_in.state)) || kept.by.len() >= MOST_KEPT
        {
            *kept = Kept { of: Some(Arc::clone(&signed_in.state)), by: BTreeMap::new() };
        }
        if let Some(head) = kept.by.get(&key) {
            return Some(head.clone());
        }
        let mut headers = identity::headers(&auth.auth, signed_in, to)?;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        // A placeholder; each response has its own id.
        headers.insert(request_id::HEADER, HeaderValue::from_static(""));
        fence_headers(&mut headers);
        let bytes = identity::bytes_of(headers.iter()) + FRAME_BYTES;
        let head = ResponseHead { headers, bytes };
        kept.by.insert(key, head.clone());
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_check_that_the_router_has_there_or_none() {
        assert_eq!(question("/auth/traefik"), Some((Mount::Conclave, Dialect::Traefik)));
        assert_eq!(question("/auth/envoy"), Some((Mount::Conclave, Dialect::Envoy)));
        assert_eq!(question("/auth/envoy/a/b"), Some((Mount::Conclave, Dialect::Envoy)));
        assert_eq!(question("/outpost.goauthentik.io/auth/caddy"), Some((Mount::Authentik, Dialect::Caddy)));
        for other in [
            "/auth/traefik/",
            "/auth/traefikx",
            "/auth/envoyx",
            "/auth/nginx/a",
            "/outpost.goauthentik.io/auth/haproxy",
            "/outpost.goauthentik.io",
            "/auth/",
            "/login",
        ] {
            assert_eq!(question(other), None, "{other}");
        }
    }
}
