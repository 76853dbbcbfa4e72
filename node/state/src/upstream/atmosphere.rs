//! Admission of users from the Atmosphere network (atproto). A user is identified by a DID, which never changes. A
//! handle is a name that a DID has at present, and is accepted only if the requesting node has just verified it in both
//! directions.

use std::sync::Arc;

use conclave_proto::command::v1 as pb;
use imbl::OrdSet;

use crate::{
    ids::{GroupId, SecretHash},
    reply::{Reason, Refusal},
};

/// Longest DID (atproto allows 2 KiB; the supported methods stay far below) and longest handle (RFC 1035).
const MAX_DID_BYTES: usize = 255;
const MAX_HANDLE_BYTES: usize = 253;
/// Most listed DIDs and handles, and most mappings: lists that an operator maintains by hand. A larger group has a
/// domain.
const MAX_LISTED: usize = 256;
const MAX_GROUPS: usize = 64;

/// A DID or a pattern of handles.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A DID, compared byte by byte.
    Did(Arc<str>),
    /// One handle.
    Handle(Arc<str>),
    /// Every handle below this domain, but not the domain itself.
    Below(Arc<str>),
}

/// The additional admission rules of an Atmosphere provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    /// The users who may sign in.
    pub who: OrdSet<Who>,
    /// Additional groups for new users.
    pub mapped: Vec<(Who, OrdSet<GroupId>)>,
    /// The token with which the first user signs in, and the group that the user is added to.
    pub first: Option<(SecretHash, Option<GroupId>)>,
}

