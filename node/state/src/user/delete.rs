//! `DeleteUser`: removes the user, the password, every session and every grant, in one step.

use conclave_proto::command::v1 as pb;

use super::FormerName;
use crate::{
    draft::Draft,
    ids::UserId,
    level,
    reply::{Refusal, Reply, done},
};

pub(crate) fn delete(draft: &mut Draft, command: &pb::DeleteUser) -> Result<Reply, Refusal> {
    let id = UserId::parse(&command.user_id)?;
    let user = draft.state.existing_user(id)?;
    draft.end_everything_of(id, None);
    draft.state.forget_consents_of(id);
    draft.state.forget_identities_of(id);
    draft.state.take_app_passwords_of(id);
    draft.state.take_picture(id);
    draft.state.take_user(&user);
    if draft.state.meta.level >= level::NAMES {
        let username = user.username.clone();
        draft.state.put_former_name(FormerName { username, user: id, since: draft.at });
    }
    Ok(done())
}
