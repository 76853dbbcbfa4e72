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

mod access;
mod acr;
mod assertion;
mod audience;
mod authorize;
mod backchannel;
mod bearer;
mod certificate;
mod claims;
mod client_auth;
mod client_credentials;
mod client_document;
mod client_metadata;
mod device;
mod discovery;
mod dpop;
mod error;
mod exchange;
mod grants;
mod head;
mod hint;
mod introspect;
mod logout;
mod nonce;
mod par;
mod polls;
mod registration;
mod request;
mod request_object;
mod requested_claims;
mod revoke;
mod token;
mod tokens;
mod userinfo;

use std::sync::Arc;

pub use backchannel::Announcer;
pub use bearer::access_tokens;

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
    polls: Arc<polls::Polls>,
    documents: Arc<client_document::Documents>,
}

/// The slice's routes.
pub fn routes(auth: Auth, site: Arc<Site>) -> Router {
    let polls = Arc::new(polls::Polls::new(auth.runtime().clone()));
    let for_machines = Router::new()
        .route(paths::DISCOVERY, get(discovery::configuration).options(error::preflight))
        .route(paths::METADATA, get(discovery::configuration).options(error::preflight))
        .route(paths::PUSH, post(par::endpoint).options(error::preflight))
        .route(paths::DEVICE, post(device::endpoint).options(error::preflight))
        .route(paths::REGISTER, post(registration::register).options(error::preflight))
        .route(
            paths::REGISTERED,
            get(registration::read)
                .put(registration::replace)
                .delete(registration::delete)
                .options(error::preflight),
        )
        .route(paths::JWKS, get(discovery::jwks).options(error::preflight))
        .route(paths::TOKEN, post(token::endpoint).options(error::preflight))
        .route(paths::USERINFO, get(userinfo::by_get).post(userinfo::by_post).options(error::preflight))
        .route(paths::INTROSPECT, post(introspect::endpoint).options(error::preflight))
        .route(paths::REVOKE, post(revoke::endpoint).options(error::preflight))
        .layer(map_response(error::readable_from_anywhere));
    Router::new()
        .route(paths::AUTHORIZE, get(authorize::by_get).post(authorize::by_post))
        .route(paths::LOGOUT, get(logout::by_get).post(logout::by_post))
        .merge(for_machines)
        .with_state(Oidc { auth, site, polls, documents: Arc::default() })
}
