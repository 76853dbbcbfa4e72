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
pub(super) struct Sessions(BTreeMap<SessionId, u64>);

impl Invariant for Sessions {
    fn name(&self) -> &'static str {
        "revoked-stays-revoked"
    }

    fn applied(&mut self, step: &AppliedStep<'_>) -> Result<(), String> {
        let done = matches!(step.reply.map(|reply| &reply.body), Some(Some(ReplyBody::Done(_))));
        if let Some(command) = step.entry.command.as_ref().filter(|command| done && !command.repeated) {
            for session in ended_by(&command.body, step.before) {
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
            Some((id, at)) => Err(format!("session {id}, revoked at index {at}, is live")),
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
        Body::RevokeSession(command) => SessionId::parse(&command.session_id).into_iter().collect(),
        Body::RevokeUserSessions(command) => of_user(&command.user_id),
        Body::RevokeUserAccess(command) => of_user(&command.user_id),
        Body::ResetPassword(command) if !command.keep_sessions => of_user(&command.user_id),
        Body::DeleteUser(command) => of_user(&command.user_id),
        Body::UpdateUser(command) if command.disabled == Some(true) => of_user(&command.user_id),
        Body::SetPassword(command) if !command.keep_sessions => of_user(&command.user_id),
        Body::RaiseRevocationEpoch(_) => before.sessions_after(None).map(|session| session.id).collect(),
        _ => Vec::new(),
    }
}
