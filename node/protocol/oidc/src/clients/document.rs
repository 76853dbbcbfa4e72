//! Clients described by a document (Client ID Metadata Documents, draft-ietf-oauth-client-id-metadata-document): the
//! `client_id` is an https URL, and the document at that URL is the registration. Off unless the configuration names
//! hosts.
//!
//! The document is fetched when the client sends a user or pushes a request, at most every [`FRESH`] per node, through
//! the outbound client with its address policy. The first fetch for an unknown client is throttled by the address that
//! requested it. The metadata is kept as a client in the state, so all nodes and the token endpoint know it, and every
//! authorization stays bound to the metadata of its time. Pages show the client under the name of its host, since no
//! operator vouches for it. A document never changes a client that an operator registered.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use conclave_proto::command::v1::{CreateClient, UpdateClient, command::Body};
use conclave_state::{
    Reason,
    client::{Client, ClientId},
};
use http::StatusCode;
use serde_json::Value;
use tokio::sync::Semaphore;
use url::Url;

use conclave_auth::{AuthError, throttle::Admission, write_key::WriteKey};
use conclave_http::outbound::OutboundError;

use crate::Oidc;
use crate::authorization::request::NoWayBack;
use crate::clients::metadata::{InvalidMetadata, Metadata, ValidatedMetadata, WITHOUT_SECRET};

/// Time for which a node uses a fetched document: a changed redirect URI or key takes this long to be known.
const FRESH: Duration = Duration::from_mins(10);
/// Time for which a client is accepted while its document cannot be reached.
const STALE_MS: u64 = 24 * 3_600_000;
/// Age at which an unchanged document is recorded as seen again.
const SEEN_AGAIN_MS: u64 = STALE_MS / 2;
/// Minimum time between attempts for a document that could not be fetched.
const BETWEEN_FAILURES: Duration = Duration::from_secs(30);
/// Maximum length of a document: twice the recommendation of the draft (§6.6).
const MAX_BYTES: usize = 10 * 1024;
/// Maximum number of documents fetched at once, so that slow hosts hold few connections.
const AT_ONCE: usize = 8;
/// Maximum number of results remembered.
const MAX_KEPT: usize = 1_024;

/// The recent results of document fetches on this node.
pub(crate) struct Documents {
    looks: Mutex<BTreeMap<String, Look>>,
    fetches: Semaphore,
}

/// The result of a fetch: its expiry, and the error if there was one.
#[derive(Clone, Copy)]
struct Look {
    until: Duration,
    wrong: Option<&'static str>,
}

impl Default for Documents {
    fn default() -> Self {
        Self { looks: Mutex::default(), fetches: Semaphore::new(AT_ONCE) }
    }
}

impl Documents {
    fn look(&self, url: &str, now: Duration) -> Option<Look> {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.get(url).filter(|look| now < look.until).copied()
    }

    fn remember(&self, url: &str, look: Look, now: Duration) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() >= MAX_KEPT && !looks.contains_key(url) {
            looks.retain(|_, look| now < look.until);
            if looks.len() >= MAX_KEPT {
                looks.clear();
            }
        }
        looks.insert(url.to_owned(), look);
    }
}

