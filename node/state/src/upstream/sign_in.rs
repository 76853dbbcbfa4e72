//! `SignInUpstream`: a completed sign-in at a provider in one entry: the ticket is spent, the person is found or made, the session
//! opens, and the code that it was for is issued.

use std::sync::Arc;

use conclave_proto::command::v1 as pb;

use super::{Identity, Upstream, wire};
use crate::{
    draft::Draft,
    ids::{TicketId, UserId},
    reply::{Reason, Refusal, Reply},
    session::{self, Proved},
    stamp::Stamp,
    user,
};

pub(crate) fn sign_in(draft: &mut Draft, order: &pb::SignInUpstream) -> Result<Reply, Refusal> {
    let start = order.session.as_ref().ok_or_else(|| Refusal::malformed("there is no session in it"))?;
    draft.spend_ticket(TicketId::parse(&start.ticket_id)?, Stamp(start.ticket_expires_at_ms))?;
    let upstream = draft.state.able_upstream(&order.upstream)?;
    let subject = wire::parse_subject(&order.subject)?;
    let known = draft.state.identity(&upstream.name, &subject).map(|identity| identity.user);
    let user = match (known, &order.new_user) {
        (Some(known), Some(_)) => known,
        // What the session is for was judged for this person.
        (Some(known), None) if UserId::parse(&start.user_id)? == known => known,
        (Some(_), None) => {
            let why = "the identity belongs to another account than a moment ago";
            return Err(Refusal::new(Reason::CredentialChanged, why));
        }
        (None, Some(new)) => admit(draft, &upstream, subject, &order.label, new)?,
        (None, None) => return Err(Refusal::new(Reason::IdentityUnknown, "nobody here has this identity")),
    };
    draft.state.able_user(user)?;
    // Nobody proved anything after now, whatever a provider's clock says.
    let at = match order.authenticated_at_ms {
        0 => draft.at,
        ms => Stamp(ms).min(draft.at),
    };
    session::open(draft, start, Proved { user, upstream: upstream.name.clone(), at })
}

/// Makes the person and the identity. Groups come from the provider's rule, and nothing else may be claimed by the command.
fn admit(
    draft: &mut Draft,
    upstream: &Upstream,
    subject: Arc<str>,
    label: &str,
    new: &pb::CreateUser,
) -> Result<UserId, Refusal> {
    if !upstream.rule.admits(&new.email, new.email_verified) {
        return Err(Refusal::new(Reason::NotAdmitted, "the provider does not bring in people who are new"));
    }
    let new = pb::CreateUser {
        group_ids: upstream.rule.groups.iter().map(|group| group.to_vec()).collect(),
        password_phc: String::new(),
        ..new.clone()
    };
    user::create(draft, &new)?;
    let user = UserId::parse(&new.user_id)?;
    draft.state.put_identity(Identity {
        upstream: upstream.name.clone(),
        subject,
        user,
        label: wire::parse_label(label)?,
        linked_at: draft.at,
    });
    Ok(user)
}
