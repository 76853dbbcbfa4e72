//! Sign-in with Atmosphere (atproto): a person's own server vouches for their DID, whichever server that is.
//!
//! | file | owns |
//! |---|---|
//! | `identifier`, `did`, `document` | what people type, what a DID is, what its document says; pure |
//! | `resolve`, `txt` | handle to DID to document and back, as it is now; nothing is kept |
//! | `server` | the authorization server of an account, and what it must promise |
//! | `net` | every request to a server that a person chose |
//! | `client` | what this cluster is called there: document, keys |
//! | `transaction` | a sign-in on its way, in a sealed cookie |
//! | `exchange` | pushed request, code, revocation, each with its proofs |
//! | `start`, `callback` | the way out and the way back |
//! | `profile`, `portrait` | the name and the picture that people show to everybody |
//! | `self_check` | whether account servers can read who this cluster is |
//! | `reverify` | handles that let somebody in, looked at again; and for other nodes |
//!
//! Owns the protocol; `auth` signs in or links whoever it brings, as by any other provider. Refuses: any scope but
//! `atproto`, refresh tokens, and whatever a server says of a person beyond that it is they (their e-mail, their
//! handle). A name and a picture are taken over, and mean nothing.
//!
//! Writes (design.md §7): none on the way out; on the way back one that spends the answer, before its code is redeemed,
//! and one that signs in. So a sign-in may begin on one node and end on another, once.

mod callback;
mod client;
mod did;
mod document;
mod error;
mod exchange;
mod identifier;
mod net;
mod portrait;
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

use crate::auth::{Auth, pages::Site, upstream::ATMOSPHERE};

use client::ClientIdentity;
use error::AtmosphereError;
use net::Net;
use resolve::Resolver;

/// All that a login needs; nothing is done in anybody's name.
const SCOPE: &str = "atproto";

/// What the endpoints stand on.
#[derive(Clone)]
struct Atproto {
    site: Arc<Site>,
    resolver: Arc<Resolver>,
    /// None where the network cannot know this cluster.
    client: Arc<Option<ClientIdentity>>,
}

impl Atproto {
    fn net(&self) -> &Net {
        &self.resolver.net
    }

    /// What this cluster is called, and the row that sign-ins belong to, where an operator turned them on.
    async fn open(&self) -> Result<(&ClientIdentity, String), AtmosphereError> {
        let Some(client) = &*self.client else { return Err(AtmosphereError::Off) };
        let cluster = self.site.auth.cluster();
        let found = match row(&cluster.view()) {
            Some(name) => Some(name),
            // It may have been turned on at another node a moment ago (design.md P5).
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

/// The slice's routes, and what is to be run beside them.
pub fn routes(auth: &Auth, site: Arc<Site>) -> (Router, Reverifier) {
    let settings = auth.settings();
    let atmosphere = &settings.atmosphere;
    let net = Arc::new(Net::new(auth.upstreams().outbound.clone(), atmosphere.unsafe_dev));
    let txt = Box::new(txt::Dns::new(&atmosphere.nameservers));
    let resolver = Arc::new(Resolver::new(net, txt, atmosphere.plc_directories.clone()));
    let client = Arc::new(ClientIdentity::of(&settings.public_url));
    auth.cluster()
        .look_out_with(Arc::new(reverify::View(Arc::clone(&resolver), tokio::runtime::Handle::current())));
    let reverifier = Reverifier::new(auth.clone(), Arc::clone(&resolver), Arc::clone(&client));
    let router = Router::new()
        .route(ATMOSPHERE, get(start::show))
        .route(start::START, post(start::submit))
        .route(client::CALLBACK, get(callback::arrive))
        .route(client::DOCUMENT, get(client::document))
        .route(client::DOCUMENT_ALIAS, get(client::document))
        .route(client::KEYS, get(client::keys))
        .with_state(Atproto { site, resolver, client });
    (router, reverifier)
}
