//! Forward-auth: a proxy asks about each request of an application, and learns who it is from or where to send the visitor.
//!
//! | file | owns |
//! |---|---|
//! | `metadata` | one proxy's way of saying what the original request was; refuses everything that is not exactly that |
//! | `check` | the decision, the same for every proxy |
//! | `identity` | the headers that an admitted request carries, always all of them |
//! | `respond` | the decision in the words that the proxy understands |
//! | `roundtrip` | `/.conclave/…` on the application's host: sign-in and sign-out |
//!
//! A check is read-only and local: no write, no hop (design.md §7). It takes nothing from the query string, nothing from peers
//! that are not configured proxies, and guesses at nothing: what cannot be read is refused.

mod check;
mod identity;
mod metadata;
mod respond;
mod roundtrip;

pub use identity::NAMES as IDENTITY_HEADERS;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Method},
    response::Response,
    routing::{any, get},
};

use crate::{
    auth::{Auth, handover::PREFIX, pages::Site},
    http::{ClientInfo, RequestId},
};

use metadata::Dialect;

/// What the slice stands on.
#[derive(Clone)]
pub struct ForwardAuth {
    auth: Auth,
    site: Arc<Site>,
}

/// The slice's routes: the check for each proxy, and the routes on applications' hosts.
pub fn routes(auth: Auth, site: Arc<Site>) -> Router {
    Router::new()
        .route("/auth/traefik", any(traefik))
        .route("/auth/caddy", any(caddy))
        .route("/auth/nginx", any(nginx))
        .route(&format!("{PREFIX}/start"), get(roundtrip::start))
        .route(&format!("{PREFIX}/callback"), get(roundtrip::callback))
        .route(&format!("{PREFIX}/sign-out"), get(roundtrip::sign_out))
        .with_state(ForwardAuth { auth, site })
}

async fn traefik(
    state: State<ForwardAuth>,
    id: RequestId,
    client: ClientInfo,
    method: Method,
    headers: HeaderMap,
) -> Response {
    answer(&state, Dialect::Traefik, &id, client, &method, &headers).await
}

async fn caddy(
    state: State<ForwardAuth>,
    id: RequestId,
    client: ClientInfo,
    method: Method,
    headers: HeaderMap,
) -> Response {
    answer(&state, Dialect::Caddy, &id, client, &method, &headers).await
}

async fn nginx(
    state: State<ForwardAuth>,
    id: RequestId,
    client: ClientInfo,
    method: Method,
    headers: HeaderMap,
) -> Response {
    answer(&state, Dialect::Nginx, &id, client, &method, &headers).await
}

async fn answer(
    state: &ForwardAuth,
    dialect: Dialect,
    id: &RequestId,
    client: ClientInfo,
    method: &Method,
    headers: &HeaderMap,
) -> Response {
    // The auth request itself is a GET or HEAD in these three dialects; anything else is no proxy of ours.
    let original = match metadata::read(dialect, client, method, headers) {
        Ok(original) => original,
        Err(refused) => return respond::unreadable(state, refused, id),
    };
    let decision = check::decide(state, &original, headers).await;
    respond::to_proxy(state, dialect, &original, decision, id)
}
