//! Groups of users. Membership is stored in the user's row, so that a check reads one row; `members` is derived from
//! it.

mod rename;

use std::sync::Arc;

use conclave_proto::{command::v1 as pb, state::v1 as rows};

pub(crate) use rename::rename;

use crate::{
    draft::Draft,
    ids::{GroupId, UserId},
    level,
    policy::guard::ADMINS,
    reply::{Reason, Refusal, Reply, done},
    snapshot::Row,
    stamp::Stamp,
    state::State,
    text,
};

/// Longest group name: several must fit into one header.
const MAX_NAME_BYTES: usize = 64;
/// Most groups of one user: bounds the row and the header.
const MAX_GROUPS_OF_USER: usize = 256;

/// A group of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group's id.
    pub id: GroupId,
    /// Unique name. It contains neither `|` nor `,`, which separate names in headers.
    pub name: Arc<str>,
    /// Description for operators.
    pub description: String,
    /// Creation time.
    pub created_at: Stamp,
}

pub(crate) fn create(draft: &mut Draft, command: &pb::CreateGroup) -> Result<Reply, Refusal> {
    let id = GroupId::parse(&command.group_id)?;
    let name = parse_name(&command.name)?;
    if draft.state.groups.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, format!("group {id} exists")));
    }
    draft.state.group_name_is_free(&name, None)?;
    let description = text::line("description", &command.description, text::MAX_TEXT_BYTES)?;
    draft.state.put_group(Group { id, name, description, created_at: draft.at });
    Ok(done())
}

/// Deletes a group and every reference to it: members lose it, and access rules no longer name it (and so admit fewer
/// users, never more). Refused while a policy names it: without the row that denies its members, they would be
/// admitted.
pub(crate) fn delete(draft: &mut Draft, command: &pb::DeleteGroup) -> Result<Reply, Refusal> {
    let group = draft.state.existing_group(GroupId::parse(&command.group_id)?)?;
    draft.state.no_policy_names(group.id)?;
    let members: Vec<UserId> = draft.state.members_of(group.id).map(|user| user.id).collect();
    for member in members {
        change_membership(draft, group.id, member, false)?;
    }
    draft.state.forget_group_in_access_rules(group.id);
    draft.state.forget_group_in_upstreams(group.id);
    draft.state.take_group(&group);
    Ok(done())
}

pub(crate) fn add_member(draft: &mut Draft, command: &pb::AddGroupMember) -> Result<Reply, Refusal> {
    let group = draft.state.existing_group(GroupId::parse(&command.group_id)?)?;
    change_membership(draft, group.id, UserId::parse(&command.user_id)?, true)?;
    Ok(done())
}

pub(crate) fn remove_member(draft: &mut Draft, command: &pb::RemoveGroupMember) -> Result<Reply, Refusal> {
    let group = draft.state.existing_group(GroupId::parse(&command.group_id)?)?;
    change_membership(draft, group.id, UserId::parse(&command.user_id)?, false)?;
    Ok(done())
}

fn change_membership(draft: &mut Draft, group: GroupId, user: UserId, member: bool) -> Result<(), Refusal> {
    let mut user = (*draft.state.existing_user(user)?).clone();
    if member {
        user.groups.insert(group);
        if user.groups.len() > MAX_GROUPS_OF_USER {
            return Err(Refusal::malformed(format!("a user is in at most {MAX_GROUPS_OF_USER} groups")));
        }
    } else {
        user.groups.remove(&group);
    }
    user.updated_at = draft.at;
    draft.state.put_user(user);
    Ok(())
}

fn parse_name(name: &str) -> Result<Arc<str>, Refusal> {
    let name = text::required("group name", name.trim(), MAX_NAME_BYTES)?;
    if name.contains(['|', ',']) || !name.is_ascii() {
        return Err(Refusal::malformed("a group name is ASCII without '|' and ',': it travels in headers"));
    }
    Ok(name.into())
}

impl State {
    /// The group with this id.
    pub fn group(&self, id: GroupId) -> Option<&Arc<Group>> {
        self.groups.get(&id)
    }

    /// The group with this name.
    pub fn group_by_name(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.get(self.group_names.get(name)?)
    }

