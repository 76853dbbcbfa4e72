//! `RenameUser`: gives a user another username. Everything that refers to users does so by id and is not affected; only
//! expressions may name a username, and they block the rename unless it is forced.

use conclave_proto::command::v1 as pb;

use super::{FormerName, parse_username};
use crate::{
    draft::Draft,
    event::Event,
    ids::UserId,
    level,
    reply::{Refusal, Reply, done},
};

pub(crate) fn rename(draft: &mut Draft, command: &pb::RenameUser) -> Result<Reply, Refusal> {
    level::check(draft.state.meta.level, level::NAMES)?;
    let before = draft.state.existing_user(UserId::parse(&command.user_id)?)?;
    let username = parse_username(&command.username)?;
    if username == before.username {
        return Ok(done());
    }
    draft.state.username_is_free(&username, before.id)?;
    if !command.force {
        draft.state.no_expression_names(&before.username)?;
    }
    draft.report(Event::UserRenamed {
        user: before.id,
        before: before.username.clone(),
        after: username.clone(),
    });
    let mut user = (*before).clone();
    user.username = username;
    user.updated_at = draft.at;
    draft.state.put_user(user);
    draft.state.put_former_name(FormerName {
        username: before.username.clone(),
        user: before.id,
        since: draft.at,
    });
    Ok(done())
}