impl Who {
    /// Parses a DID, a handle or a pattern.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text.starts_with("did:") {
            return parse_did(text).map(Self::Did);
        }
        match text.strip_prefix("*.") {
            Some(domain) => parse_handle(domain).map(Self::Below),
            None => parse_handle(text).map(Self::Handle),
        }
    }

    /// True if this matches the user with this DID and, if there is one, this verified handle.
    pub fn is(&self, did: &str, handle: &str) -> bool {
        match self {
            Self::Did(own) => **own == *did,
            Self::Handle(own) => !handle.is_empty() && own.eq_ignore_ascii_case(handle),
            Self::Below(domain) => {
                let handle = handle.to_ascii_lowercase();
                let above = handle.strip_suffix(&**domain).and_then(|rest| rest.strip_suffix('.'));
                above.is_some_and(|below| !below.is_empty())
            }
        }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Did(text) | Self::Handle(text) => f.write_str(text),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl AllowList {
    /// True if this user is listed.
    pub fn admits(&self, did: &str, handle: &str) -> bool {
        self.who.iter().any(|who| who.is(did, handle))
    }

    /// The groups that this user is mapped to.
    pub fn groups_of(&self, did: &str, handle: &str) -> OrdSet<GroupId> {
        let own = self.mapped.iter().filter(|(who, _)| who.is(did, handle));
        own.flat_map(|(_, groups)| groups.iter().copied()).collect()
    }

    pub(super) fn parse(rule: &pb::UpstreamRule) -> Result<Self, Refusal> {
        if rule.dids.len() + rule.handles.len() > MAX_LISTED || rule.mapped.len() > MAX_LISTED {
            return Err(Refusal::malformed(format!(
                "at most {MAX_LISTED} DIDs and handles are listed or mapped"
            )));
        }
        let listed = rule.dids.iter().chain(&rule.handles).map(|text| Who::parse(text));
        let first = match rule.first_token_hash.as_slice() {
            [] => None,
            hash => {
                let group = (!rule.first_group_id.is_empty()).then(|| GroupId::parse(&rule.first_group_id));
                Some((SecretHash::parse(hash)?, group.transpose()?))
            }
        };
        Ok(Self {
            who: listed.collect::<Result<_, _>>()?,
            mapped: rule.mapped.iter().map(mapped).collect::<Result<_, _>>()?,
            first,
        })
    }

    pub(super) fn to_wire(&self, rule: &mut pb::UpstreamRule) {
        let (dids, handles): (Vec<_>, Vec<_>) =
            self.who.iter().map(ToString::to_string).partition(|text| text.starts_with("did:"));
        (rule.dids, rule.handles) = (dids, handles);
        let mapped = |(who, groups): &(Who, OrdSet<GroupId>)| pb::MappedGroups {
            who: who.to_string(),
            group_ids: groups.iter().map(|id| id.to_vec()).collect(),
        };
        rule.mapped = self.mapped.iter().map(mapped).collect();
        if let Some((hash, group)) = &self.first {
            rule.first_token_hash = hash.bytes().to_vec();
            rule.first_group_id = group.map(GroupId::to_vec).unwrap_or_default();
        }
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> {
        let mapped = self.mapped.iter().flat_map(|(_, groups)| groups.iter().copied());
        mapped.chain(self.first.and_then(|(_, group)| group))
    }

    pub(super) fn forget_group(&mut self, group: GroupId) {
        for (_, groups) in &mut self.mapped {
            groups.remove(&group);
        }
        if let Some((_, first)) = &mut self.first {
            *first = first.filter(|known| *known != group);
        }
    }
}

fn mapped(mapped: &pb::MappedGroups) -> Result<(Who, OrdSet<GroupId>), Refusal> {
    if mapped.group_ids.len() > MAX_GROUPS {
        return Err(Refusal::malformed(format!("at most {MAX_GROUPS} groups are mapped to")));
    }
    let groups = mapped.group_ids.iter().map(|id| GroupId::parse(id)).collect::<Result<_, _>>()?;
    Ok((Who::parse(&mapped.who)?, groups))
}

/// Parses a DID of the two methods of atproto. The part after the method's name is compared byte by byte.
pub(super) fn parse_did(text: &str) -> Result<Arc<str>, Refusal> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    let is_known =
        ["did:plc:", "did:web:"].iter().any(|method| text.starts_with(method) && text.len() > method.len());
    if !is_known || text.len() > MAX_DID_BYTES || !text.chars().all(fits) {
        return Err(Refusal::malformed(format!("{text:?} is no did:plc or did:web")));
    }
    Ok(text.into())
}

/// Parses a handle: a name of at least two labels, in lower case. A `*` is not allowed.
pub(super) fn parse_handle(text: &str) -> Result<Arc<str>, Refusal> {
    let lower = text.to_ascii_lowercase();
    let label = |label: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        label.len() <= 63
            && edge(label.chars().next())
            && edge(label.chars().next_back())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let is_name = lower.len() <= MAX_HANDLE_BYTES && lower.contains('.') && lower.split('.').all(label);
    // No top-level domain begins with a digit: 127.0.0.1 is not a handle.
    let ends_in_letter =
        lower.rsplit('.').next().is_some_and(|last| !last.starts_with(|c: char| c.is_ascii_digit()));
    if is_name && ends_in_letter {
        return Ok(lower.into());
    }
    let why =
        format!("{text:?} is no handle; write name.example.com, or *.example.com for all names below it");
    Err(Refusal::new(Reason::Malformed, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_every_name_below_a_domain_and_no_other() {
        let below = Who::parse("*.Example.com").unwrap();
        for (handle, is) in [
            ("a.example.com", true),
            ("A.EXAMPLE.COM", true),
            ("a.b.example.com", true),
            ("example.com", false),
            ("evilexample.com", false),
            (".example.com", false),
            ("a.example.com.", false),
            ("a.example.com.evil.test", false),
            ("", false),
        ] {
            assert_eq!(below.is("did:plc:x", handle), is, "{handle}");
        }
        assert!(Who::parse("did:plc:x").unwrap().is("did:plc:x", ""));
        assert!(!Who::parse("did:plc:x").unwrap().is("did:plc:X", ""));
        assert!(!Who::parse("a.example.com").unwrap().is("did:plc:x", ""), "no handle was verified");
    }

    #[test]
    fn what_is_no_handle_and_no_did_is_refused() {
        for bad in [
            "*",
            "*.",
            "*.com",
            "a*.example.com",
            "a.*.com",
            "example",
            "127.0.0.1",
            "a..b",
            "-a.b",
            "a-.b",
            "did:key:z",
            "did:plc:",
            "did:web:a b",
            "",
            "a.b/",
            "exämple.com",
        ] {
            assert!(Who::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Who::parse("*.A.Test").unwrap().to_string(), "*.a.test");
    }
}