/// The reason why a document is not accepted.
#[derive(Clone, Copy)]
enum Failure {
    /// It could not be fetched; a client known from before is accepted for a while.
    Unreachable(&'static str),
    /// It does not exist any more, or is invalid.
    Wrong(&'static str),
}

/// Brings the cluster's record of the client up to date with its document, if the client is described by one.
///
/// # Errors
/// [`NoWayBack`] if the client cannot be known; the browser is not redirected then.
pub(crate) async fn bring_up_to_date(oidc: &Oidc, caller: IpAddr, client_id: &str) -> Result<(), NoWayBack> {
    let known = oidc.auth.cluster().view().client(client_id).cloned();
    let Some(host) = host_of(client_id) else { return Ok(()) };
    if !oidc.auth.settings().authorization.takes_documents_of(&host) {
        return match known {
            Some(client) if client.is_described() => {
                Err(NoWayBack::Document("documents of its host are not accepted here"))
            }
            _ => Ok(()),
        };
    }
    // A document never changes a client that an operator registered or disabled.
    if known.as_ref().is_some_and(|client| !client.is_described() || client.disabled) {
        return Ok(());
    }
    let now = oidc.auth.runtime().clock.monotonic();
    match (oidc.documents.look(client_id, now), &known) {
        (Some(Look { wrong: Some(why), .. }), _) => return Err(NoWayBack::Document(why)),
        (Some(_), Some(_)) => return Ok(()),
        _ => {}
    }
    if known.is_none() && is_too_much(oidc, caller) {
        return Err(NoWayBack::Document(
            "too many unknown applications came from your address; try again later",
        ));
    }
    let Ok(_permit) = oidc.documents.fetches.try_acquire() else {
        // Slow hosts occupy all permits: a client known from recently does not have to wait for one.
        let busy = Failure::Unreachable("too many documents are being fetched");
        return excused(oidc, known.as_deref(), busy).map_err(|_| NoWayBack::Unavailable);
    };
    let looked = match fetch(oidc, client_id).await {
        Ok(described) => keep(oidc, known.as_deref(), client_id, described).await.map(|()| FRESH),
        Err(failure) => excused(oidc, known.as_deref(), failure).map(|()| BETWEEN_FAILURES),
    };
    let look = match looked {
        Ok(good_for) => Look { until: now + good_for, wrong: None },
        Err(NoWayBack::Document(why)) => Look { until: now + BETWEEN_FAILURES, wrong: Some(why) },
        // A failure of this cluster is not a result about the document.
        Err(other) => return Err(other),
    };
    oidc.documents.remember(client_id, look, now);
    looked.map(drop)
}

/// The host of a URL that may name a client (draft §3): https or, if the outbound policy allows it, http; with a path;
/// in normalized spelling; without user, query and fragment.
fn host_of(client_id: &str) -> Option<String> {
    if !client_id.starts_with("http") || ClientId::parse(client_id).is_err() {
        return None;
    }
    let url = Url::parse(client_id).ok()?;
    let is_plain = matches!(url.scheme(), "https" | "http")
        && url.as_str() == client_id
        && url.path().len() > 1
        && url.query().is_none()
        && url.fragment().is_none();
    url.host_str().filter(|_| is_plain).map(str::to_owned)
}

/// True if the address has caused too many unknown clients. Each costs a request to another host and a write, so the
/// limit is that of registrations.
fn is_too_much(oidc: &Oidc, caller: IpAddr) -> bool {
    matches!(oidc.auth.registrations().address(caller), Admission::Refused { .. })
}

/// Accepts a client known from recently while its document is merely unreachable.
fn excused(oidc: &Oidc, known: Option<&Client>, failure: Failure) -> Result<(), NoWayBack> {
    match failure {
        Failure::Wrong(why) => Err(NoWayBack::Document(why)),
        Failure::Unreachable(why) => {
            let seen = known.and_then(|client| client.document_seen_at);
            let now = oidc.auth.now(&oidc.auth.cluster().view());
            let does = seen.is_some_and(|seen| now.0 < seen.0.saturating_add(STALE_MS));
            if does { Ok(()) } else { Err(NoWayBack::Document(why)) }
        }
    }
}

async fn fetch(oidc: &Oidc, url: &str) -> Result<ValidatedMetadata, Failure> {
    let wrong = |why| Err(Failure::Wrong(why));
    let mut metadata = Metadata::parse(&get(oidc, url).await?).map_err(|_| NO_DOCUMENT)?;
    if metadata.client_id.as_deref() != Some(url) {
        return wrong("its document is about another client_id");
    }
    if metadata.client_secret.is_some() {
        return wrong("its document holds a secret");
    }
    if let (None, Some(address)) = (&metadata.jwks, &metadata.jwks_uri) {
        let keys: Value = serde_json::from_slice(&get(oidc, address).await?).map_err(|_| NO_DOCUMENT)?;
        metadata.jwks = Some(keys);
    }
    metadata.check(WITHOUT_SECRET).map_err(|why| match why {
        InvalidMetadata::RedirectUri(_) => Failure::Wrong("a redirect URI of its document cannot be one"),
        InvalidMetadata::Metadata(why) => Failure::Wrong(why),
    })
}

const NO_DOCUMENT: Failure = Failure::Wrong("there is no JSON document of a client at its address");

/// Fetches a document through the outbound client alone: redirects are not followed, private addresses are not
/// contacted.
async fn get(oidc: &Oidc, url: &str) -> Result<Vec<u8>, Failure> {
    let answer = match oidc.auth.upstreams().outbound.get(url, None).await {
        Ok(answer) => answer,
        Err(OutboundError::Url | OutboundError::Forbidden(_) | OutboundError::Insecure) => {
            return Err(Failure::Wrong("its address may not be contacted from here"));
        }
        Err(error) => {
            tracing::info!("the document of client {url} cannot be fetched: {error}");
            return Err(Failure::Unreachable("its document cannot be reached"));
        }
    };
    match answer.status {
        StatusCode::OK if !answer.is_json() => Err(NO_DOCUMENT),
        StatusCode::OK if answer.body.len() > MAX_BYTES => Err(Failure::Wrong("its document is too long")),
        StatusCode::OK => Ok(answer.body.to_vec()),
        StatusCode::TOO_MANY_REQUESTS => Err(Failure::Unreachable("its document cannot be reached")),
        status if status.is_server_error() => Err(Failure::Unreachable("its document cannot be reached")),
        _ => Err(Failure::Wrong("there is no document at its address")),
    }
}

/// Writes the changes. A client whose authentication method changed is a new client, which replaces the old one in one
/// write; grants of the old client end.
async fn keep(
    oidc: &Oidc,
    known: Option<&Client>,
    client_id: &str,
    described: ValidatedMetadata,
) -> Result<(), NoWayBack> {
    oidc.auth.provide_signing_key(described.algorithm).await.map_err(|_| NoWayBack::Unavailable)?;
    match known {
        Some(client) if described.is_of(client) && !is_long_ago(oidc, client) => Ok(()),
        Some(client) if client.auth_method == described.method => {
            let command = UpdateClient { of_document: true, ..described.update(client_id) };
            propose(oidc, Body::UpdateClient(command)).await
        }
        None | Some(_) => {
            let command = CreateClient { of_document: true, ..described.create(client_id) };
            propose(oidc, Body::CreateClient(command)).await
        }
    }
}

fn is_long_ago(oidc: &Oidc, client: &Client) -> bool {
    let now = oidc.auth.now(&oidc.auth.cluster().view());
    client.document_seen_at.is_none_or(|seen| now.0 >= seen.0.saturating_add(SEEN_AGAIN_MS))
}

async fn propose(oidc: &Oidc, command: Body) -> Result<(), NoWayBack> {
    let write_key = WriteKey::fresh(&oidc.auth.deriving_keys().request, &*oidc.auth.runtime().entropy);
    match oidc.auth.cluster().propose(write_key.request(), command).await.map_err(AuthError::from) {
        Ok(_) => Ok(()),
        // Another node, or another request, wrote it first.
        Err(AuthError::Refused(refusal)) if refusal.reason == Reason::ClientIdTaken => Ok(()),
        Err(AuthError::Refused(refusal)) => {
            tracing::info!("a client's document is not accepted: {}", refusal.detail);
            Err(NoWayBack::Document(match refusal.reason {
                Reason::TooManyWaiting => "too many applications have registered themselves here",
                _ => "its document holds more than can be kept",
            }))
        }
        Err(_) => Err(NoWayBack::Unavailable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_address_of_a_document_names_a_client() {
        for (id, host) in [
            ("https://app.test/client.json", Some("app.test")),
            ("https://app.test:8443/a/b", Some("app.test")),
            ("http://127.0.0.1:8000/client.json", Some("127.0.0.1")),
            ("https://app.test/", None),
            ("https://app.test", None),
            ("https://app.test/a/../client.json", None),
            ("https://APP.test/client.json", None),
            ("https://app.test:443/client.json", None),
            ("https://u@app.test/client.json", None),
            ("https://app.test/client.json?x=1", None),
            ("https://app.test/client.json#f", None),
            ("ftp://app.test/client.json", None),
            ("httpsx://app.test/client.json", None),
            ("web", None),
        ] {
            assert_eq!(host_of(id).as_deref(), host, "{id}");
        }
    }
}
