//! Users and their passwords. Owns usernames (unique, lower case) and what ends with a user: sessions, grants,
//! throttle.

mod create;
mod delete;
mod names;
mod password;
mod rename;
mod unlock;
mod update;
mod wire;

use std::sync::Arc;

use imbl::OrdSet;

pub(crate) use {
    create::create,
    delete::delete,
    password::{reset_password, set_password},
    rename::rename,
    unlock::unlock,
    update::update,
};

pub use names::FormerName;

use crate::{
    ids::{GroupId, UserId},
    reply::{Reason, Refusal},
    stamp::Stamp,
    state::State,
    text,
};

/// Longest username: fits headers and tables.
const MAX_USERNAME_BYTES: usize = 64;
/// Most attributes of a user, so that a row stays small.
const MAX_ATTRIBUTES: usize = 32;
/// Longest PHC string: argon2id with a 64-byte salt and hash fits easily.
const MAX_PHC_BYTES: usize = 512;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's id; the `sub` of clients with public subjects.
    pub id: UserId,
    /// Unique name in lower case.
    pub username: Arc<str>,
    /// Display name.
    pub display_name: String,
    /// E-mail address; empty = none.
    pub email: String,
    /// True if the address was verified.
    pub email_verified: bool,
    /// Free attributes, sorted by name.
    pub attributes: Vec<(String, String)>,
    /// A disabled user cannot sign in and has no session.
    pub disabled: bool,
    /// The groups that the user is in.
    pub groups: OrdSet<GroupId>,
    /// Creation time.
    pub created_at: Stamp,
    /// Time of the last change.
    pub updated_at: Stamp,
    /// The log index of the last `UnlockUser`; 0 = never. Attempts counted under an earlier one are ignored.
    pub unlock_version: u64,
}

/// The hash against which a password is verified.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    /// The user.
    pub user: UserId,
    /// An argon2id PHC string.
    pub phc: String,
    /// The log index that set it: a login that was verified against an older one is not accepted.
    pub version: u64,
    /// The time at which it was set.
    pub changed_at: Stamp,
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordHash")
            .field("user", &self.user)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Parses a username: compared in lower case, limited to characters that fit into URLs and headers.
///
/// # Errors
/// `Malformed`, with the allowed characters.
pub fn parse_username(text: &str) -> Result<Arc<str>, Refusal> {
    let lower = text.trim().to_ascii_lowercase();
    let fits =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | '@' | '+');
    if lower.is_empty() || lower.len() > MAX_USERNAME_BYTES || !lower.chars().all(fits) {
        return Err(Refusal::malformed(format!(
            "a username has 1 to {MAX_USERNAME_BYTES} of a-z, 0-9, '-', '_', '.', '@', '+'"
        )));
    }
    Ok(lower.into())
}

impl State {
    /// The user with this id.
    pub fn user(&self, id: UserId) -> Option<&Arc<User>> {
        self.users.get(&id)
    }

    /// The user with this name, compared in lower case.
    pub fn user_by_name(&self, username: &str) -> Option<&Arc<User>> {
        let name = parse_username(username).ok()?;
        self.users.get(self.usernames.get(&name)?)
    }

    /// The user's password hash.
    pub fn password(&self, user: UserId) -> Option<&Arc<PasswordHash>> {
        self.passwords.get(&user)
    }

    /// Users in the order of their ids, after `after`.
    pub fn users_after(&self, after: Option<UserId>) -> impl Iterator<Item = &Arc<User>> {
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.users.range((start, std::ops::Bound::Unbounded)).map(|(_, user)| user)
    }

    /// The number of users.
    pub fn user_count(&self) -> usize {
        self.users.len()
    }

    pub(crate) fn existing_user(&self, id: UserId) -> Result<Arc<User>, Refusal> {
        self.users
            .get(&id)
            .cloned()
            .ok_or_else(|| Refusal::new(Reason::UserUnknown, format!("there is no user {id}")))
    }

    /// The user, unless disabled.
    pub(crate) fn able_user(&self, id: UserId) -> Result<Arc<User>, Refusal> {
        let user = self.existing_user(id)?;
        if user.disabled {
            return Err(Refusal::new(Reason::UserDisabled, format!("user {} is disabled", user.username)));
        }
        Ok(user)
    }

    pub(crate) fn put_user(&mut self, user: User) {
        if let Some(before) = self.users.get(&user.id).cloned() {
            self.usernames.remove(&before.username);
            self.users_by_address.remove(&(text::folded(&before.email), user.id));
            before.groups.iter().for_each(|group| {
                self.members.remove(&(*group, user.id));
            });
        }
        self.usernames.insert(user.username.clone(), user.id);
        self.take_former_name(&user.username);
        if !user.email.is_empty() {
            self.users_by_address.insert((text::folded(&user.email), user.id));
        }
        user.groups.iter().for_each(|group| {
            self.members.insert((*group, user.id));
        });
        self.users.insert(user.id, Arc::new(user));
    }

    pub(crate) fn take_user(&mut self, user: &User) {
        self.users.remove(&user.id);
        self.usernames.remove(&user.username);
        self.users_by_address.remove(&(text::folded(&user.email), user.id));
        user.groups.iter().for_each(|group| {
            self.members.remove(&(*group, user.id));
        });
        self.passwords.remove(&user.id);
        self.take_throttle(user.id);
    }

    pub(crate) fn put_password(&mut self, password: PasswordHash) {
        self.passwords.insert(password.user, Arc::new(password));
    }
}
