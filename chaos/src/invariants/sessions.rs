//! A revoked session is never live again, on any replica that has applied the revocation.

use std::collections::BTreeMap;

use conclave_proto::command::v1::command::Body;
use conclave_state::{
    ReplyBody, Stamp, State,
    ids::{SessionId, UserId},
};

use super::Invariant;
use crate::oracle::AppliedStep;

/// The index at which each session was first revoked.
#[derive(Default)]
pub struct Sessions(BTreeMap<SessionId, u64>);

impl Invariant for Sessions {
    fn name(&self) -> &'static str {
        "revoked-stays-revoked"
    }

    fn applied(&mut self, step: &AppliedStep<'_>) -> Result<(), String> {
        let done = matches!(step.reply.map(|reply| &reply.body), Some(Some(ReplyBody::Done(_))));
        if let Some(order) = step.entry.order.as_ref().filter(|order| done && !order.repeated) {
            for session in ended_by(&order.body, step.before) {
                self.0.entry(session).or_insert(step.index);
            }
        }
        self.holds(step.after)
    }

    fn holds(&mut self, state: &State) -> Result<(), String> {
        // Time zero is before every expiry: only the revocation matters here.
        let alive = |id: &SessionId| state.live_session(*id, Stamp(0)).is_some();
        let risen = self.0.iter().find(|(id, at)| **at <= state.index() && alive(id));
        match risen {
            Some((id, at)) => Err(format!("session {id}, revoked at index {at}, is alive")),
            None => Ok(()),
        }
    }
}

/// The sessions that an acknowledged command has ended, given the state before it.
fn ended_by(body: &Body, before: &State) -> Vec<SessionId> {
    let of_user = |user: &[u8]| -> Vec<SessionId> {
        UserId::parse(user)
            .map(|user| before.sessions_of(user).map(|session| session.id).collect())
            .unwrap_or_default()
    };
    match body {
        Body::RevokeSession(order) => SessionId::parse(&order.session_id).into_iter().collect(),
        Body::RevokeUserSessions(order) => of_user(&order.user_id),
        Body::RevokeUserAccess(order) => of_user(&order.user_id),
        Body::ResetPassword(order) if !order.keep_sessions => of_user(&order.user_id),
        Body::DeleteUser(order) => of_user(&order.user_id),
        Body::UpdateUser(order) if order.disabled == Some(true) => of_user(&order.user_id),
        Body::SetPassword(order) if !order.keep_sessions => of_user(&order.user_id),
        Body::RaiseRevocationEpoch(_) => before.sessions_after(None).map(|session| session.id).collect(),
        _ => Vec::new(),
    }
}
