//! TLS on the public listener, with client certificates (RFC 8705) if the configuration enables them.
//!
//! The server requests a certificate, and a client may send none. A client that sends one has proved possession of its
//! key in the handshake. The caller decides what the certificate is worth: this module reports if a configured
//! authority issued it. A self-signed certificate is identified by its thumbprint alone.

use std::{convert::Infallible, fmt, fs, path::Path, sync::Arc, time::Duration};

use axum::extract::FromRequestParts;
use http::request::Parts;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use conclave_base::runtime::Clock;
use conclave_crypto::mac;

use super::{client::ClientInfo, error::HttpError};

/// Maximum length of a client's certificate chain.
const MAX_CHAIN: usize = 8;
/// Maximum length of a client's certificate.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// The paths of the PEM files.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    pub certificate: &'a Path,
    pub key: &'a Path,
    /// `Some` if clients are requested to send certificates, with the file of trusted authorities if there is one.
    pub clients: Option<Option<&'a Path>>,
}

/// TLS for a listener.
#[derive(Clone)]
pub struct ServerTls {
    pub(super) acceptor: TlsAcceptor,
    authorities: Option<Arc<dyn ClientCertVerifier>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

/// The certificate that a client sent, with proof of its key.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate(Arc<Shown>);

#[derive(PartialEq, Eq)]
struct Shown {
    der: Vec<u8>,
    is_trusted: bool,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").field("is_trusted", &self.0.is_trusted).finish_non_exhaustive()
    }
}

impl ClientCertificate {
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// True if a configured authority issued it for client authentication, and it was valid when the connection was
    /// made.
    pub fn is_trusted(&self) -> bool {
        self.0.is_trusted
    }

    /// SHA-256 of the certificate: `x5t#S256` (RFC 8705 §3.1).
    pub fn thumbprint(&self) -> [u8; 32] {
        mac::sha256(&self.0.der)
    }
}

/// The certificate of the request's connection, if there is one. A proxy's own certificate is not that of its client.
#[derive(Clone, Debug)]
pub struct PeerCertificate(pub Option<ClientCertificate>);

impl<S: Sync> FromRequestParts<S> for PeerCertificate {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let is_proxys = parts.extensions.get::<ClientInfo>().is_some_and(|client| client.via_trusted_proxy);
        Ok(Self(parts.extensions.get().filter(|_| !is_proxys).cloned()))
    }
}

impl ServerTls {
    /// Loads the files.
    ///
    /// # Errors
    /// [`HttpError::Tls`], naming the setting.
    pub fn load(files: &TlsFiles<'_>, clock: Arc<dyn Clock>) -> Result<Self, HttpError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates("http.tls.certificate_file", files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read("http.tls.key_file", files.key)?)
            .map_err(|error| wrong("http.tls.key_file", files.key, &error))?;
        let authorities = match files.clients.flatten() {
            Some(path) => Some(verifier(&provider, path)?),
            None => None,
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("http.tls", files.certificate, &error))?;
        let builder = match files.clients {
            Some(_) => builder.with_client_cert_verifier(Arc::new(AnyCertificate { provider })),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| wrong("http.tls.certificate_file", files.certificate, &error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A resumed connection would reuse the certificate of an earlier one, so each connection makes a full
        // handshake.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), authorities, clock })
    }

    /// The certificate that the peer of this connection sent.
    pub(super) fn certificate<IO>(&self, stream: &TlsStream<IO>) -> Option<ClientCertificate> {
        let chain = stream.get_ref().1.peer_certificates()?;
        let (own, issuers) = chain.split_first()?;
        let now = UnixTime::since_unix_epoch(Duration::from_millis(self.clock.now_ms()));
        let is_trusted = chain.len() <= MAX_CHAIN
            && self.authorities.as_ref().is_some_and(|a| a.verify_client_cert(own, issuers, now).is_ok());
        Some(ClientCertificate(Arc::new(Shown { der: own.to_vec(), is_trusted })))
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, HttpError> {
    fs::read(path).map_err(|error| wrong(setting, path, &error))
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    let pem = read(setting, path)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| wrong(setting, path, &error))?;
    if found.is_empty() { Err(wrong(setting, path, &"it contains no certificate")) } else { Ok(found) }
}

fn verifier(provider: &Arc<CryptoProvider>, path: &Path) -> Result<Arc<dyn ClientCertVerifier>, HttpError> {
    const SETTING: &str = "http.tls.client_ca_file";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(SETTING, path)? {
        roots.add(certificate).map_err(|error| wrong(SETTING, path, &error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    verifier.map_err(|error| wrong(SETTING, path, &error))
}

fn wrong(setting: &'static str, path: &Path, reason: &dyn fmt::Display) -> HttpError {
    HttpError::Tls { setting, path: path.to_owned(), reason: reason.to_string() }
}

/// Accepts every certificate whose key the peer proves, and no certificate.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: browsers would ask users for certificates of these authorities.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if end_entity.len() > MAX_CERTIFICATE_BYTES {
            return Err(rustls::Error::General("the certificate is too long".into()));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scheme;

    #[tokio::test]
    async fn the_certificate_of_a_proxy_is_nobodys() {
        for (via_trusted_proxy, counts) in [(false, true), (true, false)] {
            let (mut parts, ()) = http::Request::new(()).into_parts();
            let shown = Arc::new(Shown { der: vec![1], is_trusted: true });
            parts.extensions.insert(ClientCertificate(shown));
            let ip = [192, 0, 2, 1].into();
            parts.extensions.insert(ClientInfo { ip, scheme: Scheme::Https, via_trusted_proxy });
            let PeerCertificate(found) = PeerCertificate::from_request_parts(&mut parts, &()).await.unwrap();
            assert_eq!(found.is_some(), counts);
        }
    }
}
