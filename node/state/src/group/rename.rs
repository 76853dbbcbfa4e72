//! `RenameGroup`: gives a group another name. Members, access rules, policy rows and providers' rules refer to groups
//! by id and are not affected. Only expressions may name a group; they block the rename unless it is forced.

use conclave_proto::command::v1 as pb;

use super::{Group, parse_name};
use crate::{
    draft::Draft,
    event::Event,
    ids::GroupId,
    level,
    policy::guard::ADMINS,
    reply::{Refusal, Reply, done},
};

pub(crate) fn rename(draft: &mut Draft, command: &pb::RenameGroup) -> Result<Reply, Refusal> {
    level::check(draft.state.meta.level, level::NAMES)?;
    let before = draft.state.existing_group(GroupId::parse(&command.group_id)?)?;
    let name = parse_name(&command.name)?;
    if name == before.name {
        return Ok(done());
    }
    if &*before.name == ADMINS || &*name == ADMINS {
        let why = format!(
            "the group {ADMINS} is known by its name: it cannot be renamed, and no other group takes its name"
        );
        return Err(Refusal::malformed(why));
    }
    draft.state.group_name_is_free(&name, Some(before.id))?;
    if !command.force {
        draft.state.no_expression_names(&before.name)?;
    }
    draft.report(Event::GroupRenamed { group: before.id, before: before.name.clone(), after: name.clone() });
    draft.state.put_group(Group { name, ..(*before).clone() });
    Ok(done())
}
