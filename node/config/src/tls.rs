//! `[http.tls]`: a second listener with its own TLS, for installations in which no proxy in front terminates the TLS of
//! clients with certificates.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{parse::ListenAddr, public_url::PublicUrl};

/// The use of client certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    #[default]
    Off,
    /// Clients are requested to send a certificate, and may send none.
    Request,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Address on which this node listens with TLS.
    pub listen: ListenAddr,
    /// The certificate chain, PEM, its own certificate first.
    pub certificate_file: PathBuf,
    /// The key of the certificate, PEM.
    pub key_file: PathBuf,
    /// Client authentication by certificate (RFC 8705): `off` or `request`. Must be equal on every node. Default off.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// Certificate authorities for `tls_client_auth`, PEM. Default none: only certificates that clients registered.
    pub client_ca_file: Option<PathBuf>,
    /// URL at which clients reach this listener, if it is not `http.public_url`: published as `mtls_endpoint_aliases`.
    /// Default none.
    pub public_url: Option<PublicUrl>,
}

/// The settings for client certificates, equal on every node.
#[derive(Clone, Debug, Default)]
pub struct Mtls {
    /// True if clients may authenticate by certificates, and tokens are bound to them.
    pub is_on: bool,
    /// True if certificates issued by an authority are accepted as well.
    pub has_authorities: bool,
    /// The URL of the endpoints with TLS, if it is not the issuer's.
    pub alias: Option<PublicUrl>,
}

impl Tls {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let is_off = self.client_certificates == ClientCertificates::Off;
        if is_off && (self.client_ca_file.is_some() || self.public_url.is_some()) {
            problems.push(
                "http.tls.client_certificates: client_ca_file and public_url are for certificates of clients; set it to \"request\""
                    .into(),
            );
        }
        if self.public_url.as_ref().is_some_and(|url| !url.is_secure()) {
            problems.push("http.tls.public_url: must be https".into());
        }
    }

    pub(super) fn mtls(&self) -> Mtls {
        Mtls {
            is_on: self.client_certificates == ClientCertificates::Request,
            has_authorities: self.client_ca_file.is_some(),
            alias: self.public_url.clone(),
        }
    }
}
