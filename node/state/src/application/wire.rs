//! Applications on the wire.

use std::sync::Arc;

use conclave_proto::{command::v1 as pb, state::v1 as rows};
use imbl::OrdSet;

use super::{Access, Application, CheckRules};
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

/// Longest time without a quorum: whoever is cut off for a day is no outage any more but a fork.
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

/// Absent when it says nothing: rows of before have none.
fn check_to_wire(rules: CheckRules) -> Option<pb::CheckRules> {
    let CheckRules { bearer, basic, assertion } = rules;
    (rules != CheckRules::default()).then_some(pb::CheckRules { bearer, basic, assertion })
}

/// What a wildcard begins with.
const WILDCARD: &str = "*.";

/// Lower case, no port: a name, or `*.` before a domain of at least two labels. `*.org` would be half the world.
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

pub(super) fn parse_hosts(hosts: &[String]) -> Result<OrdSet<Arc<str>>, Refusal> {
    if hosts.len() > MAX_HOSTS {
        return Err(Refusal::malformed(format!("an application has at most {MAX_HOSTS} hosts")));
    }
    hosts.iter().map(|host| parse_host(host)).collect()
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
        }
    }

    fn from_wire(wire: rows::ApplicationRow) -> Result<Self, Refusal> {
        let access = wire.access.unwrap_or_default();
        Ok(Self {
            id: ApplicationId::parse(&wire.application_id)?,
            slug: wire.slug.into(),
            name: wire.name,
            launch_url: wire.launch_url,
            hosts: parse_hosts(&wire.hosts)?,
            access: Access {
                everyone: access.everyone,
                groups: access.group_ids.iter().map(|g| GroupId::parse(g)).collect::<Result<_, _>>()?,
            },
            serve_known_for_ms: wire.serve_known_for_ms,
            check: parse_check(wire.check.as_ref()),
            created_at: Stamp(wire.created_at_ms),
        })
    }

    fn put(self, state: &mut State) {
        state.put_application(self);
    }
}
