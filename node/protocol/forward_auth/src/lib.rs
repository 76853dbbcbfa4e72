//! Forward-auth: a proxy checks each request to an application here, and receives the user's identity or the address of
//! the sign-in.
//!
//! | file | owns |
//! |---|---|
//! | `address` | the original address, parsed once or refused |
//! | `metadata` | the original request in each proxy's format; refuses every deviation from it |
//! | `check` | the decision, equal for every proxy |
//! | `machine_client` | access tokens and app passwords, for applications that accept them |
//! | `assertion` | the signed proof that an application may require |
//! | `grpc` | the check over gRPC, for Envoy |
//! | `fast_path` | the fast path of the check, when no waiting is needed |
//! | `identity` | the headers of an admitted request, always all of them, and the size limit of the response |
//! | `purpose` | the purpose of a request, from the client's own headers |
//! | `sign_in` | the redirect to the sign-in |
//! | `respond` | the decision as a response for each proxy |
//! | `unknown` | the limit of leader requests about unknown hosts |
//! | `roundtrip` | `/.conclave/…` on the application's host: sign-in and sign-out |
//!
//! Every route also exists below `/outpost.goauthentik.io`, for proxies that were set up for authentik.
//!
//! A check is read-only and local: no write, no network hop (docs/design/consistency.md). It reads nothing from the
//! query string and nothing from peers that are not configured proxies. It never guesses: unreadable input is refused.

mod address;
mod assertion;
mod check;
mod fast_path;
pub mod grpc;
mod identity;
mod machine_client;
mod metadata;
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

use conclave_auth::{Auth, machine_client::AccessTokens, ticket::Mount};
use conclave_http::{ClientInfo, RequestId};
use conclave_web::pages::Site;

use fast_path::HeadCache;
use metadata::{CheckRequest, Dialect};

/// The dependencies of the slice.
#[derive(Clone)]
pub struct ForwardAuth {
    auth: Auth,
    site: Arc<Site>,
    tokens: Arc<dyn AccessTokens>,
    heads: Arc<HeadCache>,
    unknown: Arc<unknown::Questions>,
}

impl ForwardAuth {
    pub fn new(auth: Auth, site: Arc<Site>, tokens: Arc<dyn AccessTokens>) -> Self {
        Self { auth, site, tokens, heads: Arc::default(), unknown: Arc::default() }
    }
}

/// Serves a 503 with the page for an unavailable cluster, for proxies that would otherwise show their own page.
const UNAVAILABLE_PAGE: &str = "/.conclave/unavailable";

/// The dialects below each mount.
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
            let check =
                CheckRequest { dialect, mount, client, method: &method, uri: &uri, headers: &headers };
            answer(&state, &check, &id).await
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

async fn answer(state: &ForwardAuth, check: &CheckRequest<'_>, id: &RequestId) -> Response {
    let original = match metadata::read(check) {
        Ok(original) => original,
        Err(refused) => return respond::unreadable(state, refused, id),
    };
    let decision = check::decide(state, &original, check.headers).await;
    if let Err(refused) = decision.no_aliases(check.headers) {
        return respond::unreadable(state, refused, id);
    }
    respond::to_proxy(state, check.dialect, &original, decision, id)
}
