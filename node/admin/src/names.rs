//! Lookup of names: a username, a group's name, an application's slug, or the id itself. An id takes precedence, since
//! ids are derived and cannot be chosen.
//!
//! For a write, a name that this node does not know is looked up again in a version confirmed by the leader. If it is
//! not there either, a write that its caller named is still sent to the rules, with an unused id: it may be the retry
//! of the write that removed the object, and then it must get the first reply.

use conclave_state::{
    State,
    ids::{ApplicationId, GroupId, UserId},
    level,
};
use tonic::Status;

use super::{errors, request::Writing};

pub(super) fn user(state: &State, name: &str) -> Option<UserId> {
    let by_id = UserId::from_hex(name).filter(|id| state.user(*id).is_some());
    by_id.or_else(|| state.user_by_name(name).map(|user| user.id))
}

pub(super) fn group(state: &State, name: &str) -> Option<GroupId> {
    let by_id = GroupId::from_hex(name).filter(|id| state.group(*id).is_some());
    by_id.or_else(|| state.group_named(name.trim()).map(|group| group.id))
}

pub(super) fn application(state: &State, name: &str) -> Option<ApplicationId> {
    let by_id = ApplicationId::from_hex(name).filter(|id| state.application(*id).is_some());
    by_id.or_else(|| state.application_by_slug(name).map(|application| application.id))
}

impl Writing {
    /// Refuses a rename while a member runs an older version: it would not know the command, and would stop.
    pub(crate) fn can_rename(&self) -> Result<(), Status> {
        if self.state.meta().level >= level::NAMES { Ok(()) } else { Err(errors::outdated_member()) }
    }

    /// Refuses to end a lock-out while a member runs an older version: it would not know the command, and would stop.
    pub(crate) fn can_unlock(&self) -> Result<(), Status> {
        if self.state.meta().level >= level::STRENGTHENING { Ok(()) } else { Err(errors::outdated_member()) }
    }

    /// Refuses properties that an older member would drop from an application: its state would differ from then on.
    pub(crate) fn can_choose_headers(&self) -> Result<(), Status> {
        if self.state.meta().level >= level::IDENTITY_HEADERS {
            Ok(())
        } else {
            Err(errors::outdated_member())
        }
    }

    pub(crate) async fn user(&mut self, name: &str) -> Result<UserId, Status> {
        self.resolve("user", name, user, UserId::new).await
    }

    pub(crate) async fn group(&mut self, name: &str) -> Result<GroupId, Status> {
        self.resolve("group", name, group, GroupId::new).await
    }

    pub(crate) async fn application(&mut self, name: &str) -> Result<ApplicationId, Status> {
        self.resolve("application", name, application, ApplicationId::new).await
    }

    /// The ids of all these groups, in the form of commands.
    pub(crate) async fn groups(&mut self, names: &[String]) -> Result<Vec<Vec<u8>>, Status> {
        let mut ids = Vec::with_capacity(names.len());
        for name in names {
            ids.push(self.group(name).await?.to_vec());
        }
        Ok(ids)
    }

    async fn resolve<I>(
        &mut self,
        what: &str,
        name: &str,
        find: fn(&State, &str) -> Option<I>,
        id: fn([u8; 16]) -> I,
    ) -> Result<I, Status> {
        if name.is_empty() {
            return Err(errors::invalid(format!("{what} is missing")));
        }
        if let Some(found) = find(&self.state, name) {
            return Ok(found);
        }
        if let Some(confirmed) = self.api.auth.cluster().confirmed_view().await {
            self.state = confirmed;
        }
        if let Some(found) = find(&self.state, name) {
            return Ok(found);
        }
        let absent = errors::not_found(what, name);
        if !self.named {
            return Err(absent);
        }
        self.absent = Some(absent);
        Ok(id(self.id("absent")))
    }
}
