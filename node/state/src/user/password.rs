//! `SetPassword`: a new password ends the sessions that the old one opened, unless its owner has just proved it and
//! keeps the sessions. `ResetPassword`: an administrator sets a new password for a user. An attacker who knew the old
//! one may have created app passwords with it: those end too.

use conclave_proto::command::v1 as pb;

use super::{PasswordHash, wire};
use crate::{
    draft::Draft,
    ids::UserId,
    reply::{Refusal, Reply, done},
};

pub(crate) fn set_password(draft: &mut Draft, command: &pb::SetPassword) -> Result<Reply, Refusal> {
    put(draft, &command.user_id, &command.password_phc, command.keep_sessions)?;
    Ok(done())
}

pub(crate) fn reset_password(draft: &mut Draft, command: &pb::ResetPassword) -> Result<Reply, Refusal> {
    let user = put(draft, &command.user_id, &command.password_phc, command.keep_sessions)?;
    draft.state.take_app_passwords_of(user);
    Ok(done())
}

fn put(draft: &mut Draft, user_id: &[u8], phc: &str, keep_sessions: bool) -> Result<UserId, Refusal> {
    let id = UserId::parse(user_id)?;
    draft.state.existing_user(id)?;
    let phc = wire::parse_phc(phc)?;
    draft.state.put_password(PasswordHash { user: id, phc, version: draft.index, changed_at: draft.at });
    if !keep_sessions {
        draft.end_everything_of(id, None);
    }
    Ok(id)
}
