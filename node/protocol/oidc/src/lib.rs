//! OpenID Provider: discovery, JWKS, authorization code with PKCE, pushed requests, devices, token (code, refresh,
//! client credentials, exchange), DPoP, userinfo, introspection, revocation, RP-initiated and back-channel logout,
//! registration.
//!
//! Owns the parsing and the errors of these endpoints. Refuses everything else by its OAuth name: no implicit or hybrid
//! response, no password grant, no `plain` challenge, no request object from a client without registered keys, no
//! foreign `request_uri`. It makes no decisions about users, which `auth` does, and none about single use, which the
//! rules do.
//!
//! Writes per flow (docs/design/consistency.md): login with code 1 (in `auth::complete`), code for a session 1,
//! redemption 1, refresh 1, revocation 1, pushed request 1, device 3 (request, answer, redemption; polling none);
//! client credentials, exchange and introspection 0, userinfo 0; of the last four each 1 if a proof (DPoP, assertion)
//! must be spent.

mod authorization;
mod clients;
mod error;
mod form;
mod grant_type;
mod head;
mod keys;
mod logout;
mod token;
mod userinfo;

use std::sync::Arc;

pub use logout::backchannel::Announcer;
pub use userinfo::bearer::access_tokens;

use axum::{
    Router,
    middleware::map_response,
    routing::{get, post},
};

use conclave_auth::Auth;
use conclave_web::pages::Site;

/// The paths of the endpoints. Relying parties find them through discovery; they are stable all the same.
pub mod paths {
    pub const DISCOVERY: &str = "/.well-known/openid-configuration";
    pub const METADATA: &str = "/.well-known/oauth-authorization-server";
    pub const JWKS: &str = "/oidc/jwks";
    pub const AUTHORIZE: &str = "/oidc/authorize";
    pub const PUSH: &str = "/oidc/par";
    pub const DEVICE: &str = "/oidc/device_authorization";
    pub const REGISTER: &str = "/oidc/register";
    pub const REGISTERED: &str = "/oidc/register/{client_id}";
    pub const TOKEN: &str = "/oidc/token";
    pub const USERINFO: &str = "/oidc/userinfo";
    pub const INTROSPECT: &str = "/oidc/introspect";
    pub const REVOKE: &str = "/oidc/revoke";
    pub const LOGOUT: &str = "/oidc/logout";
}

/// The dependencies of the endpoints.
#[derive(Clone)]
pub struct Oidc {
    auth: Auth,
    site: Arc<Site>,
    polls: Arc<token::polls::Polls>,
    documents: Arc<clients::document::Documents>,
}

/// The slice's routes.
pub fn routes(auth: Auth, site: Arc<Site>) -> Router {
    let polls = Arc::new(token::polls::Polls::new(auth.runtime().clone()));
    let for_machines = Router::new()
        .route(paths::DISCOVERY, get(keys::discovery::configuration).options(error::preflight))
        .route(paths::METADATA, get(keys::discovery::configuration).options(error::preflight))
        .route(paths::PUSH, post(authorization::par::endpoint).options(error::preflight))
        .route(paths::DEVICE, post(token::device::endpoint).options(error::preflight))
        .route(paths::REGISTER, post(clients::registration::register).options(error::preflight))
        .route(
            paths::REGISTERED,
            get(clients::registration::read)
                .put(clients::registration::replace)
                .delete(clients::registration::delete)
                .options(error::preflight),
        )
        .route(paths::JWKS, get(keys::discovery::jwks).options(error::preflight))
        .route(paths::TOKEN, post(token::endpoint::endpoint).options(error::preflight))
        .route(
            paths::USERINFO,
            get(userinfo::endpoint::by_get).post(userinfo::endpoint::by_post).options(error::preflight),
        )
        .route(paths::INTROSPECT, post(userinfo::introspect::endpoint).options(error::preflight))
        .route(paths::REVOKE, post(userinfo::revoke::endpoint).options(error::preflight))
        .layer(map_response(error::readable_from_anywhere));
    Router::new()
        .route(paths::AUTHORIZE, get(authorization::endpoint::by_get).post(authorization::endpoint::by_post))
        .route(paths::LOGOUT, get(logout::endpoint::by_get).post(logout::endpoint::by_post))
        .merge(for_machines)
        .with_state(Oidc { auth, site, polls, documents: Arc::default() })
}
