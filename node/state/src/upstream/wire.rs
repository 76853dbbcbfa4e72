//! Providers on the wire.

use std::sync::Arc;

use conclave_proto::{command::v1 as pb, state::v1 as rows};
use imbl::OrdSet;

use super::{
    Admission, AllowList, Claims, ProviderLocation, Rule, Upstream,
    atmosphere::{parse_did, parse_handle},
};
use crate::{ids::GroupId, reply::Refusal, snapshot::Row, stamp::Stamp, state::State, text};

/// Longest name: it is part of a URL.
const MAX_NAME_BYTES: usize = 32;
/// Longest subject (OIDC Core §2).
const MAX_SUBJECT_BYTES: usize = 255;
/// Longest sealed secret: a long secret plus the overhead of sealing.
const MAX_SECRET_BYTES: usize = 2_048;
/// Most scopes, domains and groups of one provider.
const MAX_SCOPES: usize = 32;
const MAX_DOMAINS: usize = 64;
const MAX_GROUPS: usize = 64;
/// Longest domain name (RFC 1035 §2.3.4).
const MAX_DOMAIN_BYTES: usize = 253;

/// Parses a subject: printable ASCII, as providers write it; compared byte by byte.
pub(super) fn parse_subject(subject: &str, location: &ProviderLocation) -> Result<Arc<str>, Refusal> {
    if *location == ProviderLocation::Atmosphere {
        return parse_did(subject);
    }
    let fits = !subject.is_empty() && subject.len() <= MAX_SUBJECT_BYTES;
    if !fits || !subject.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Err(Refusal::malformed("a subject has 1 to 255 printable ASCII characters"));
    }
    Ok(subject.into())
}

/// Parses a handle that was verified at this moment; none for other providers, or if none was verified.
pub(super) fn parse_verified(
    handle: &str,
    location: &ProviderLocation,
    at: Stamp,
) -> Result<Option<(Arc<str>, Stamp)>, Refusal> {
    match (handle, location) {
        ("", _) => Ok(None),
        (handle, ProviderLocation::Atmosphere) => Ok(Some((parse_handle(handle)?, at))),
        _ => Err(Refusal::malformed("only Atmosphere has handles")),
    }
}

/// Shortens a label. It is only displayed, so it is cut rather than refused.
pub(super) fn parse_label(label: &str) -> Result<String, Refusal> {
    Ok(label.chars().filter(|c| !c.is_control()).take(text::MAX_TEXT_BYTES / 4).collect())
}

pub(super) fn parse_secret(sealed: &[u8]) -> Result<Vec<u8>, Refusal> {
    if sealed.len() > MAX_SECRET_BYTES {
        return Err(Refusal::malformed("the client secret is too long"));
    }
    Ok(sealed.to_vec())
}

pub(super) fn parse_scopes(scopes: &[String]) -> Result<Vec<String>, Refusal> {
    let is_scope = |scope: &String| {
        !scope.is_empty()
            && scope.len() <= text::MAX_TEXT_BYTES
            && scope.bytes().all(|b| b.is_ascii_graphic())
    };
    if scopes.len() > MAX_SCOPES || !scopes.iter().all(is_scope) {
        return Err(Refusal::malformed(format!("at most {MAX_SCOPES} scopes, each without spaces")));
    }
    Ok(scopes.to_vec())
}

pub(super) fn parse_claims(
    claims: pb::UpstreamClaims,
    location: &ProviderLocation,
) -> Result<Claims, Refusal> {
    if location.is_discovered() && !matches!(claims.subject.as_str(), "" | "sub") {
        return Err(Refusal::malformed("the subject of an OpenID Provider is its sub"));
    }
    let name = |name: String| text::line("a claim's name", &name, text::MAX_TEXT_BYTES);
    Ok(Claims {
        subject: name(claims.subject)?,
        username: name(claims.username)?,
        email: name(claims.email)?,
        email_verified: name(claims.email_verified)?,
        name: name(claims.name)?,
    })
}

pub(super) fn parse_rule(rule: &pb::UpstreamRule, location: &ProviderLocation) -> Result<Rule, Refusal> {
    let admission = match rule.admission() {
        Admission::Unspecified => Admission::None,
        given => given,
    };
    if rule.domains.len() > MAX_DOMAINS || rule.group_ids.len() > MAX_GROUPS {
        return Err(Refusal::malformed(format!("at most {MAX_DOMAINS} domains and {MAX_GROUPS} groups")));
    }
    let listed = AllowList::parse(rule)?;
    let is_atmosphere = *location == ProviderLocation::Atmosphere;
    if admission == if is_atmosphere { Admission::Domains } else { Admission::Listed } {
        return Err(Refusal::malformed(
            "Atmosphere admits by DIDs and handles, and every other provider by domains",
        ));
    }
    if !is_atmosphere && listed != AllowList::default() {
        return Err(Refusal::malformed("DIDs, handles and a first token are for Atmosphere"));
    }
    if (admission == Admission::Domains) == rule.domains.is_empty() {
        return Err(Refusal::malformed("domains are for the admission by domains, which needs one"));
    }
    let domain = |domain: &String| {
        let lower = domain.trim_start_matches('@').to_ascii_lowercase();
        text::slug("domain", &lower, MAX_DOMAIN_BYTES).map(Arc::<str>::from)
    };
    Ok(Rule {
        admission,
        domains: rule.domains.iter().map(domain).collect::<Result<OrdSet<_>, _>>()?,
        groups: rule.group_ids.iter().map(|id| GroupId::parse(id)).collect::<Result<_, _>>()?,
        listed,
    })
}

