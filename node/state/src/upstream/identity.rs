//! `LinkIdentity`, `UnlinkIdentity`: the link between a subject at a provider and a user.

use std::sync::Arc;

use conclave_proto::{command::v1 as pb, state::v1 as rows};

use super::{LetIn, wire};
use crate::{
    draft::Draft,
    ids::{SessionId, TicketId, UserId},
    reply::{Reason, Refusal, Reply, done},
    session::Session,
    snapshot::Row,
    stamp::Stamp,
    state::State,
    user::User,
};

/// A subject at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedIdentity {
    /// The provider's name.
    pub upstream: Arc<str>,
    /// The provider's permanent id of the user; compared byte by byte.
    pub subject: Arc<str>,
    /// The user here.
    pub user: UserId,
    /// The display name of the identity when it was linked. It has no effect on decisions.
    pub label: String,
    /// The time at which it was linked.
    pub linked_at: Stamp,
    /// For Atmosphere: the handle, and the time of its last verification.
    pub handle: Option<(Arc<str>, Stamp)>,
    /// For Atmosphere: the handle that admitted the user, if nothing else did.
    pub let_in: Option<LetIn>,
}

/// Links an identity; only from a session in which the user has just authenticated.
pub(crate) fn link(draft: &mut Draft, command: &pb::LinkIdentity) -> Result<Reply, Refusal> {
    draft.spend_ticket(TicketId::parse(&command.ticket_id)?, Stamp(command.ticket_expires_at_ms))?;
    let upstream = draft.state.able_upstream(&command.upstream)?;
    let subject = wire::parse_subject(&command.subject, &upstream.location)?;
    let session = fresh(draft, &command.session_id, command.max_age_ms)?;
    match draft.state.identity(&upstream.name, &subject) {
        Some(known) if known.user == session.user => return Ok(done()),
        Some(_) => {
            return Err(Refusal::new(Reason::IdentityTaken, "the identity belongs to another account"));
        }
        None => {}
    }
    if draft.state.identity_of(session.user, &upstream.name).is_some() {
        return Err(Refusal::new(
            Reason::AlreadyExists,
            "the account has an identity there; unlink it first",
        ));
    }
    draft.state.put_identity(LinkedIdentity {
        upstream: upstream.name.clone(),
        subject,
        user: session.user,
        label: wire::parse_label(&command.label)?,
        linked_at: draft.at,
        handle: wire::parse_verified(&command.verified_handle, &upstream.location, draft.at)?,
        let_in: None,
    });
    Ok(done())
}

/// Unlinks an identity. A user must keep one way to sign in; an operator may remove the last one.
pub(crate) fn unlink(draft: &mut Draft, command: &pb::UnlinkIdentity) -> Result<Reply, Refusal> {
    let user = draft.state.existing_user(UserId::parse(&command.user_id)?)?.id;
    let own = match command.session_id.as_slice() {
        [] => None,
        id => Some(fresh(draft, id, command.max_age_ms)?),
    };
    if own.as_ref().is_some_and(|session| session.user != user) {
        return Err(Refusal::new(Reason::IdentityUnknown, "the identity belongs to another account"));
    }
    let unknown = || Refusal::new(Reason::IdentityUnknown, "the account has no identity there");
    let identity = draft.state.identity_of(user, &command.upstream).cloned().ok_or_else(unknown)?;
    if own.is_some() && !has_another_way(&draft.state, user, &identity.upstream) {
        let why = "it is the only way to sign in to this account; set a password or link another first";
        return Err(Refusal::new(Reason::LastSignIn, why));
    }
    draft.state.take_identity(&identity);
    draft.end_sessions_of_by(user, &identity.upstream, own.map(|session| session.id));
    Ok(done())
}

fn has_another_way(state: &State, user: UserId, upstream: &str) -> bool {
    let is_other = |identity: &Arc<LinkedIdentity>| {
        &*identity.upstream != upstream && state.upstream(&identity.upstream).is_some_and(|u| !u.disabled)
    };
    state.password(user).is_some() || state.identities_of(user).any(is_other)
}

fn fresh(draft: &Draft, session: &[u8], max_age_ms: u64) -> Result<Arc<Session>, Refusal> {
    let (session, _) = draft.state.existing_live_session(SessionId::parse(session)?, draft.at)?;
    if session.auth_time.plus_ms(max_age_ms).is_over_at(draft.at) {
        return Err(Refusal::new(Reason::SessionTooOld, "prove who you are again first"));
    }
    Ok(session)
}

impl State {
    /// The identity with this subject.
    pub fn identity(&self, upstream: &str, subject: &str) -> Option<&Arc<LinkedIdentity>> {
        self.identities.get(&(upstream.into(), subject.into()))
    }

