//! `SignInUpstream`: a completed sign-in at a provider in one entry: the ticket is spent, the user is found or created,
//! the session opens, and the code that it was for is issued.

use std::sync::Arc;

use conclave_proto::command::v1 as pb;
use imbl::OrdSet;

use super::{LetIn, LinkedIdentity, Upstream, atmosphere::parse_handle, wire};
use crate::{
    draft::Draft,
    ids::{GroupId, SecretHash, TicketId, UserId},
    level,
    reply::{Reason, Refusal, Reply},
    session::{self, Authentication, PresentedSession},
    stamp::Stamp,
    user,
};

pub(crate) fn sign_in(draft: &mut Draft, command: &pb::SignInUpstream) -> Result<Reply, Refusal> {
    arrive(draft, command, None, false)
}

/// Signs a user in by their handle. It is a separate command because of the row that it leaves behind: a node that does
/// not know it must stop, not drop the row.
pub(crate) fn sign_in_by_handle(draft: &mut Draft, command: &pb::SignInByHandle) -> Result<Reply, Refusal> {
    let command = command.sign_in.as_ref().ok_or_else(|| Refusal::malformed("there is no sign-in in it"))?;
    arrive(draft, command, None, true)
}

/// Completes a sign-in. `shown`: the session whose cookie the browser presented. `looks_again`: if a handle admits a
/// newcomer, it is remembered for later checks.
pub(crate) fn arrive(
    draft: &mut Draft,
    command: &pb::SignInUpstream,
    shown: Option<PresentedSession>,
    looks_again: bool,
) -> Result<Reply, Refusal> {
    let start = command.session.as_ref().ok_or_else(|| Refusal::malformed("there is no session in it"))?;
    draft.spend_ticket(TicketId::parse(&start.ticket_id)?, Stamp(start.ticket_expires_at_ms))?;
    let upstream = draft.state.able_upstream(&command.upstream)?;
    let subject = wire::parse_subject(&command.subject, &upstream.location)?;
    let handle = wire::parse_verified(&command.verified_handle, &upstream.location, draft.at)?;
    let known = draft.state.identity(&upstream.name, &subject).cloned();
    let user = match (&known, &command.new_user) {
        (Some(known), Some(_)) => known.user,
        // Access to what the session is for was decided for this user.
        (Some(known), None) if UserId::parse(&start.user_id)? == known.user => known.user,
        (Some(_), None) => {
            let why = "the identity belongs to another account than a moment ago";
            return Err(Refusal::new(Reason::CredentialChanged, why));
        }
        (None, Some(new)) => {
            admit(draft, &Newcomer { upstream: &upstream, command, subject, looks_again }, new)?
        }
        (None, None) => return Err(Refusal::new(Reason::IdentityUnknown, "nobody here has this identity")),
    };
    if let Some(known) = known.filter(|_| upstream.is_atmosphere()) {
        draft.meet_again(&upstream, &known, handle)?;
    }
    draft.state.able_user(user)?;
    // No authentication can be later than now, whatever a provider's clock says.
    let at = match command.authenticated_at_ms {
        0 => draft.at,
        ms => Stamp(ms).min(draft.at),
    };
    session::open(draft, start, shown, Authentication { user, upstream: upstream.name.clone(), at })
}

/// A user who has no account here yet.
struct Newcomer<'a> {
    upstream: &'a Upstream,
    command: &'a pb::SignInUpstream,
    subject: Arc<str>,
    looks_again: bool,
}

