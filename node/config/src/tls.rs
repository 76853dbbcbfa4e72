//! `[http.tls]`: a second listener, with TLS of its own; where no proxy in front ends the TLS of clients that show
//! certificates.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{parse::ListenAddr, public_url::PublicUrl};

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    #[default]
    Off,
    /// They are asked, and may have none.
    Request,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Where this node listens with TLS.
    pub listen: ListenAddr,
    /// The chain that it shows, PEM, its own certificate first.
    pub certificate_file: PathBuf,
    /// The key of the certificate, PEM.
    pub key_file: PathBuf,
    /// Whether clients may prove themselves by certificates (RFC 8705): `off` or `request`. The same on every node.
    /// Default off.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// Authorities whose certificates count for `tls_client_auth`, PEM. Default none: only certificates that clients
    /// registered.
    pub client_ca_file: Option<PathBuf>,
    /// Where clients reach this listener when that is not `http.public_url`: published as `mtls_endpoint_aliases`.
    /// Default none.
    pub public_url: Option<PublicUrl>,
}

/// What certificates of clients are good for, on every node.
#[derive(Clone, Debug, Default)]
pub struct Mtls {
    /// Clients may prove themselves by certificates, and tokens are bound to them.
    pub is_on: bool,
    /// Also by certificates that an authority issued.
    pub has_authorities: bool,
    /// Where else than at the issuer.
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
