//! `SignInUpstream`: a completed sign-in at a provider in one entry: the ticket is spent, the person is found or made, the session
//! opens, and the code that it was for is issued.

use std::sync::Arc;

use conclave_proto::command::v1 as pb;
use imbl::OrdSet;

use super::{Identity, Upstream, wire};
use crate::{
    draft::Draft,
    ids::{GroupId, SecretHash, TicketId, UserId},
    reply::{Reason, Refusal, Reply},
    session::{self, Proved},
    stamp::Stamp,
    user,
};

pub(crate) fn sign_in(draft: &mut Draft, order: &pb::SignInUpstream) -> Result<Reply, Refusal> {
    let start = order.session.as_ref().ok_or_else(|| Refusal::malformed("there is no session in it"))?;
    draft.spend_ticket(TicketId::parse(&start.ticket_id)?, Stamp(start.ticket_expires_at_ms))?;
    let upstream = draft.state.able_upstream(&order.upstream)?;
    let subject = wire::parse_subject(&order.subject, &upstream.place)?;
    let handle = wire::parse_verified(&order.verified_handle, &upstream.place, draft.at)?;
    let known = draft.state.identity(&upstream.name, &subject).cloned();
    let user = match (&known, &order.new_user) {
        (Some(known), Some(_)) => known.user,
        // What the session is for was judged for this person.
        (Some(known), None) if UserId::parse(&start.user_id)? == known.user => known.user,
        (Some(_), None) => {
            let why = "the identity belongs to another account than a moment ago";
            return Err(Refusal::new(Reason::CredentialChanged, why));
        }
        (None, Some(new)) => admit(draft, &upstream, order, subject, new)?,
        (None, None) => return Err(Refusal::new(Reason::IdentityUnknown, "nobody here has this identity")),
    };
    if let Some(known) = known.filter(|_| upstream.is_atmosphere()) {
        draft.rename(&known, handle);
    }
    draft.state.able_user(user)?;
    // Nobody proved anything after now, whatever a provider's clock says.
    let at = match order.authenticated_at_ms {
        0 => draft.at,
        ms => Stamp(ms).min(draft.at),
    };
    session::open(draft, start, Proved { user, upstream: upstream.name.clone(), at })
}

impl Draft {
    /// A handle is what a DID is called for now. One that could not be verified any more is nobody's.
    fn rename(&mut self, known: &Identity, handle: Option<(Arc<str>, Stamp)>) {
        let label =
            handle.as_ref().map_or_else(|| known.subject.to_string(), |(handle, _)| handle.to_string());
        self.state.put_identity(Identity { label, handle, ..known.clone() });
    }
}

/// Makes the person and the identity. Groups come from the provider's rule, and nothing else may be claimed by the command.
fn admit(
    draft: &mut Draft,
    upstream: &Upstream,
    order: &pb::SignInUpstream,
    subject: Arc<str>,
    new: &pb::CreateUser,
) -> Result<UserId, Refusal> {
    let handle = wire::parse_verified(&order.verified_handle, &upstream.place, draft.at)?;
    let groups = if upstream.is_atmosphere() {
        from_atmosphere(draft, upstream, order, &subject)?
    } else if upstream.rule.admits(&new.email, new.email_verified) {
        upstream.rule.groups.clone()
    } else {
        return Err(not_admitted());
    };
    let new = pb::CreateUser {
        group_ids: groups.iter().map(|group| group.to_vec()).collect(),
        password_phc: String::new(),
        ..new.clone()
    };
    user::create(draft, &new)?;
    let user = UserId::parse(&new.user_id)?;
    draft.state.put_identity(Identity {
        upstream: upstream.name.clone(),
        subject,
        user,
        label: wire::parse_label(&order.label)?,
        linked_at: draft.at,
        handle,
    });
    Ok(user)
}

/// The groups of somebody new. The first token is good once: whoever is second with it is a stranger.
fn from_atmosphere(
    draft: &mut Draft,
    upstream: &Upstream,
    order: &pb::SignInUpstream,
    did: &str,
) -> Result<OrdSet<GroupId>, Refusal> {
    let handle = order.verified_handle.as_str();
    let mapped = upstream.rule.listed.groups_of(did, handle);
    let mut groups = upstream.rule.groups.clone().union(mapped);
    let shown = (!order.first_token_hash.is_empty()).then(|| SecretHash::parse(&order.first_token_hash));
    let shown = shown.transpose()?;
    match upstream.rule.listed.first.zip(shown).filter(|((hash, _), shown)| hash.matches(shown)) {
        Some(((_, group), _)) => {
            let mut spent = upstream.clone();
            spent.rule.listed.first = None;
            draft.state.put_upstream(spent);
            groups.extend(group);
            Ok(groups)
        }
        None if upstream.admits_from_atmosphere(did, handle) => Ok(groups),
        None => Err(not_admitted()),
    }
}

fn not_admitted() -> Refusal {
    Refusal::new(Reason::NotAdmitted, "the provider does not bring in people who are new")
}
