//! Other providers at which users may sign in, and the identities there.
//!
//! An identity is a subject at one provider, and belongs to one user here. It is made in two ways only: by the user,
//! from a session in which they have just authenticated, or together with a new user that the provider may bring in. An
//! e-mail address, verified or not, never leads to a user. The issuer that a subject belongs to never changes in a row.

mod atmosphere;
mod commands;
mod handle;
mod identity;
mod invitation;
mod sign_in;
mod wire;

use std::sync::Arc;

use imbl::OrdSet;

pub(crate) use {
    commands::{create, delete, update},
    handle::check as check_handle,
    identity::{link, unlink},
    invitation::{invite, revoke as revoke_invitation},
    sign_in::{arrive, sign_in, sign_in_by_handle},
};

pub use atmosphere::{AllowList, Who};
pub use conclave_proto::command::v1::UpstreamAdmission as Admission;
pub use handle::{Doubt, LetIn};
pub use identity::LinkedIdentity;
pub use invitation::Invitation;

use crate::{
    ids::GroupId,
    reply::{Reason, Refusal},
    stamp::Stamp,
    state::State,
};

/// A provider.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Unique name for machines: part of its redirect URI.
    pub name: Arc<str>,
    /// Display name.
    pub display_name: String,
    /// Its endpoints or issuer, to which its subjects belong.
    pub location: ProviderLocation,
    /// The client id of this cluster at the provider.
    pub client_id: String,
    /// The client secret of this cluster at the provider, sealed; empty = none.
    pub sealed_secret: Vec<u8>,
    /// The requested scopes.
    pub scopes: Vec<String>,
    /// The names of the claims.
    pub claims: Claims,
    /// Admission rule for new users.
    pub rule: Rule,
    /// No user can sign in by it.
    pub disabled: bool,
    /// Creation time.
    pub created_at: Stamp,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("name", &self.name)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

/// The location of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderLocation {
    /// An OpenID Provider with this issuer; the rest is discovered.
    Issuer(String),
    /// Plain OAuth 2.0: userinfo identifies the user.
    Endpoints {
        /// The authorization endpoint.
        authorization: String,
        /// The token endpoint.
        token: String,
        /// The userinfo endpoint.
        userinfo: String,
    },
    /// The Atmosphere network (atproto): subjects are DIDs, and the server that is responsible for a DID is looked up
    /// at each sign-in.
    Atmosphere,
}

/// Names of claims; empty = the one in OIDC Core §5.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// `sub`
    pub subject: String,
    /// `preferred_username`
    pub username: String,
    /// `email`
    pub email: String,
    /// `email_verified`
    pub email_verified: String,
    /// `name`
    pub name: String,
}

/// Admission rule of a provider for new users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The general rule.
    pub admission: Admission,
    /// E-mail domains in lower case; whole domains, without subdomains.
    pub domains: OrdSet<Arc<str>>,
    /// The groups of new users.
    pub groups: OrdSet<GroupId>,
    /// Additional rules for Atmosphere.
    pub listed: AllowList,
}

impl Rule {
    /// Every group that the rule names.
    pub(super) fn all_groups(&self) -> impl Iterator<Item = GroupId> {
        self.groups.iter().copied().chain(self.listed.groups())
    }

    /// True if a new user with this address may sign in. Doubt denies.
    pub fn admits(&self, email: &str, email_verified: bool) -> bool {
        match self.admission {
            Admission::Any => true,
            Admission::Domains => {
                let domain = email.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase());
                email_verified && domain.is_some_and(|domain| self.domains.contains(&*domain))
            }
            Admission::None | Admission::Listed | Admission::Unspecified => false,
        }
    }
}

impl Upstream {
    /// True if users come from the Atmosphere network.
    pub const fn is_atmosphere(&self) -> bool {
        matches!(self.location, ProviderLocation::Atmosphere)
    }

    /// True if a new user with this DID, and this verified handle if there is one, may sign in.
    pub fn admits_from_atmosphere(&self, did: &str, handle: &str) -> bool {
        match self.rule.admission {
            Admission::Any => true,
            Admission::Listed => self.rule.listed.admits(did, handle),
            Admission::None | Admission::Domains | Admission::Unspecified => false,
        }
    }
}

impl State {
    /// The provider with this name.
    pub fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// Providers in the order of their names.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// Providers in the order of their names, after `after`.
    pub fn upstreams_after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<Upstream>> {
        let after = after.map(Arc::<str>::from);
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.upstreams.range((start, std::ops::Bound::Unbounded)).map(|(_, row)| row)
    }

    pub(crate) fn existing_upstream(&self, name: &str) -> Result<Arc<Upstream>, Refusal> {
        let unknown = || Refusal::new(Reason::UpstreamUnknown, format!("there is no upstream {name}"));
        self.upstreams.get(name).cloned().ok_or_else(unknown)
    }

    /// The provider, unless disabled.
    pub(crate) fn able_upstream(&self, name: &str) -> Result<Arc<Upstream>, Refusal> {
        let upstream = self.existing_upstream(name)?;
        if upstream.disabled {
            return Err(Refusal::new(Reason::UpstreamDisabled, format!("upstream {name} is disabled")));
        }
        Ok(upstream)
    }

    pub(crate) fn put_upstream(&mut self, upstream: Upstream) {
        self.upstreams.insert(upstream.name.clone(), Arc::new(upstream));
    }

    pub(crate) fn forget_group_in_upstreams(&mut self, group: GroupId) {
        let named: Vec<Arc<Upstream>> =
            self.upstreams.values().filter(|u| u.rule.all_groups().any(|id| id == group)).cloned().collect();
        for upstream in named {
            let mut upstream = (*upstream).clone();
            upstream.rule.groups.remove(&group);
            upstream.rule.listed.forget_group(group);
            self.put_upstream(upstream);
        }
        self.forget_group_in_invitations(group);
    }
}
