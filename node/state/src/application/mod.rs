//! Applications: their hosts, launch URLs and access rules. Slugs and hosts are unique across the cluster.

mod commands;
mod wire;

use std::sync::Arc;

use imbl::OrdSet;

pub(crate) use commands::{create, delete, update};

use crate::{
    ids::{ApplicationId, GroupId},
    reply::{Reason, Refusal},
    stamp::Stamp,
    state::State,
    user::User,
};

/// An application that users open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// The application's id.
    pub id: ApplicationId,
    /// Unique name for machines.
    pub slug: Arc<str>,
    /// Display name.
    pub name: String,
    /// The URL at which users open it; empty = none.
    pub launch_url: String,
    /// Hosts that forward-auth protects, lower case, without port; `*.example.org` is every host below that domain.
    pub hosts: OrdSet<Arc<str>>,
    /// Access rule: the users who may open it.
    pub access: Access,
    /// Longest time after its last confirmation for which a partitioned node may still admit known sessions, in
    /// milliseconds; 0 = not at all (docs/design/serve-leases.md).
    pub serve_known_for_ms: u64,
    /// Ways to pass the check other than by a session.
    pub check: CheckRules,
    /// Headers by which the check passes the user to the application.
    pub identity_headers: IdentityHeaders,
    /// Creation time.
    pub created_at: Stamp,
}

/// Ways to pass an application's check other than by a session. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckRules {
    /// Programs may present an access token with the application as audience.
    pub bearer: bool,
    /// Programs may present an app password by HTTP Basic.
    pub basic: bool,
    /// Each admitted request carries a signed assertion.
    pub assertion: bool,
}

/// Headers by which the check passes the user to an application. The default is the behaviour from before these options
/// existed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// The headers that carry the user.
    pub profile: HeaderProfile,
    /// The encoding of text outside ASCII in them.
    pub text: HeaderText,
}

/// The identity headers that carry the user. Headers of the other profiles are written empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderProfile {
    /// All three profiles.
    #[default]
    All,
    /// `X-authentik-*`
    Authentik,
    /// `Remote-*`
    Remote,
    /// `X-Auth-Request-*`
    AuthRequest,
}

/// Encoding of text outside ASCII, such as a display name, in identity headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderText {
    /// UTF-8 bytes as they are.
    #[default]
    Raw,
    /// Percent-encoded UTF-8; `%` itself is encoded as well, so that decoding once gives the text.
    Percent,
    /// Not at all: the header is empty.
    Omit,
}

/// Access rule of an application. The default admits no user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Every user who can sign in.
    pub everyone: bool,
    /// Or the members of any of these groups.
    pub groups: OrdSet<GroupId>,
}

impl Access {
    /// True if the rule admits the user. An empty rule admits no user.
    pub fn admits(&self, user: &User) -> bool {
        !user.disabled && (self.everyone || self.groups.iter().any(|group| user.groups.contains(group)))
    }
}

impl State {
    /// The application with this id.
    pub fn application(&self, id: ApplicationId) -> Option<&Arc<Application>> {
        self.applications.get(&id)
    }

    /// The application with this slug.
    pub fn application_by_slug(&self, slug: &str) -> Option<&Arc<Application>> {
        self.applications.get(self.slugs.get(slug)?)
    }

    /// The application that this host (lower case, without port) belongs to: by its own name, or else by the longest
    /// wildcard above it. `*.example.org` is every host below `example.org`, however many labels, and not `example.org`
    /// itself.
    pub fn application_by_host(&self, host: &str) -> Option<&Arc<Application>> {
        let owner = self.hosts.get(host).or_else(|| self.owner_of_wildcard_above(host))?;
        self.applications.get(owner)
    }

    fn owner_of_wildcard_above(&self, host: &str) -> Option<&ApplicationId> {
        // An empty label makes the host invalid; a wildcard must not match it.
        if host.split('.').any(str::is_empty) {
            return None;
        }
        let parents = host.match_indices('.').filter_map(|(at, _)| host.get(at..));
        parents.into_iter().find_map(|parent| self.hosts.get(format!("*{parent}").as_str()))
    }

    /// Applications in the order of their ids, after `after`.
    pub fn applications_after(
        &self,
        after: Option<ApplicationId>,
    ) -> impl Iterator<Item = &Arc<Application>> {
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.applications.range((start, std::ops::Bound::Unbounded)).map(|(_, row)| row)
    }

    pub(crate) fn existing_application(&self, id: ApplicationId) -> Result<Arc<Application>, Refusal> {
        let unknown = || Refusal::new(Reason::ApplicationUnknown, format!("there is no application {id}"));
        self.applications.get(&id).cloned().ok_or_else(unknown)
    }

    pub(crate) fn put_application(&mut self, application: Application) {
        if let Some(before) = self.applications.get(&application.id).cloned() {
            self.take_application(&before);
        }
        self.slugs.insert(application.slug.clone(), application.id);
        for host in &application.hosts {
            self.hosts.insert(host.clone(), application.id);
        }
        self.applications.insert(application.id, Arc::new(application));
    }

    pub(crate) fn take_application(&mut self, application: &Application) {
        self.slugs.remove(&application.slug);
        for host in &application.hosts {
            self.hosts.remove(host);
        }
        self.applications.remove(&application.id);
    }

    pub(crate) fn forget_group_in_access_rules(&mut self, group: GroupId) {
        let named: Vec<Arc<Application>> =
            self.applications.values().filter(|a| a.access.groups.contains(&group)).cloned().collect();
        for application in named {
            let mut application = (*application).clone();
            application.access.groups.remove(&group);
            self.put_application(application);
        }
    }
}
