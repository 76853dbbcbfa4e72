//! The check on the short way: decided before the router, when nothing has to be waited for and nobody to be asked.
//!
//! What is decided is what [`check`](super::check) decides on the long way; only what has to wait goes there. The
//! identity headers of a person at an application are made once in each version of the state, and copied.

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

use crate::auth::{session::SignedIn, ticket::Mount};
use conclave_http::{Express, front, headers::fence_headers, request_id};

use super::{
    CHECKS, ForwardAuth, check, identity,
    metadata::{self, Asked, Dialect},
    respond,
};

impl Express for ForwardAuth {
    fn takes(&self, path: &str) -> bool {
        path.starts_with("/auth/") || path.starts_with("/outpost.goauthentik.io/auth/")
    }

    fn answer(&self, asked: &front::Asked<'_>) -> Option<Response> {
        let (mount, dialect) = question(asked.uri.path())?;
        let check = Asked {
            dialect,
            mount,
            client: asked.client,
            method: asked.method,
            uri: asked.uri,
            headers: asked.headers,
        };
        // Refusals are told by the long way, with the request's span around what is logged.
        let original = metadata::read(&check).ok()?;
        let decision = check::decide_at_once(self, &original, asked.headers)?;
        decision.no_aliases(asked.headers).ok()?;
        Some(respond::to_proxy(self, dialect, &original, decision, asked.id))
    }
}

/// Which check a path is the way of.
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

/// Most people at applications kept, of some two KiB each.
const MOST_KEPT: usize = 4096;

/// The head of an answer that lets a user in, without the assertion and the policy's extra headers.
#[derive(Clone, Debug)]
pub struct Head {
    pub headers: HeaderMap,
    /// How many bytes it takes with the status line.
    pub bytes: usize,
}

/// The status line of an answer, its date, the length of its body and the empty line at its end.
const FRAME_BYTES: usize = 128;

/// The headers that admitted requests carry, of one version of the state: another version, and they are made anew.
#[derive(Debug, Default)]
pub struct Written(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    of: Option<Arc<State>>,
    by: BTreeMap<(UserId, ApplicationId), Head>,
}

impl Written {
    /// The whole head of the answer that lets this person into this application. None when it cannot be written.
    pub fn head(&self, auth: &ForwardAuth, signed_in: &SignedIn, to: &Application) -> Option<Head> {
        let key = (signed_in.user.id, to.id);
        // A poisoned lock leaves nothing half done: a head is there or is not.
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
        // Its place; each answer has one of its own.
        headers.insert(request_id::HEADER, HeaderValue::from_static(""));
        fence_headers(&mut headers);
        let bytes = identity::bytes_of(headers.iter()) + FRAME_BYTES;
        let head = Head { headers, bytes };
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
