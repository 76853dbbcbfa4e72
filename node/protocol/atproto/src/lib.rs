//! Sign-in with Atmosphere (atproto): a user's own server vouches for their DID, whichever server that is.
//!
//! | file | owns |
//! |---|---|
//! | `identifier`, `did`, `document` | parsing of typed identifiers, DIDs and DID documents; pure |
//! | `resolve`, `txt` | handle to DID to document and back, as it is now; nothing is cached |
//! | `server` | the authorization server of an account, and its required capabilities |
//! | `net` | every request to a server that a user chose |
//! | `client` | this cluster as a client: document, keys |
//! | `transaction` | a sign-in in progress, in a sealed cookie |
//! | `exchange` | pushed request, code, revocation, each with its proofs |
//! | `start`, `callback` | the redirect to the server and the callback |
//! | `profile`, `avatar` | the public name and picture of a user |
//! | `self_check` | checks that account servers can read this cluster's document |
//! | `reverify` | repeated verification of the handles that admitted users; and resolution for other nodes |
//!
//! Owns the protocol; `auth` signs in or links the user, as for any other provider. Refuses: any scope but `atproto`,
//! refresh tokens, and all statements of a server about a user except the DID (so not their e-mail, not their handle).
//! A name and a picture are copied for display, and have no effect on access.
//!
//! Writes (docs/design/consistency.md): none at the start; at the callback one that spends the response, before its
//! code is redeemed, and one that signs in. So a sign-in may begin on one node and end on another, once.

mod avatar;
mod callback;
mod client;
mod did;
mod document;
mod error;
mod exchange;
mod identifier;
mod net;
mod profile;
mod resolve;
mod reverify;
mod self_check;
mod server;
mod start;
mod transaction;
mod txt;

use std::sync::Arc;

use conclave_state::State;

use axum::{
    Router,
    routing::{get, post},
};

use conclave_auth::{Auth, upstream::ATMOSPHERE};
use conclave_web::pages::Site;

use client::ClientIdentity;
use error::AtmosphereError;
use net::Net;
use resolve::Resolver;

/// The only scope that a login needs; it allows no action in the user's name.
const SCOPE: &str = "atproto";

/// The dependencies of the endpoints.
#[derive(Clone)]
struct Atproto {
    site: Arc<Site>,
    resolver: Arc<Resolver>,
    /// `None` if the network cannot know this cluster.
    client: Arc<Option<ClientIdentity>>,
}

impl Atproto {
    fn net(&self) -> &Net {
        &self.resolver.net
    }

    /// The client identity of this cluster, and the row that sign-ins belong to, if an operator enabled them.
    async fn open(&self) -> Result<(&ClientIdentity, String), AtmosphereError> {
        let Some(client) = &*self.client else { return Err(AtmosphereError::Off) };
        let cluster = self.site.auth.cluster();
        let found = match row(&cluster.view()) {
            Some(name) => Some(name),
            // It may have been enabled at another node a moment ago (docs/design/README.md, P5).
            None => cluster.confirmed_view().await.as_deref().and_then(row),
        };
        found.map(|name| (client, name)).ok_or(AtmosphereError::Off)
    }
}

fn row(state: &State) -> Option<String> {
    let row = state.upstreams().find(|upstream| upstream.is_atmosphere() && !upstream.disabled);
    row.map(|row| row.name.to_string())
}

pub use reverify::Reverifier;

/// The slice's routes, and its background task.
pub fn routes(auth: &Auth, site: Arc<Site>) -> (Router, Reverifier) {
    let settings = auth.settings();
    let atmosphere = &settings.atmosphere;
    let net = Arc::new(Net::new(auth.upstreams().outbound.clone(), atmosphere.unsafe_dev));
    let txt = Box::new(txt::Dns::new(&atmosphere.nameservers));
    let resolver = Arc::new(Resolver::new(net, txt, atmosphere.plc_directories.clone()));
    let client = Arc::new(ClientIdentity::of(&settings.public_url));
    auth.cluster()
        .set_resolver(Arc::new(reverify::View(Arc::clone(&resolver), tokio::runtime::Handle::current())));
    let reverifier = Reverifier::new(auth.clone(), Arc::clone(&resolver), Arc::clone(&client));
    let router = Router::new()
        .route(ATMOSPHERE, get(start::show))
        .route(start::START, post(start::submit))
        .route(client::CALLBACK, get(callback::handle_callback))
        .route(client::DOCUMENT, get(client::document))
        .route(client::DOCUMENT_ALIAS, get(client::document))
        .route(client::KEYS, get(client::keys))
        .with_state(Atproto { site, resolver, client });
    (router, reverifier)
}
