//! The names in a certificate (RFC 8705 §2.1.2), for comparison with a registered name. Nothing here decides if the
//! certificate is trusted.

use std::{fmt::Write as _, net::IpAddr};

use conclave_state::client::{CertificateName, NameKind};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
    x509::X509Name,
};

/// Attribute types that RFC 4514 §3 has a short name for. A subject with others is not written, and so matches no
/// client.
const ATTRIBUTES: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// True if the certificate bears this name. Doubt denies.
pub(crate) fn bears(der: &[u8], name: &CertificateName) -> bool {
    let Ok((rest, certificate)) = X509Certificate::from_der(der) else { return false };
    if !rest.is_empty() {
        return false;
    }
    if name.kind == NameKind::SubjectDn {
        return subject(certificate.subject()).is_some_and(|subject| subject == name.value);
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    names.is_some_and(|names| names.value.general_names.iter().any(|found| is(found, name)))
}

fn is(found: &GeneralName<'_>, name: &CertificateName) -> bool {
    match (found, name.kind) {
        (GeneralName::DNSName(found), NameKind::SanDns) => found.eq_ignore_ascii_case(&name.value),
        (GeneralName::URI(found), NameKind::SanUri)
        | (GeneralName::RFC822Name(found), NameKind::SanEmail) => *found == name.value,
        (GeneralName::IPAddress(bytes), NameKind::SanIp) => {
            address(bytes).is_some_and(|found| name.value.parse() == Ok(found))
        }
        _ => false,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The subject as RFC 4514 §2 writes it: the last name first.
fn subject(name: &X509Name<'_>) -> Option<String> {
    let mut written = Vec::new();
    for names in name.iter_rdn() {
        let one = names.iter().map(|attribute| {
            let id = attribute.attr_type().to_id_string();
            let (_, short) = ATTRIBUTES.iter().find(|(known, _)| *known == id)?;
            Some(format!("{short}={}", escaped(attribute.as_str().ok()?)))
        });
        written.push(one.collect::<Option<Vec<_>>>()?.join("+"));
    }
    written.reverse();
    (!written.is_empty()).then(|| written.join(","))
}

/// Escapes a value as in RFC 4514 §2.4.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let is_special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || (at == 0 && matches!(c, ' ' | '#'))
            || (at == last && c == ' ');
        if c == '\0' {
            out.push_str("\\00");
        } else if is_special {
            let _ = write!(out, "\\{c}");
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::OrganizationName, "Acme, Inc");
        params.distinguished_name.push(DnType::CommonName, "client");
        params.subject_alt_names = vec![
            SanType::DnsName("client.test".try_into().unwrap()),
            SanType::URI("urn:client:1".try_into().unwrap()),
            SanType::IpAddress("10.0.0.7".parse().unwrap()),
            SanType::Rfc822Name("ops@client.test".try_into().unwrap()),
        ];
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_bears_its_own_names_and_no_others() {
        let der = certificate();
        let bears = |text: &str| bears(&der, &CertificateName::parse(text).unwrap().unwrap());
        for good in [
            "subject_dn=CN=client,O=Acme\\, Inc,C=DE",
            "san_dns=client.test",
            "san_dns=CLIENT.test",
            "san_uri=urn:client:1",
            "san_ip=10.0.0.7",
            "san_email=ops@client.test",
        ] {
            assert!(bears(good), "{good}");
        }
        for bad in [
            "subject_dn=C=DE,O=Acme\\, Inc,CN=client",
            "subject_dn=CN=client",
            "san_dns=test",
            "san_dns=urn:client:1",
            "san_uri=client.test",
            "san_ip=10.0.0.8",
            "san_ip=x",
            "san_email=other@client.test",
        ] {
            assert!(!bears(bad), "{bad}");
        }
        assert!(!super::bears(
            &der[..der.len() - 1],
            &CertificateName::parse("san_dns=client.test").unwrap().unwrap()
        ));
    }
}
