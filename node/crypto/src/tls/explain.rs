//! Failed handshakes of the cluster plane, in words that an operator can act on.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// The fault of a handshake between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    #[error(
        "the peer presented a certificate of another cluster secret; give all nodes of the cluster the same secret file"
    )]
    OtherSecret,
    #[error(
        "the peer refused this node's certificate as one of another cluster secret; give all nodes of the cluster the same secret file"
    )]
    RefusedAsOtherSecret,
    #[error("the peer presented no certificate; only nodes of this cluster may connect to the cluster port")]
    NoCertificate,
    #[error("the peer is another node than the one configured at this address; check `cluster.peers`")]
    OtherNode,
    #[error("the peer does not speak TLS 1.3; is this address the cluster port of a conclave node?")]
    NotClusterPlane,
}

/// The fault behind an error of a TLS stream, found in its chain of causes. `None` if it is not a TLS fault (a refused
/// connection, a time-out).
///
/// In TLS 1.3 a client finishes its handshake before the server has checked its certificate: the refusal then arrives
/// as an alert with the *first read*. So read errors of young connections must be passed here as well.
pub fn explain(error: &(dyn Error + 'static)) -> Option<TlsFault> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return fault(tls);
        }
        // `io::Error::source` skips the error it wraps, so the wrapped error is examined here.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(fault) = wrapped.and_then(|inner| explain(inner)) {
            return Some(fault);
        }
        cause = error.source();
    }
    None
}

fn fault(error: &rustls::Error) -> Option<TlsFault> {
    use CertificateError::{BadSignature, NotValidForName, NotValidForNameContext, UnknownIssuer};
    match error {
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => Some(TlsFault::OtherSecret),
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            Some(TlsFault::OtherNode)
        }
        rustls::Error::NoCertificatesPresented => Some(TlsFault::NoCertificate),
        rustls::Error::AlertReceived(alert) => refusal(*alert),
        rustls::Error::InvalidMessage(_) | rustls::Error::PeerIncompatible(_) => {
            Some(TlsFault::NotClusterPlane)
        }
        _ => None,
    }
}

fn refusal(alert: AlertDescription) -> Option<TlsFault> {
    match alert {
        AlertDescription::UnknownCA
        | AlertDescription::DecryptError
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => Some(TlsFault::RefusedAsOtherSecret),
        AlertDescription::ProtocolVersion
        | AlertDescription::HandshakeFailure
        | AlertDescription::NoApplicationProtocol => Some(TlsFault::NotClusterPlane),
        _ => None,
    }
}