    /// The user's identity at this provider.
    pub fn identity_of(&self, user: UserId, upstream: &str) -> Option<&Arc<LinkedIdentity>> {
        let subject = self.subjects_by_user.get(&(user, upstream.into()))?;
        self.identity(upstream, subject)
    }

    /// The user's identities, by provider.
    pub fn identities_of(&self, user: UserId) -> impl Iterator<Item = &Arc<LinkedIdentity>> {
        let own =
            self.subjects_by_user.range((user, "".into())..).take_while(move |((of, _), _)| *of == user);
        own.filter_map(|((_, upstream), subject)| self.identity(upstream, subject))
    }

    /// The address that applications may see for this user: a verified one, or one that an administrator entered for a
    /// user without provider identities. An unverified address from a provider may belong to anyone; empty in that
    /// case.
    pub fn address_of<'a>(&self, user: &'a User) -> &'a str {
        let is_hearsay = !user.email_verified && self.identities_of(user.id).next().is_some();
        if is_hearsay { "" } else { &user.email }
    }

    /// The user's Atmosphere identity.
    pub fn atmosphere_of(&self, user: UserId) -> Option<&Arc<LinkedIdentity>> {
        let is_there = |identity: &&Arc<LinkedIdentity>| {
            self.upstream(&identity.upstream).is_some_and(|upstream| upstream.is_atmosphere())
        };
        self.identities_of(user).find(is_there)
    }

    /// True if a user with this DID was admitted by a handle.
    pub fn is_let_in_by_handle(&self, did: &str) -> bool {
        let networks = self.upstreams().filter(|upstream| upstream.is_atmosphere());
        let mut own = networks.filter_map(|upstream| self.identity(&upstream.name, did));
        own.any(|identity| identity.let_in.is_some())
    }

    /// Every identity at this provider.
    pub fn identities_at(&self, upstream: &str) -> impl Iterator<Item = &Arc<LinkedIdentity>> {
        let rows = self.identities.range((upstream.into(), "".into())..).map(|(_, row)| row);
        rows.take_while(move |row| &*row.upstream == upstream)
    }

    pub(crate) fn put_identity(&mut self, identity: LinkedIdentity) {
        let by_user = (identity.user, identity.upstream.clone());
        self.subjects_by_user.insert(by_user, identity.subject.clone());
        self.identities.insert((identity.upstream.clone(), identity.subject.clone()), Arc::new(identity));
    }

    fn take_identity(&mut self, identity: &LinkedIdentity) {
        self.subjects_by_user.remove(&(identity.user, identity.upstream.clone()));
        self.identities.remove(&(identity.upstream.clone(), identity.subject.clone()));
    }

    pub(crate) fn forget_identities_of(&mut self, user: UserId) {
        let gone: Vec<Arc<LinkedIdentity>> = self.identities_of(user).cloned().collect();
        gone.iter().for_each(|identity| self.take_identity(identity));
    }

    pub(super) fn forget_identities_at(&mut self, upstream: &str) {
        let gone: Vec<Arc<LinkedIdentity>> = self.identities_at(upstream).cloned().collect();
        gone.iter().for_each(|identity| self.take_identity(identity));
    }
}

impl Row for LinkedIdentity {
    const TABLE: u32 = 121;
    type Wire = rows::IdentityRow;

    fn to_wire(&self) -> rows::IdentityRow {
        rows::IdentityRow {
            upstream: self.upstream.to_string(),
            subject: self.subject.to_string(),
            user_id: self.user.to_vec(),
            label: self.label.clone(),
            linked_at_ms: self.linked_at.0,
            handle: self.handle.as_ref().map(|(handle, _)| handle.to_string()).unwrap_or_default(),
            handle_verified_at_ms: self.handle.as_ref().map_or(0, |(_, at)| at.0),
            admitted_by: self.let_in.as_ref().map(|by| by.handle.to_string()).unwrap_or_default(),
            unconfirmed_since_ms: self.doubt().map_or(0, |doubt| doubt.since.0),
            handle_elsewhere: self.doubt().is_some_and(|doubt| doubt.elsewhere),
            held_out: self.is_held_out(),
        }
    }

    fn from_wire(wire: rows::IdentityRow) -> Result<Self, Refusal> {
        let let_in = LetIn::from_wire(&wire);
        Ok(Self {
            let_in,
            upstream: wire.upstream.into(),
            subject: wire.subject.into(),
            user: UserId::parse(&wire.user_id)?,
            label: wire.label,
            linked_at: Stamp(wire.linked_at_ms),
            handle: (!wire.handle.is_empty())
                .then(|| (wire.handle.into(), Stamp(wire.handle_verified_at_ms))),
        })
    }

    fn put(self, state: &mut State) {
        state.put_identity(self);
    }
}