    /// Groups in the order of their ids, after `after`.
    pub fn groups_after(&self, after: Option<GroupId>) -> impl Iterator<Item = &Arc<Group>> {
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.groups.range((start, std::ops::Bound::Unbounded)).map(|(_, group)| group)
    }

    /// The names of the user's groups, in the order of the group ids.
    pub fn group_names_of<'a>(&'a self, user: &'a crate::user::User) -> impl Iterator<Item = &'a str> {
        user.groups.iter().filter_map(|id| self.groups.get(id)).map(|group| &*group.name)
    }

    /// The group's members.
    pub fn members_of(&self, group: GroupId) -> impl Iterator<Item = &Arc<crate::user::User>> {
        let from = (group, UserId::new([0; 16]));
        self.members
            .range(from..)
            .take_while(move |(g, _)| *g == group)
            .filter_map(|(_, user)| self.users.get(user))
    }

    pub(crate) fn existing_group(&self, id: GroupId) -> Result<Arc<Group>, Refusal> {
        self.groups
            .get(&id)
            .cloned()
            .ok_or_else(|| Refusal::new(Reason::GroupUnknown, format!("there is no group {id}")))
    }

    /// The group that an administrator names: the one with exactly this name, or else the only one that differs in case
    /// only.
    pub fn group_named(&self, typed: &str) -> Option<&Arc<Group>> {
        let mut alike = self.groups_alike(typed);
        self.group_by_name(typed).or_else(|| alike.next().filter(|_| alike.next().is_none()))
    }

    /// Groups with this name, compared without regard to case.
    fn groups_alike(&self, name: &str) -> impl Iterator<Item = &Arc<Group>> {
        let folded = text::folded(name);
        let from = (Arc::clone(&folded), GroupId::new([0; 16]));
        let rows = self.groups_by_folded_name.range(from..).take_while(move |(name, _)| *name == folded);
        rows.filter_map(|(_, group)| self.groups.get(group))
    }

    /// Refuses a name that a group other than `of` has; from [`level::NAMES`] on, regardless of case. It also refuses
    /// names that differ from [`ADMINS`] in case only: applications take them for the administrators' group.
    fn group_name_is_free(&self, name: &str, of: Option<GroupId>) -> Result<(), Refusal> {
        let taken = |other: &str| {
            let why = if other == name {
                format!("the group name {name} is taken")
            } else {
                format!("the group name {name} differs from {other} in case only")
            };
            Err(Refusal::new(Reason::GroupNameTaken, why))
        };
        if self.group_names.get(name).is_some_and(|group| Some(*group) != of) {
            return taken(name);
        }
        if self.meta.level < level::NAMES {
            return Ok(());
        }
        if name != ADMINS && name.eq_ignore_ascii_case(ADMINS) {
            return taken(ADMINS);
        }
        self.groups_alike(name).find(|group| Some(group.id) != of).map_or(Ok(()), |group| taken(&group.name))
    }

    fn take_group(&mut self, group: &Group) {
        self.groups.remove(&group.id);
        self.group_names.remove(&group.name);
        self.groups_by_folded_name.remove(&(text::folded(&group.name), group.id));
    }

    pub(crate) fn put_group(&mut self, group: Group) {
        if let Some(before) = self.groups.get(&group.id).cloned() {
            self.take_group(&before);
        }
        self.groups_by_folded_name.insert((text::folded(&group.name), group.id));
        self.group_names.insert(group.name.clone(), group.id);
        self.groups.insert(group.id, Arc::new(group));
    }
}

impl Row for Group {
    const TABLE: u32 = 4;
    type Wire = rows::GroupRow;

    fn to_wire(&self) -> rows::GroupRow {
        rows::GroupRow {
            group_id: self.id.to_vec(),
            name: self.name.to_string(),
            description: self.description.clone(),
            created_at_ms: self.created_at.0,
        }
    }

    fn from_wire(wire: rows::GroupRow) -> Result<Self, Refusal> {
        Ok(Self {
            id: GroupId::parse(&wire.group_id)?,
            name: parse_name(&wire.name)?,
            description: wire.description,
            created_at: Stamp(wire.created_at_ms),
        })
    }

    fn put(self, state: &mut State) {
        state.put_group(self);
    }
}
