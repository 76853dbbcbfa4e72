//! What the certificate of a client is called (RFC 8705 §2.1.2): one name of one kind, compared as it is.

use std::fmt;

use crate::{reply::Refusal, text};

/// Longest name.
const MAX_NAME_BYTES: usize = 512;

/// Where in the certificate the name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// The whole subject, as RFC 4514 writes it.
    SubjectDn,
    /// A DNS name among the alternative names.
    SanDns,
    /// A URI there.
    SanUri,
    /// An IP address there.
    SanIp,
    /// An e-mail address there.
    SanEmail,
}

const KINDS: [(&str, NameKind); 5] = [
    ("subject_dn", NameKind::SubjectDn),
    ("san_dns", NameKind::SanDns),
    ("san_uri", NameKind::SanUri),
    ("san_ip", NameKind::SanIp),
    ("san_email", NameKind::SanEmail),
];

/// The name that a client's certificate must bear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateName {
    /// Where it stands.
    pub kind: NameKind,
    /// The name.
    pub value: String,
}

impl CertificateName {
    /// Reads `kind=value`; nothing for an empty text.
    ///
    /// # Errors
    /// `Malformed`, saying which kinds there are.
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
