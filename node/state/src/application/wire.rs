//! Applications on the wire.

use std::{net::Ipv6Addr, sync::Arc};

use conclave_proto::{command::v1 as pb, state::v1 as rows};
use imbl::OrdSet;

use super::{Access, Application, CheckRules, HeaderProfile, HeaderText, IdentityHeaders};
use crate::{
    ids::{ApplicationId, GroupId},
    reply::Refusal,
    snapshot::Row,
    stamp::Stamp,
    state::State,
    text,
};

/// Most hosts of one application.
const MAX_HOSTS: usize = 32;
/// Most groups in one rule.
const MAX_GROUPS: usize = 64;
/// Longest host name (RFC 1035 §2.3.4).
const MAX_HOST_BYTES: usize = 253;

pub(super) fn parse_access(state: &State, access: Option<&pb::Access>) -> Result<Access, Refusal> {
    let Some(access) = access else { return Ok(Access::default()) };
    if access.group_ids.len() > MAX_GROUPS {
        return Err(Refusal::malformed(format!("an access rule names at most {MAX_GROUPS} groups")));
    }
    let groups = access
        .group_ids
        .iter()
        .map(|bytes| Ok(state.existing_group(GroupId::parse(bytes)?)?.id))
        .collect::<Result<_, Refusal>>()?;
    Ok(Access { everyone: access.everyone, groups })
}

/// Longest time without a quorum: a node that is partitioned for a day is a fork, not an outage.
const MAX_SERVE_KNOWN_FOR_MS: u64 = 24 * 3_600_000;

pub(super) fn parse_serve_known_for(ms: u64) -> Result<u64, Refusal> {
    if ms > MAX_SERVE_KNOWN_FOR_MS {
        return Err(Refusal::malformed("serve_known_for: at most 24 h"));
    }
    Ok(ms)
}

pub(super) fn parse_check(rules: Option<&pb::CheckRules>) -> CheckRules {
    let rules = rules.copied().unwrap_or_default();
    CheckRules { bearer: rules.bearer, basic: rules.basic, assertion: rules.assertion }
}

/// Encodes the check rules. Absent for the default: rows from before these rules existed have none.
fn check_to_wire(rules: CheckRules) -> Option<pb::CheckRules> {
    let CheckRules { bearer, basic, assertion } = rules;
    (rules != CheckRules::default()).then_some(pb::CheckRules { bearer, basic, assertion })
}

/// The identity headers after a command; fields that the command leaves unspecified stay as in `before`.
pub(super) fn parse_identity_headers(
    before: IdentityHeaders,
    change: Option<&pb::IdentityHeaders>,
) -> Result<IdentityHeaders, Refusal> {
    let Some(change) = change else { return Ok(before) };
    let profile = match pb::HeaderProfile::try_from(change.profile) {
        Ok(pb::HeaderProfile::Unspecified) => before.profile,
        Ok(pb::HeaderProfile::All) => HeaderProfile::All,
        Ok(pb::HeaderProfile::Authentik) => HeaderProfile::Authentik,
        Ok(pb::HeaderProfile::Remote) => HeaderProfile::Remote,
        Ok(pb::HeaderProfile::AuthRequest) => HeaderProfile::AuthRequest,
        Err(_) => return Err(Refusal::malformed("identity_headers: unknown profile")),
    };
    let text = match pb::HeaderText::try_from(change.text) {
        Ok(pb::HeaderText::Unspecified) => before.text,
        Ok(pb::HeaderText::Raw) => HeaderText::Raw,
        Ok(pb::HeaderText::Percent) => HeaderText::Percent,
        Ok(pb::HeaderText::Omit) => HeaderText::Omit,
        Err(_) => return Err(Refusal::malformed("identity_headers: unknown text encoding")),
    };
    Ok(IdentityHeaders { profile, text })
}