/// Parses the provider's location. URLs were parsed at the edge; only their form is checked here.
fn parse_location(command: &pb::Upstream) -> Result<ProviderLocation, Refusal> {
    let uri = |field, uri: &str| text::line(field, uri, text::MAX_URI_BYTES);
    let endpoints = [&command.authorization_endpoint, &command.token_endpoint, &command.userinfo_endpoint];
    if command.atmosphere {
        let is_alone = command.issuer.is_empty() && endpoints.iter().all(|uri| uri.is_empty());
        let why = "Atmosphere has neither issuer nor endpoints: they are found for each person";
        return if is_alone { Ok(ProviderLocation::Atmosphere) } else { Err(Refusal::malformed(why)) };
    }
    match (command.issuer.is_empty(), endpoints.iter().filter(|uri| uri.is_empty()).count()) {
        (false, 3) => Ok(ProviderLocation::Issuer(uri("issuer", &command.issuer)?)),
        (true, 0) => Ok(ProviderLocation::Endpoints {
            authorization: uri("authorization_endpoint", &command.authorization_endpoint)?,
            token: uri("token_endpoint", &command.token_endpoint)?,
            userinfo: uri("userinfo_endpoint", &command.userinfo_endpoint)?,
        }),
        _ => Err(Refusal::malformed("an upstream has an issuer, or all three endpoints")),
    }
}

/// Parses the client id. On the Atmosphere, the client id of this cluster is the URL of its own metadata document.
pub(super) fn parse_client_id(client_id: &str, location: &ProviderLocation) -> Result<String, Refusal> {
    match location {
        ProviderLocation::Atmosphere if client_id.is_empty() => Ok(String::new()),
        ProviderLocation::Atmosphere => Err(Refusal::malformed("Atmosphere gives out no client_id")),
        _ => text::required("client_id", client_id, text::MAX_TEXT_BYTES),
    }
}

pub(super) fn parse(command: pb::Upstream, created_at: Stamp) -> Result<Upstream, Refusal> {
    let name = text::slug("upstream name", &command.name, MAX_NAME_BYTES)?;
    if name.starts_with('.') {
        return Err(Refusal::malformed("an upstream's name does not begin with a dot"));
    }
    let location = parse_location(&command)?;
    Ok(Upstream {
        name: name.into(),
        display_name: text::required("display_name", &command.display_name, text::MAX_TEXT_BYTES)?,
        client_id: parse_client_id(&command.client_id, &location)?,
        sealed_secret: parse_secret(&command.sealed_secret)?,
        scopes: parse_scopes(&command.scopes)?,
        claims: parse_claims(command.claims.unwrap_or_default(), &location)?,
        rule: parse_rule(&command.rule.unwrap_or_default(), &location)?,
        disabled: command.disabled,
        location,
        created_at,
    })
}

impl Rule {
    fn to_wire(&self) -> pb::UpstreamRule {
        let mut rule = pb::UpstreamRule {
            admission: self.admission.into(),
            domains: self.domains.iter().map(ToString::to_string).collect(),
            group_ids: self.groups.iter().map(|id| id.to_vec()).collect(),
            ..pb::UpstreamRule::default()
        };
        self.listed.to_wire(&mut rule);
        rule
    }
}

impl Row for Upstream {
    const TABLE: u32 = 120;
    type Wire = rows::UpstreamRow;

    fn to_wire(&self) -> rows::UpstreamRow {
        let (issuer, [authorization_endpoint, token_endpoint, userinfo_endpoint]) =
            match self.location.clone() {
                ProviderLocation::Issuer(issuer) => (issuer, [const { String::new() }; 3]),
                ProviderLocation::Atmosphere => (String::new(), [const { String::new() }; 3]),
                ProviderLocation::Endpoints { authorization, token, userinfo } => {
                    (String::new(), [authorization, token, userinfo])
                }
            };
        let claims = self.claims.clone();
        let upstream = pb::Upstream {
            name: self.name.to_string(),
            display_name: self.display_name.clone(),
            issuer,
            authorization_endpoint,
            token_endpoint,
            userinfo_endpoint,
            client_id: self.client_id.clone(),
            sealed_secret: self.sealed_secret.clone(),
            scopes: self.scopes.clone(),
            claims: Some(pb::UpstreamClaims {
                subject: claims.subject,
                username: claims.username,
                email: claims.email,
                email_verified: claims.email_verified,
                name: claims.name,
            }),
            rule: Some(self.rule.to_wire()),
            disabled: self.disabled,
            atmosphere: self.is_atmosphere(),
        };
        rows::UpstreamRow { upstream: Some(upstream), created_at_ms: self.created_at.0 }
    }

    fn from_wire(wire: rows::UpstreamRow) -> Result<Self, Refusal> {
        parse(wire.upstream.unwrap_or_default(), Stamp(wire.created_at_ms))
    }

    fn put(self, state: &mut State) {
        state.put_upstream(self);
    }
}
