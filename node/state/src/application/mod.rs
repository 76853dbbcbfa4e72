//! Applications: what people open, on which hosts, and who may. Slugs and hosts are unique across the cluster.

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

/// Something people open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// The application's id.
    pub id: ApplicationId,
    /// Unique name for machines.
    pub slug: Arc<str>,
    /// For people.
    pub name: String,
    /// Where people open it; empty = nowhere in particular.
    pub launch_url: String,
    /// Hosts that forward-auth protects, lower case, without port; `*.example.org` is every host below that domain.
    pub hosts: OrdSet<Arc<str>>,
    /// Who may open it.
    pub access: Access,
    /// How long after its last confirmation a node that is cut off may still let known sessions in, milliseconds; 0 =
    /// not at all (design.md §6: `without_quorum`).
    pub serve_known_for_ms: u64,
    /// How requests come through besides by session.
    pub check: CheckRules,
    /// How the check tells the application who the user is.
    pub identity_headers: IdentityHeaders,
    /// When the row was made.
    pub created_at: Stamp,
}

/// How the check lets requests through to an application, besides by session. The default is not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckRules {
    /// Programs may bring an access token with the application as audience.
    pub bearer: bool,
    /// Programs may bring an app password by HTTP Basic.
    pub basic: bool,
    /// Each admitted request carries a signed assertion.
    pub assertion: bool,
}

/// How the check tells an application who the user is. The default is what applications had before there was a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// Which headers carry the user.
    pub profile: HeaderProfile,
    /// How they carry text outside ASCII.
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

/// How identity headers carry text outside ASCII, such as a display name.
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

/// Who may open an application. The default is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Everybody who can sign in.
    pub everyone: bool,
    /// Or the members of any of these.
    pub groups: OrdSet<GroupId>,
}

impl Access {
    /// The decision. Nothing given = denied.
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
        // An empty label is no host; a wildcard must not make one of it.
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