/// Creates the user and the identity. Groups come from the provider's rule; the command may not add others.
fn admit(draft: &mut Draft, newcomer: &Newcomer<'_>, new: &pb::CreateUser) -> Result<UserId, Refusal> {
    let Newcomer { upstream, command, subject, .. } = newcomer;
    let handle = wire::parse_verified(&command.verified_handle, &upstream.location, draft.at)?;
    let admitted = if upstream.is_atmosphere() {
        from_atmosphere(draft, newcomer)?
    } else if upstream.rule.admits(&new.email, new.email_verified) {
        Admitted { groups: upstream.rule.groups.clone(), by: None }
    } else {
        return Err(not_admitted());
    };
    let new = with_free_names(draft, new)?;
    let new = pb::CreateUser {
        group_ids: admitted.groups.iter().map(|group| group.to_vec()).collect(),
        password_phc: String::new(),
        ..new
    };
    user::create(draft, &new)?;
    let user = UserId::parse(&new.user_id)?;
    draft.state.put_identity(LinkedIdentity {
        upstream: upstream.name.clone(),
        subject: subject.clone(),
        user,
        label: wire::parse_label(&command.label)?,
        linked_at: draft.at,
        handle,
        let_in: admitted.by.map(LetIn::by),
    });
    Ok(user)
}

/// From [`level::NAMES`] on a newcomer gets no name that is reserved or that a former user had: applications may grant
/// rights by it. An address that another user has is left out for the same reason; the newcomer is created without one.
fn with_free_names(draft: &Draft, new: &pb::CreateUser) -> Result<pb::CreateUser, Refusal> {
    let mut new = new.clone();
    if draft.state.meta().level < level::NAMES {
        return Ok(new);
    }
    if !draft.state.is_free_for_newcomer(&new.username) {
        let why = format!("the username {} is not free for a newcomer", new.username);
        return Err(Refusal::new(Reason::UsernameTaken, why));
    }
    if !draft.state.address_is_free_for_newcomer(&new.email, UserId::parse(&new.user_id)?) {
        new.email.clear();
        new.email_verified = false;
    }
    Ok(new)
}

/// The result of admitting a newcomer.
struct Admitted {
    groups: OrdSet<GroupId>,
    /// The handle without which the user would not have been admitted, if it is to be checked again.
    by: Option<Arc<str>>,
}

/// Admits a newcomer from the Atmosphere. The first token and an invitation are valid once: a second user with either
/// of them is not admitted by it.
fn from_atmosphere(draft: &mut Draft, newcomer: &Newcomer<'_>) -> Result<Admitted, Refusal> {
    let Newcomer { upstream, command, subject: did, .. } = newcomer;
    let handle = command.verified_handle.as_str();
    let mapped = upstream.rule.listed.groups_of(did, handle);
    let groups = upstream.rule.groups.clone().union(mapped);
    if let Some(of_first) = take_first_token(draft, upstream, &command.first_token_hash)? {
        return Ok(Admitted { groups: groups.union(of_first), by: None });
    }
    if let Some(invitation) = draft.use_invitation(&upstream.name, did, handle) {
        return Ok(Admitted { groups: groups.union(invitation.groups.clone()), by: None });
    }
    if !upstream.admits_from_atmosphere(did, handle) {
        return Err(not_admitted());
    }
    let by_handle = newcomer.looks_again && !upstream.admits_from_atmosphere(did, "");
    Ok(Admitted { groups, by: by_handle.then(|| parse_handle(handle)).transpose()? })
}

/// Takes the first token, if this is it; returns the groups that go with it.
fn take_first_token(
    draft: &mut Draft,
    upstream: &Upstream,
    shown: &[u8],
) -> Result<Option<OrdSet<GroupId>>, Refusal> {
    if shown.is_empty() {
        return Ok(None);
    }
    let shown = SecretHash::parse(shown)?;
    let Some((_, group)) = upstream.rule.listed.first.filter(|(hash, _)| hash.matches(&shown)) else {
        return Ok(None);
    };
    let mut spent = upstream.clone();
    spent.rule.listed.first = None;
    draft.state.put_upstream(spent);
    Ok(Some(group.into_iter().collect()))
}

fn not_admitted() -> Refusal {
    Refusal::new(Reason::NotAdmitted, "the provider does not bring in people who are new")
}
