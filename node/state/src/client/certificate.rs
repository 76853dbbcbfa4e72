//! The name in a client's certificate (RFC 8705 §2.1.2): one name of one kind, compared byte by byte.

use std::fmt;

use crate::{reply::Refusal, text};

/// Longest name.
const MAX_NAME_BYTES: usize = 512;

/// The field of the certificate that holds the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// The whole subject, as RFC 4514 writes it.
    SubjectDn,
    /// A DNS name in the subject alternative names.
    SanDns,
    /// A URI in the subject alternative names.
    SanUri,
    /// An IP address in the subject alternative names.
    SanIp,
    /// An e-mail address in the subject alternative names.
    SanEmail,
}

const KINDS: [(&str, NameKind); 5] = [
    ("subject_dn", NameKind::SubjectDn),
    ("san_dns", NameKind::SanDns),
    ("san_uri", NameKind::SanUri),
    ("san_ip", NameKind::SanIp),
    ("san_email", NameKind::SanEmail),
];

/// The name that a client's certificate must contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateName {
    /// The field that holds it.
    pub kind: NameKind,
    /// The name.
    pub value: String,
}

impl CertificateName {
    /// Parses `kind=value`; none for an empty text.
    ///
    /// # Errors
    /// `Malformed`, with the list of kinds.
    pub fn parse(name: &str) -> Result<Option<Self>, Refusal> {
        if name.is_empty() {
            return Ok(None);
        }
        let parts = name.split_once('=').and_then(|(word, value)| {
            let (_, kind) = KINDS.iter().find(|(known, _)| *known == word)?;
            Some((*kind, value))
        });
        let wrong = || {
            let kinds = KINDS.map(|(word, _)| word).join(", ");
            Refusal::malformed(format!("the name of a certificate is one of {kinds}, '=' and the name"))
        };
        let (kind, value) = parts.ok_or_else(wrong)?;
        Ok(Some(Self { kind, value: text::required("the name of a certificate", value, MAX_NAME_BYTES)? }))
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word =
            KINDS.iter().find(|(_, kind)| *kind == self.kind).map(|(word, _)| *word).unwrap_or_default();
        write!(f, "{word}={}", self.value)
    }
}
