//! Names that identify a user, and names that a newcomer does not get (decisions 0061 and 0063).
//!
//! A username identifies its user. So does an e-mail address that is verified, that no other user has, and that is not
//! a username. From [`level::NAMES`] on no username is assigned that is another user's address, and no address that is
//! another user's address or username. Earlier duplicates stay as they are and identify the user with the username, or
//! no user.

use std::sync::Arc;

use conclave_proto::state::v1 as rows;

use super::{User, parse_username};
use crate::{
    ids::UserId,
    level,
    reply::{Reason, Refusal},
    snapshot::Row,
    stamp::Stamp,
    state::State,
    text,
};

/// Most names of former users that are remembered: years of staff changes in a large organisation, in some megabytes.
/// The oldest are dropped first.
const MAX_FORMER_NAMES: usize = 50_000;

/// Usernames that no newcomer from a provider gets, compared without `-`, `_`, `.`, `@` and `+`: applications and
/// operating systems grant rights to most of them by the name alone, and users trust mail from the last ones.
const RESERVED: [&str; 23] = [
    // Administrators and accounts of applications and operating systems.
    "admin",
    "administrator",
    "admins",
    "administrators",
    "akadmin",
    "conclave",
    "superuser",
    "sysadmin",
    "root",
    "system",
    "daemon",
    "nobody",
    "operator",
    "sudo",
    "wheel",
    "guest",
    "anonymous",
    // Mailboxes of RFC 2142.
    "abuse",
    "hostmaster",
    "postmaster",
    "webmaster",
    "security",
    "support",
];

/// A username that a removed or renamed user had. Administrators may give it to another user; providers may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerName {
    /// The name. No user has it now.
    pub username: Arc<str>,
    /// The user who had it last.
    pub user: UserId,
    /// The time at which the user lost it.
    pub since: Stamp,
}

impl State {
    /// The user that a typed sign-in name identifies: by username, or else by an address that identifies one user.
    pub fn user_by_sign_in_name(&self, typed: &str) -> Option<&Arc<User>> {
        self.user_by_name(typed).or_else(|| self.user_by_address(typed))
    }

    /// The only user with this address, if it is verified.
    fn user_by_address(&self, typed: &str) -> Option<&Arc<User>> {
        if self.meta.level < level::NAMES {
            return None;
        }
        let mut users = self.users_with_address(text::folded(typed.trim()));
        let only = users.next().filter(|_| users.next().is_none())?;
        only.email_verified.then_some(only)
    }

    /// Users with this address, in lower case.
    fn users_with_address(&self, folded: Arc<str>) -> impl Iterator<Item = &Arc<User>> {
        let from = (Arc::clone(&folded), UserId::new([0; 16]));
        let rows = self.users_by_address.range(from..).take_while(move |(address, _)| *address == folded);
        rows.filter_map(|(_, user)| self.users.get(user))
    }

    /// Refuses an address that another user has as an address or as a username. Always passes before [`level::NAMES`].
    pub(super) fn address_is_free(&self, email: &str, of: UserId) -> Result<(), Refusal> {
        if self.meta.level < level::NAMES || email.is_empty() {
            return Ok(());
        }
        let folded = text::folded(email);
        let named = self.usernames.get(&folded).and_then(|user| self.users.get(user));
        let other = self.users_with_address(folded).chain(named).find(|user| user.id != of);
        other.map_or(Ok(()), |user| {
            let why = format!("the e-mail address {email} belongs to the user {}", user.username);
            Err(Refusal::new(Reason::AddressTaken, why))
        })
    }

    /// Refuses a username that another user has, or that is another user's address.
    pub(super) fn username_is_free(&self, username: &str, of: UserId) -> Result<(), Refusal> {
        if self.usernames.get(username).is_some_and(|user| *user != of) {
            return Err(Refusal::new(Reason::UsernameTaken, format!("the username {username} is taken")));
        }
        if self.meta.level < level::NAMES {
            return Ok(());
        }
        self.users_with_address(username.into()).find(|user| user.id != of).map_or(Ok(()), |user| {
            let why = format!("the username {username} is the e-mail address of the user {}", user.username);
            Err(Refusal::new(Reason::UsernameTaken, why))
        })
    }

    /// True if a newcomer from a provider may have this username: it is free and not reserved, and no removed or
    /// renamed user had it.
    pub fn is_free_for_newcomer(&self, username: &str) -> bool {
        let Ok(username) = parse_username(username) else { return false };
        let is_letter = |c: &char| !matches!(c, '-' | '_' | '.' | '@' | '+');
        let letters: String = username.chars().filter(is_letter).collect();
        !self.usernames.contains_key(&username)
            && self.users_with_address(Arc::clone(&username)).next().is_none()
            && !self.former_names.contains_key(&username)
            && !RESERVED.contains(&letters.as_str())
    }

    /// True if the address is free for a newcomer from a provider.
    pub(crate) fn address_is_free_for_newcomer(&self, email: &str, of: UserId) -> bool {
        self.address_is_free(email.trim(), of).is_ok()
    }

    /// Names of removed and renamed users, by name.
    pub fn former_names(&self) -> impl Iterator<Item = &Arc<FormerName>> {
        self.former_names.values()
    }

    /// Remembers a name that no user has any more. A name that is in use is not recorded.
    pub(crate) fn put_former_name(&mut self, former: FormerName) {
        if self.usernames.contains_key(&former.username) {
            return;
        }
        self.take_former_name(&former.username);
        self.former_names_by_time.insert((former.since, Arc::clone(&former.username)));
        self.former_names.insert(Arc::clone(&former.username), Arc::new(former));
        while self.former_names.len() > MAX_FORMER_NAMES {
            let Some((_, oldest)) = self.former_names_by_time.get_min().cloned() else { break };
            self.take_former_name(&oldest);
        }
    }

    pub(super) fn take_former_name(&mut self, username: &Arc<str>) {
        if let Some(former) = self.former_names.remove(username) {
            self.former_names_by_time.remove(&(former.since, Arc::clone(username)));
        }
    }
}

impl Row for FormerName {
    const TABLE: u32 = 520;
    type Wire = rows::FormerNameRow;

    fn to_wire(&self) -> rows::FormerNameRow {
        rows::FormerNameRow {
            username: self.username.to_string(),
            user_id: self.user.to_vec(),
            since_ms: self.since.0,
        }
    }

    fn from_wire(wire: rows::FormerNameRow) -> Result<Self, Refusal> {
        Ok(Self {
            username: parse_username(&wire.username)?,
            user: UserId::parse(&wire.user_id)?,
            since: Stamp(wire.since_ms),
        })
    }

    fn put(self, state: &mut State) {
        state.put_former_name(self);
    }
}