/// Encodes the identity headers. Absent for the default: rows from before these options existed have none.
fn identity_headers_to_wire(headers: IdentityHeaders) -> Option<pb::IdentityHeaders> {
    let profile = match headers.profile {
        HeaderProfile::All => pb::HeaderProfile::All,
        HeaderProfile::Authentik => pb::HeaderProfile::Authentik,
        HeaderProfile::Remote => pb::HeaderProfile::Remote,
        HeaderProfile::AuthRequest => pb::HeaderProfile::AuthRequest,
    };
    let text = match headers.text {
        HeaderText::Raw => pb::HeaderText::Raw,
        HeaderText::Percent => pb::HeaderText::Percent,
        HeaderText::Omit => pb::HeaderText::Omit,
    };
    let is_default = headers == IdentityHeaders::default();
    (!is_default).then_some(pb::IdentityHeaders { profile: profile.into(), text: text.into() })
}

/// Prefix of a wildcard.
const WILDCARD: &str = "*.";

/// Parses a host: lower case, no port, a name, or `*.` before a domain of at least two labels. `*.org` would match too
/// many hosts.
fn parse_host(host: &str) -> Result<Arc<str>, Refusal> {
    let host = host.to_ascii_lowercase();
    let (prefix, name) = match host.strip_prefix(WILDCARD) {
        Some(domain) => (WILDCARD, domain),
        None => ("", host.as_str()),
    };
    let name = text::slug("host", name, MAX_HOST_BYTES)?;
    if !prefix.is_empty() && (!name.contains('.') || name.split('.').any(str::is_empty)) {
        return Err(Refusal::malformed(format!(
            "host: {host:?} must be '*.' before a domain of two labels or more, such as *.example.org"
        )));
    }
    Ok(format!("{prefix}{name}").into())
}

/// Parses an IPv6 address in brackets; only the canonical form of RFC 5952 is accepted.
fn parse_address_host(host: &str) -> Result<Arc<str>, Refusal> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = inner.and_then(|inner| inner.parse::<Ipv6Addr>().ok());
    let address = address.filter(|address| format!("[{address}]") == host);
    let wrong = || {
        Refusal::malformed(format!("host: {host:?} is not an IPv6 address in brackets, in its short form"))
    };
    address.map(|_| host.into()).ok_or_else(wrong)
}

pub(super) fn parse_hosts(names: &[String], addresses: &[String]) -> Result<OrdSet<Arc<str>>, Refusal> {
    if names.len().saturating_add(addresses.len()) > MAX_HOSTS {
        return Err(Refusal::malformed(format!("an application has at most {MAX_HOSTS} hosts")));
    }
    let addresses = addresses.iter().map(|host| parse_address_host(host));
    names.iter().map(|host| parse_host(host)).chain(addresses).collect()
}

impl Row for Application {
    const TABLE: u32 = 5;
    type Wire = rows::ApplicationRow;

    fn to_wire(&self) -> rows::ApplicationRow {
        rows::ApplicationRow {
            application_id: self.id.to_vec(),
            slug: self.slug.to_string(),
            name: self.name.clone(),
            launch_url: self.launch_url.clone(),
            hosts: self.hosts.iter().map(std::string::ToString::to_string).collect(),
            access: Some(pb::Access {
                everyone: self.access.everyone,
                group_ids: self.access.groups.iter().map(|g| g.to_vec()).collect(),
            }),
            created_at_ms: self.created_at.0,
            serve_known_for_ms: self.serve_known_for_ms,
            check: check_to_wire(self.check),
            identity_headers: identity_headers_to_wire(self.identity_headers),
        }
    }

    fn from_wire(wire: rows::ApplicationRow) -> Result<Self, Refusal> {
        let (addresses, names): (Vec<_>, Vec<_>) =
            wire.hosts.into_iter().partition(|host| host.starts_with('['));
        let access = wire.access.unwrap_or_default();
        Ok(Self {
            id: ApplicationId::parse(&wire.application_id)?,
            slug: wire.slug.into(),
            name: wire.name,
            launch_url: wire.launch_url,
            hosts: parse_hosts(&names, &addresses)?,
            access: Access {
                everyone: access.everyone,
                groups: access.group_ids.iter().map(|g| GroupId::parse(g)).collect::<Result<_, _>>()?,
            },
            serve_known_for_ms: wire.serve_known_for_ms,
            check: parse_check(wire.check.as_ref()),
            identity_headers: parse_identity_headers(
                IdentityHeaders::default(),
                wire.identity_headers.as_ref(),
            )?,
            created_at: Stamp(wire.created_at_ms),
        })
    }

    fn put(self, state: &mut State) {
        state.put_application(self);
    }
}
