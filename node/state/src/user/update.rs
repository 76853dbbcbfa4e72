//! `UpdateUser`: changes the fields that are set; the rest stays. Disabling ends every session and grant in the same
//! step.

use conclave_proto::command::v1 as pb;

use super::wire;
use crate::{
    draft::Draft,
    ids::UserId,
    reply::{Refusal, Reply, done},
    text,
};

pub(crate) fn update(draft: &mut Draft, command: &pb::UpdateUser) -> Result<Reply, Refusal> {
    let id = UserId::parse(&command.user_id)?;
    let mut user = (*draft.state.existing_user(id)?).clone();
    if let Some(name) = &command.display_name {
        user.display_name = text::line("display_name", name, text::MAX_TEXT_BYTES)?;
    }
    if let Some(email) = &command.email {
        let email = wire::parse_email(email)?;
        // An address that two users already shared stays, even if it is written again.
        if !email.eq_ignore_ascii_case(&user.email) {
            draft.state.address_is_free(&email, id)?;
        }
        // A changed address has not been verified.
        user.email_verified = user.email_verified && user.email == email;
        user.email = email;
    }
    if let Some(verified) = command.email_verified {
        user.email_verified = verified && !user.email.is_empty();
    }
    if command.attributes.is_some() {
        user.attributes = wire::parse_attributes(command.attributes.as_ref())?;
    }
    if let Some(disabled) = command.disabled {
        user.disabled = disabled;
    }
    user.updated_at = draft.at;
    let ends = user.disabled;
    draft.state.put_user(user);
    if ends {
        draft.end_everything_of(id, None);
    }
    Ok(done())
}
