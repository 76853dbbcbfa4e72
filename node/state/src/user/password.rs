//! `SetPassword`: a new password ends what the old one opened, unless its owner just proved it and keeps the sessions.

use conclave_proto::command::v1 as pb;

use super::{Password, wire};
use crate::{
    draft::Draft,
    ids::UserId,
    reply::{Refusal, Reply, done},
};

pub(crate) fn set_password(draft: &mut Draft, order: &pb::SetPassword) -> Result<Reply, Refusal> {
    let id = UserId::parse(&order.user_id)?;
    draft.state.existing_user(id)?;
    let phc = wire::parse_phc(&order.password_phc)?;
    draft.state.put_password(Password { user: id, phc, version: draft.index, changed_at: draft.at });
    if !order.keep_sessions {
        draft.end_everything_of(id, None);
    }
    Ok(done())
}
