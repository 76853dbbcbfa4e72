//! The pages of the login flow: `/login`, `/consent`, `/continue`, `/device`, `/upstream/…`, `/recover`, `/picture/…`,
//! `/logout`, `/`. They work without JavaScript, from any node at each step.
//!
//! A page reads cookies and a form, calls `auth`, and renders the returned [`Next`](conclave_auth::dispatch::Next). It
//! makes no decisions.

mod connections;
mod consent;
mod device;
mod form_post;
mod home;
mod login;
mod logout;
mod onward;
mod picture;
mod recover;
mod site;
mod upstream;

use std::sync::Arc;

use axum::{Router, routing::get};

pub use upstream::CallbackContext;

pub use site::{Browser, Site, fault_of, fault_of_ticket, see_other};

/// The login flow's routes.
pub fn routes(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(home::show))
        .route("/login", get(login::show).post(login::submit))
        .route("/consent", get(consent::show).post(consent::submit))
        .route("/continue", get(onward::show))
        .route("/device", get(device::show).post(device::submit))
        .route("/device/answer", get(device::confirm).post(device::answer))
        .route("/upstream/{name}/start", get(upstream::start))
        .route("/upstream/{name}/link", get(upstream::link))
        .route("/upstream/{name}/callback", get(upstream::callback))
        .route(upstream::UNLINK, axum::routing::post(upstream::unlink))
        .route("/connections/end", axum::routing::post(connections::end))
        .route("/picture/{name}", get(picture::show))
        .route("/recover", get(recover::show).post(recover::submit))
        .route("/logout", get(logout::show).post(logout::submit))
        .with_state(site)
}
