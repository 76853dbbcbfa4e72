//! `CreateUser`: creates a user, with groups and password in the same step.

use conclave_proto::command::v1 as pb;

use super::{PasswordHash, User, parse_username, wire};
use crate::{
    draft::Draft,
    ids::{GroupId, UserId},
    reply::{Reason, Refusal, Reply, done},
    text,
};

pub(crate) fn create(draft: &mut Draft, command: &pb::CreateUser) -> Result<Reply, Refusal> {
    let id = UserId::parse(&command.user_id)?;
    let username = parse_username(&command.username)?;
    if draft.state.users.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, format!("user {id} exists")));
    }
    draft.state.username_is_free(&username, id)?;
    let mut groups = imbl::OrdSet::new();
    for bytes in &command.group_ids {
        groups.insert(draft.state.existing_group(GroupId::parse(bytes)?)?.id);
    }
    let email = wire::parse_email(&command.email)?;
    draft.state.address_is_free(&email, id)?;
    let user = User {
        id,
        username,
        display_name: text::line("display_name", &command.display_name, text::MAX_TEXT_BYTES)?,
        email,
        email_verified: command.email_verified && !command.email.is_empty(),
        attributes: wire::parse_attributes(command.attributes.as_ref())?,
        disabled: false,
        groups,
        created_at: draft.at,
        updated_at: draft.at,
        unlock_version: 0,
    };
    draft.state.put_user(user);
    if !command.password_phc.is_empty() {
        let phc = wire::parse_phc(&command.password_phc)?;
        draft.state.put_password(PasswordHash { user: id, phc, version: draft.index, changed_at: draft.at });
    }
    Ok(done())
}
