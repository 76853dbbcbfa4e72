//! Forward-auth: a proxy asks about each request of an application, and learns who it is from or where to send the
//! visitor.
//!
//! | file | owns |
//! |---|---|
//! | `address` | the original address, read once or refused |
//! | `metadata` | one proxy's way of saying what the original request was; refuses everything that is not exactly that |
//! | `check` | the decision, the same for every proxy |
//! | `program` | access tokens and app passwords, where an application takes them |
//! | `assertion` | the signed proof that an application may want |
//! | `grpc` | the same check as Envoy asks over gRPC |
//! | `express` | the same check on the short way, when nothing has to be waited for |
//! | `identity` | the headers that an admitted request carries, always all of them, and the bound of the whole answer |
//! | `purpose` | what the client's own headers say of its request |
//! | `sign_in` | the way to the sign-in |
//! | `respond` | the decision in the words that the proxy understands |
//! | `unknown` | how often the leader is asked about hosts that no application has |
//! | `roundtrip` | `/.conclave/…` on the application's host: sign-in and sign-out |
//!
//! Every route is there a second time below `/outpost.goauthentik.io`, for proxies that were set up for authentik.
//!
//! A check is read-only and local: no write, no hop (design.md §7). It takes nothing from the query string, nothing
//! from peers that are not configured proxies, and guesses at nothing: what cannot be read is refused.

mod address;
mod assertion;
mod check;
mod express;
pub mod grpc;
mod identity;
mod metadata;
mod program;
mod purpose;
mod respond;
mod roundtrip;
mod sign_in;
mod unknown;

pub use assertion::TYP as ASSERTION_TYP;
pub use identity::{MAX_HEAD_BYTES, NAMES as IDENTITY_HEADERS};

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Method, Uri},
    response::Response,
    routing::{any, get},
};

use crate::auth::{Auth, pages::Site, program::AccessTokens, ticket::Mount};
use conclave_http::{ClientInfo, RequestId};

use express::Written;
use metadata::{Asked, Dialect};

/// What the slice stands on.
#[derive(Clone)]
pub struct ForwardAuth {
    auth: Auth,
    site: Arc<Site>,
    tokens: Arc<dyn AccessTokens>,
    written: Arc<Written>,
    unknown: Arc<unknown::Questions>,
}

impl ForwardAuth {
    pub fn new(auth: Auth, site: Arc<Site>, tokens: Arc<dyn AccessTokens>) -> Self {
        Self { auth, site, tokens, written: Arc::default(), unknown: Arc::default() }
    }
}

/// Answers 503 with the page for a cluster that cannot answer, for proxies that would show a page of their own instead.
const UNAVAILABLE_PAGE: &str = "/.conclave/unavailable";

/// What is asked under our own paths, and what under those of the other product.
const CHECKS: [(Mount, &[Dialect]); 2] = [
    (
        Mount::Conclave,
        &[
            Dialect::Traefik,
            Dialect::Caddy,
            Dialect::Nginx,
            Dialect::NginxPage,
            Dialect::Haproxy,
            Dialect::Envoy,
        ],
    ),
    (Mount::Authentik, &[Dialect::Traefik, Dialect::Caddy, Dialect::Nginx, Dialect::Envoy]),
];

/// The slice's routes: the check for each proxy, and the routes on applications' hosts.
pub fn routes(slice: ForwardAuth) -> Router {
    let mut router = Router::new();
    for (mount, dialects) in CHECKS {
        for dialect in dialects {
            router = with_check(router, mount, *dialect);
        }
        let prefix = mount.prefix();
        router = router
            .route(&format!("{prefix}/start"), get(roundtrip::start))
            .route(&format!("{prefix}/callback"), get(roundtrip::callback))
            .route(&mount.sign_out(), get(roundtrip::sign_out));
    }
    router = router.route(UNAVAILABLE_PAGE, get(respond::unavailable_page));
    router.with_state(slice)
}

fn with_check(router: Router<ForwardAuth>, mount: Mount, dialect: Dialect) -> Router<ForwardAuth> {
    let check = any(
        async move |state: State<ForwardAuth>,
                    id: RequestId,
                    client: ClientInfo,
                    method: Method,
                    uri: Uri,
                    headers: HeaderMap| {
            let asked = Asked { dialect, mount, client, method: &method, uri: &uri, headers: &headers };
            answer(&state, &asked, &id).await
        },
    );
    let path = format!("{}{}", mount.checks(), dialect.route());
    if dialect != Dialect::Envoy {
        return router.route(&path, check);
    }
    router
        .route(&path, check.clone())
        .route(&format!("{path}/"), check.clone())
        .route(&format!("{path}/{{*original}}"), check)
}

async fn answer(state: &ForwardAuth, asked: &Asked<'_>, id: &RequestId) -> Response {
    let original = match metadata::read(asked) {
        Ok(original) => original,
        Err(refused) => return respond::unreadable(state, refused, id),
    };
    let decision = check::decide(state, &original, asked.headers).await;
    if let Err(refused) = decision.no_aliases(asked.headers) {
        return respond::unreadable(state, refused, id);
    }
    respond::to_proxy(state, asked.dialect, &original, decision, id)
}
