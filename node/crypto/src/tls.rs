//! Access to the cluster plane: mutual TLS 1.3 between holders of the cluster secret.
//!
//! The certificate authority is a key derived from the secret, so every node can mint its own certificate at start and
//! no files need to be distributed. The authority's name contains a digest of its key. So a certificate of another
//! secret appears as "unknown issuer" and not as a broken signature, and [`explain`] can describe it plainly, both on
//! the node that refuses and on the node that is refused.
//!
//! Certificates are valid from 2020 to 2120. They are minted at each start and trusted only because of the secret. An
//! expiry date would add no safety, only a day on which a cluster, or a node with a wrong clock, stops working.

mod explain;

use std::sync::Arc;

use aws_lc_rs::signature::Ed25519KeyPair;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SerialNumber, date_time_ymd,
};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::keys::ClusterKeys;
use super::{hex, mac};
use conclave_base::runtime::Entropy;

pub use self::explain::{TlsFault, explain};

/// The name in every node's certificate. A client expects it when it does not know the peer's id yet.
pub const PEER_NAME: &str = "peer.conclave.internal";

/// gRPC only.
const ALPN: &[u8] = b"h2";

/// The name that only node `id`'s certificate has.
pub fn node_name(id: u64) -> String {
    format!("node-{id}.conclave.internal")
}

/// An error in making certificates or setting up rustls; the cause has the details.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot derive the cluster certificate authority from the secret")]
    Authority,
    #[error("cannot make this node's certificate")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot set up TLS for the cluster plane")]
    Setup(#[from] rustls::Error),
    #[error("cannot set up the check of peers' certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The server and client side of this node's cluster plane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClusterTls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl ClusterTls {
    /// Mints the certificate of node `node_id` under the current secret and trusts those of every secret of the ring.
    pub fn new(keys: &ClusterKeys, node_id: u64, entropy: &dyn Entropy) -> Result<Self, TlsError> {
        let identity = Authority::of(keys)?.mint(node_id, entropy)?;
        let mut roots = RootCertStore::empty();
        for keys in keys.all() {
            roots.add(Authority::of(keys)?.certificate()?)?;
        }
        Self::assemble(Arc::new(roots), identity)
    }

    fn assemble(roots: Arc<RootCertStore>, identity: Identity) -> Result<Self, TlsError> {
        let provider = Arc::new(provider::default_provider());
        Ok(Self {
            server: Arc::new(server(&provider, &roots, identity.clone())?),
            client: Arc::new(client(&provider, roots, identity)?),
        })
    }

    /// The TLS settings for accepting peers: they require a certificate of an accepted secret.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// The TLS settings for connecting to peers, under [`PEER_NAME`] or [`node_name`].
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }
}

/// The node id in a verified peer certificate.
pub fn certified_node_id(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => {
            name.strip_prefix("node-")?.strip_suffix(".conclave.internal")?.parse().ok()
        }
        _ => None,
    })
}

#[derive(Clone)]
struct Identity {
    certificate: CertificateDer<'static>,
    key: Arc<Zeroizing<Vec<u8>>>,
}

impl Identity {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.to_vec()).into()
    }
}

fn server(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    identity: Identity,
) -> Result<ServerConfig, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()?;
    let key = identity.key();
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate], key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Peers connect rarely and stay connected. A full handshake each time keeps all connections checked in one way.
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    identity: Identity,
) -> Result<ClientConfig, TlsError> {
    let key = identity.key();
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![identity.certificate], key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The certificate authority that every holder of the secret can derive.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn of(keys: &ClusterKeys) -> Result<Self, TlsError> {
        let key = ed25519(keys.ca_seed.expose())?;
        let digest: [u8; 8] = mac::take(&mac::sha256(key.public_key_raw()));
        let mut params = certificate_params(&format!("conclave cluster {}", hex::encode(&digest)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(SerialNumber::from_slice(&[1]));
        Ok(Self { params, key })
    }

    fn certificate(&self) -> Result<CertificateDer<'static>, TlsError> {
        Ok(self.params.self_signed(&self.key)?.der().clone())
    }

    fn mint(&self, node_id: u64, entropy: &dyn Entropy) -> Result<Identity, TlsError> {
        let key = ed25519(&Zeroizing::new(entropy.bytes()))?;
        let mut params = certificate_params(&format!("conclave node {node_id}"));
        params.subject_alt_names = [node_name(node_id), PEER_NAME.to_owned()]
            .into_iter()
            .map(|name| Ok(rcgen::SanType::DnsName(name.try_into()?)))
            .collect::<Result<_, rcgen::Error>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from_slice(&positive(entropy.bytes())));
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key))?;
        let key = Arc::new(Zeroizing::new(key.serialize_der()));
        Ok(Identity { certificate: certificate.der().clone(), key })
    }
}

fn certificate_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params
}

/// A serial number of at most 20 bytes, positive and not zero (RFC 5280 §4.1.2.2).
fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    serial
}

fn ed25519(seed: &[u8; 32]) -> Result<KeyPair, TlsError> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| TlsError::Authority)?;
    let pkcs8 = pair.to_pkcs8().map_err(|_| TlsError::Authority)?;
    let der = PrivatePkcs8KeyDer::from(pkcs8.as_ref());
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)?)
}

#[cfg(test)]
mod tests;
