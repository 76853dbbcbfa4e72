//! The parts of a client's request besides the form: its headers, and the certificate of its connection.

use std::{net::IpAddr, ops::Deref};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};

use conclave_http::{ClientInfo, PeerCertificate, tls::ClientCertificate};

/// The head of a client's request.
pub(crate) struct RequestHead {
    headers: HeaderMap,
    /// The path of the requested endpoint.
    pub path: String,
    /// The client's address.
    pub caller: IpAddr,
    /// The certificate of the client's TLS connection to this node (RFC 8705).
    pub certificate: Option<ClientCertificate>,
}

impl RequestHead {
    /// SHA-256 of the certificate.
    pub(crate) fn thumbprint(&self) -> Option<[u8; 32]> {
        self.certificate.as_ref().map(ClientCertificate::thumbprint)
    }
}

impl Deref for RequestHead {
    type Target = HeaderMap;

    fn deref(&self) -> &HeaderMap {
        &self.headers
    }
}

impl<S: Sync> FromRequestParts<S> for RequestHead {
    type Rejection = <ClientInfo as FromRequestParts<S>>::Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let caller = ClientInfo::from_request_parts(parts, state).await?.ip;
        let Ok(PeerCertificate(certificate)) = PeerCertificate::from_request_parts(parts, state).await;
        let path = parts.uri.path().to_owned();
        Ok(Self { headers: parts.headers.clone(), path, caller, certificate })
    }
}
