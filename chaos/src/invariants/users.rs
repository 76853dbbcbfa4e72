//! A user whose creation was acknowledged exists until their deletion is.

use std::collections::BTreeMap;

use conclave_proto::command::v1::command::Body;
use conclave_state::{ReplyBody, State, ids::UserId};

use super::Invariant;
use crate::oracle::AppliedStep;

/// The index from which, and the one until which, each user exists.
#[derive(Default)]
pub(super) struct Users(BTreeMap<UserId, (u64, Option<u64>)>);

impl Invariant for Users {
    fn name(&self) -> &'static str {
        "users-stay"
    }

    fn applied(&mut self, step: &AppliedStep<'_>) -> Result<(), String> {
        let done = matches!(step.reply.map(|reply| &reply.body), Some(Some(ReplyBody::Done(_))));
        if let Some(command) = step.entry.command.as_ref().filter(|command| done && !command.repeated) {
            self.note(&command.body, step.index);
        }
        self.holds(step.after)
    }

    fn holds(&mut self, state: &State) -> Result<(), String> {
        let index = state.index();
        let expected =
            |(from, until): &(u64, Option<u64>)| *from <= index && until.is_none_or(|until| index < until);
        match self.0.iter().find(|(id, lifetime)| expected(lifetime) && state.user(**id).is_none()) {
            Some((id, (from, _))) => Err(format!("user {id}, acknowledged at index {from}, is gone")),
            None => Ok(()),
        }
    }
}

impl Users {
    fn note(&mut self, body: &Body, index: u64) {
        match body {
            Body::CreateUser(command) => {
                if let Ok(id) = UserId::parse(&command.user_id) {
                    self.0.entry(id).or_insert((index, None));
                }
            }
            Body::DeleteUser(command) => {
                let lifetime = UserId::parse(&command.user_id).ok().and_then(|id| self.0.get_mut(&id));
                if let Some((_, until)) = lifetime {
                    until.get_or_insert(index);
                }
            }
            _ => {}
        }
    }
}
