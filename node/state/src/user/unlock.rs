//! `UnlockUser`: forgets the counted sign-in attempts of a user, so that a lock-out ends at once.
//!
//! Attempts from a user's trusted browsers are counted under ids that only the edge can derive. It includes
//! [`User::unlock_version`](super::User::unlock_version) in the derivation, so a new version starts those counts anew.

use conclave_proto::command::v1 as pb;

use crate::{
    draft::Draft,
    ids::UserId,
    reply::{Refusal, Reply, done},
};

pub(crate) fn unlock(draft: &mut Draft, command: &pb::UnlockUser) -> Result<Reply, Refusal> {
    let mut user = (*draft.state.existing_user(UserId::parse(&command.user_id)?)?).clone();
    user.unlock_version = draft.index;
    draft.state.take_throttle(user.id);
    draft.state.put_user(user);
    Ok(done())
}
