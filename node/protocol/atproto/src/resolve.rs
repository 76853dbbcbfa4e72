//! Resolution of an identifier to a user and their server: handle to DID, DID to document, and back again.

use std::sync::Arc;

use super::{
    did::Did,
    document::{self, DidDocument},
    error::AtmosphereError,
    identifier::{AtprotoHandle, Identifier},
    net::Net,
    txt::TxtLookup,
};

/// Maximum length of a handle that leaves room for `_atproto.` before it (RFC 1035 §2.3.4); longer ones are resolved by
/// https alone.
const MAX_DNS_HANDLE: usize = 244;

/// Resolves identities on the network without a cache.
pub(crate) struct Resolver {
    pub net: Arc<Net>,
    txt: Box<dyn TxtLookup>,
    /// Directories of `did:plc`, tried in this order.
    directories: Vec<String>,
}

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvedIdentity {
    pub did: Did,
    /// The handle, if it and the DID name each other.
    pub handle: Option<AtprotoHandle>,
    /// The origin of the server that holds the account.
    pub pds: String,
}

impl Resolver {
    pub(crate) fn new(net: Arc<Net>, txt: Box<dyn TxtLookup>, directories: Vec<String>) -> Self {
        Self { net, txt, directories }
    }

    /// Resolves an identifier; `None` for a server, which has many users.
    ///
    /// # Errors
    /// [`AtmosphereError`]. A typed handle must be confirmed by its DID.
    pub(crate) async fn resolve(
        &self,
        identifier: &Identifier,
    ) -> Result<Option<ResolvedIdentity>, AtmosphereError> {
        match identifier {
            Identifier::Server(_) => Ok(None),
            Identifier::Did(did) => self.by_did(did).await.map(Some),
            Identifier::Handle(handle) => {
                let did = self.did_of(handle).await?;
                let DidDocument { handle: claimed, pds } = self.document(&did).await?;
                if claimed.as_ref() != Some(handle) {
                    return Err(AtmosphereError::HandleMismatch);
                }
                Ok(Some(ResolvedIdentity { did, handle: claimed, pds }))
            }
        }
    }

    /// Resolves a DID. The handle that it claims is accepted only if the handle resolves to this DID.
    ///
    /// # Errors
    /// [`AtmosphereError`]
    pub(crate) async fn by_did(&self, did: &Did) -> Result<ResolvedIdentity, AtmosphereError> {
        let DidDocument { handle, pds } = self.document(did).await?;
        let confirmed = match &handle {
            Some(claimed) => match self.did_of(claimed).await {
                // There was no lookup, so nothing is known about the handle.
                Err(error @ (AtmosphereError::Busy | AtmosphereError::LookupUnavailable(_))) => {
                    return Err(error);
                }
                found => found.is_ok_and(|found| found == *did),
            },
            None => false,
        };
        Ok(ResolvedIdentity { did: did.clone(), handle: handle.filter(|_| confirmed), pds })
    }

    /// Resolves a handle by DNS and by https, both at once. If both give a DID and they differ, DNS is used (atproto
    /// handle specification).
    ///
    /// # Errors
    /// [`AtmosphereError`]
    pub(crate) async fn did_of(&self, handle: &AtprotoHandle) -> Result<Did, AtmosphereError> {
        let (by_dns, by_https) = tokio::join!(self.by_dns(handle), self.by_https(handle));
        match by_dns {
            Ok(Some(did)) => Ok(did),
            Ok(None) => by_https?.ok_or(AtmosphereError::HandleNotFound),
            // The handle's own host is an equally good source. If it names no DID, that proves nothing while the name
            // service does not answer.
            Err(silent @ AtmosphereError::LookupUnavailable(_)) => by_https?.ok_or(silent),
            Err(error) => Err(error),
        }
    }

    /// Other TXT records are ignored. Two different DIDs make the handle invalid.
    async fn by_dns(&self, handle: &AtprotoHandle) -> Result<Option<Did>, AtmosphereError> {
        if handle.as_str().len() > MAX_DNS_HANDLE {
            return Ok(None);
        }
        let records = self.txt.lookup(&format!("_atproto.{}.", handle.as_str())).await?;
        let mut dids = records.iter().filter_map(|record| record.strip_prefix("did="));
        let Some(first) = dids.next() else { return Ok(None) };
        if dids.any(|other| other != first) {
            return Err(AtmosphereError::HandleMismatch);
        }
        Did::parse(first, self.net.dev).map(Some)
    }

    /// A host that does not respond names no DID; this is not an error of the user.
    async fn by_https(&self, handle: &AtprotoHandle) -> Result<Option<Did>, AtmosphereError> {
        let url = format!("https://{}/.well-known/atproto-did", handle.as_str());
        match self.net.text(&url).await {
            Ok(Some(text)) => Ok(Did::parse(&text, self.net.dev).ok()),
            Ok(None) => Ok(None),
            Err(AtmosphereError::Busy) => Err(AtmosphereError::Busy),
            Err(error) => {
                tracing::debug!("a handle's host gives no DID: {error}");
                Ok(None)
            }
        }
    }

    /// Directories mirror each other: the next one is tried if one does not respond, but not if it reports that the DID
    /// does not exist.
    async fn document(&self, did: &Did) -> Result<DidDocument, AtmosphereError> {
        if !did.is_of_directory() {
            let found = self.net.json(&did.document_url("")).await?;
            return document::read(&found.ok_or(AtmosphereError::DidNotFound)?, did, self.net.dev);
        }
        let mut failed = AtmosphereError::DidNotFound;
        for directory in &self.directories {
            match self.net.entry(&did.document_url(directory)).await {
                Ok(Some(document)) => return document::read(&document, did, self.net.dev),
                Ok(None) => return Err(AtmosphereError::DidNotFound),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, routing::get};
    use serde_json::json;

    use super::*;
    use crate::txt::Looking;
    use conclave_http::outbound::Outbound;

    const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

    struct NoRecords;

    impl TxtLookup for NoRecords {
        fn lookup<'a>(&'a self, _name: &'a str) -> Looking<'a> {
            Box::pin(async { Ok(Vec::new()) })
        }
    }

    #[tokio::test]
    async fn a_handle_that_could_not_be_asked_about_is_not_taken_for_one_that_is_not_confirmed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let directory = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let service = json!([{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://pds.test"}]);
        let document = json!({"id": DID, "alsoKnownAs": ["at://alice.test"], "service": service});
        let router = Router::new().route("/{did}", get(async move || Json(document)));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let net = Arc::new(Net::new(Outbound::new(vec!["127.0.0.1".parse().unwrap()]), true));
        let resolver = Resolver::new(Arc::clone(&net), Box::new(NoRecords), vec![directory]);
        let did = Did::parse(DID, true).unwrap();
        let url = "https://alice.test/";
        let held: Vec<_> = std::iter::from_fn(|| net.place(url).ok()).collect();
        assert!(matches!(resolver.by_did(&did).await, Err(AtmosphereError::Busy)));
        drop(held);
        assert_eq!(resolver.by_did(&did).await.unwrap().handle, None, "asked, and nothing is there");
    }
}
