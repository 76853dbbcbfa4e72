//! `InviteIdentity`, `RevokeInvitation`: a user that the rule would not admit may sign in from the Atmosphere, once, by
//! their DID or by a handle that is verified then. A user who signed in this way is like any other user afterwards; the
//! handle has no later effect.

use std::sync::Arc;

use conclave_proto::{command::v1 as pb, state::v1 as rows};
use imbl::OrdSet;

use super::Who;
use crate::{
    draft::Draft,
    ids::{GroupId, InvitationId},
    reply::{Reason, Refusal, Reply, done},
    snapshot::Row,
    stamp::Stamp,
    state::{Expiring, State},
};

/// Most open invitations: a sign-in walks over all of them.
const MAX_OPEN: usize = 1_024;
/// Longest lifetime in milliseconds: a year, after which an unused invitation has lost its purpose.
const MAX_LIFE_MS: u64 = 366 * 24 * 3_600_000;
/// Most groups of one invitation.
const MAX_GROUPS: usize = 64;

/// An invitation for a new user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// The provider by which the user may sign in.
    pub upstream: Arc<str>,
    /// The invited user: a DID or one handle.
    pub who: Who,
    /// The groups that the user is added to, besides those of the rule.
    pub groups: OrdSet<GroupId>,
    /// Expiry.
    pub expires_at: Stamp,
    /// Creation time.
    pub created_at: Stamp,
}

pub(crate) fn invite(draft: &mut Draft, command: &pb::InviteIdentity) -> Result<Reply, Refusal> {
    let id = InvitationId::parse(&command.invitation_id)?;
    if draft.state.invitations.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, "the invitation exists"));
    }
    let upstream = draft.state.existing_upstream(&command.upstream)?;
    if !upstream.is_atmosphere() {
        return Err(Refusal::malformed("invitations are for Atmosphere"));
    }
    let who = parse_one(&command.who)?;
    if command.ttl_ms == 0 || command.ttl_ms > MAX_LIFE_MS || command.group_ids.len() > MAX_GROUPS {
        return Err(Refusal::malformed("an invitation lives a year at most, and has 64 groups at most"));
    }
    if draft.state.invitations.len() >= MAX_OPEN {
        return Err(Refusal::malformed(format!(
            "at most {MAX_OPEN} invitations are open; revoke some first"
        )));
    }
    let groups = command.group_ids.iter().map(|id| GroupId::parse(id)).collect::<Result<OrdSet<_>, _>>()?;
    for group in &groups {
        draft.state.existing_group(*group)?;
    }
    let invitation = Invitation {
        id,
        upstream: upstream.name.clone(),
        who,
        groups,
        expires_at: draft.at.plus_ms(command.ttl_ms),
        created_at: draft.at,
    };
    invitation.put(&mut draft.state);
    Ok(done())
}

fn parse_one(text: &str) -> Result<Who, Refusal> {
    match Who::parse(text)? {
        Who::Below(_) => {
            Err(Refusal::malformed("an invitation is for one person: a DID or a handle without *"))
        }
        who => Ok(who),
    }
}

pub(crate) fn revoke(draft: &mut Draft, command: &pb::RevokeInvitation) -> Result<Reply, Refusal> {
    let id = InvitationId::parse(&command.invitation_id)?;
    let found = draft.state.invitations.get(&id).filter(|row| *row.upstream == *command.upstream);
    if found.is_none() {
        return Err(Refusal::new(Reason::InvitationUnknown, format!("there is no invitation {id}")));
    }
    draft.state.take_invitation(id);
    Ok(done())
}

impl Draft {
    /// Takes the invitation of this user, which is used up.
    pub(super) fn use_invitation(
        &mut self,
        upstream: &str,
        did: &str,
        handle: &str,
    ) -> Option<Arc<Invitation>> {
        let id = self.state.invitation_of(upstream, did, handle, self.at)?.id;
        self.state.take_invitation(id)
    }
}

impl State {
    /// The invitation that admits this user at `now`, if there is one: one for the DID before one for the verified
    /// handle.
    pub fn invitation_of(
        &self,
        upstream: &str,
        did: &str,
        handle: &str,
        now: Stamp,
    ) -> Option<&Arc<Invitation>> {
        let own = self.invitations_at(upstream);
        let own = own.filter(|row| !row.expires_at.is_over_at(now) && row.who.is(did, handle));
        own.min_by_key(|row| matches!(row.who, Who::Handle(_)))
    }

    /// The open invitations at a provider, in the order of their ids.
    pub fn invitations_at(&self, upstream: &str) -> impl Iterator<Item = &Arc<Invitation>> {
        self.invitations.values().filter(move |row| *row.upstream == *upstream)
    }

    /// The invitation with this id.
    pub fn invitation(&self, id: InvitationId) -> Option<&Arc<Invitation>> {
        self.invitations.get(&id)
    }

    pub(crate) fn take_invitation(&mut self, id: InvitationId) -> Option<Arc<Invitation>> {
        let row = self.invitations.remove(&id)?;
        self.forget_expiry(row.expires_at, Expiring::Invitation(id));
        Some(row)
    }

    pub(super) fn take_invitations_at(&mut self, upstream: &str) {
        let ids: Vec<_> = self.invitations_at(upstream).map(|row| row.id).collect();
        for id in ids {
            self.take_invitation(id);
        }
    }

    pub(super) fn forget_group_in_invitations(&mut self, group: GroupId) {
        let named: Vec<_> =
            self.invitations.values().filter(|row| row.groups.contains(&group)).cloned().collect();
        for row in named {
            let mut row = (*row).clone();
            row.groups.remove(&group);
            row.put(self);
        }
    }
}

impl Row for Invitation {
    const TABLE: u32 = 260;
    type Wire = rows::InvitationRow;

    fn to_wire(&self) -> rows::InvitationRow {
        rows::InvitationRow {
            upstream: self.upstream.to_string(),
            invitation_id: self.id.to_vec(),
            who: self.who.to_string(),
            group_ids: self.groups.iter().map(|group| group.to_vec()).collect(),
            expires_at_ms: self.expires_at.0,
            created_at_ms: self.created_at.0,
        }
    }

    fn from_wire(wire: rows::InvitationRow) -> Result<Self, Refusal> {
        Ok(Self {
            id: InvitationId::parse(&wire.invitation_id)?,
            upstream: wire.upstream.into(),
            who: parse_one(&wire.who)?,
            groups: wire.group_ids.iter().map(|id| GroupId::parse(id)).collect::<Result<_, _>>()?,
            expires_at: Stamp(wire.expires_at_ms),
            created_at: Stamp(wire.created_at_ms),
        })
    }

    fn put(self, state: &mut State) {
        state.expire_at(self.expires_at, Expiring::Invitation(self.id));
        state.invitations.insert(self.id, Arc::new(self));
    }
}
