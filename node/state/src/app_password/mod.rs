//! App passwords: the credentials that programs which support only HTTP Basic present to the check. They are random and
//! shown once, so a fast keyed hash is enough to store them. Each belongs to a user, and opens one application or all
//! applications that accept such passwords. They end with their user, their application or their expiry, when they are
//! revoked, when an administrator resets the user's password, and when the revocation epoch rises. A user who changes
//! their own password keeps them, because they are not copies of it.

use std::sync::Arc;

use conclave_proto::{command::v1 as pb, state::v1 as rows};

use crate::{
    draft::Draft,
    ids::{AppPasswordId, ApplicationId, SecretHash, UserId},
    reply::{Reason, Refusal, Reply, ReplyBody, body, done},
    secret::{self, SecretId},
    snapshot::Row,
    stamp::Stamp,
    state::{Expiring, State},
    text,
    user::User,
};

/// Most app passwords of one user: enough for a phone, a calendar, a backup and other devices at home.
const MAX_OF_USER: usize = 64;

/// The revocation epoch of a new cluster. Rows store their epoch as a difference to it, so that rows from before epochs
/// existed keep their meaning.
const FIRST_EPOCH: u64 = 1;

/// An app password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppPassword {
    /// Its id; part of the credential that the program presents.
    pub id: AppPasswordId,
    /// The user it belongs to.
    pub user: UserId,
    /// The application it opens; none = every application that accepts app passwords.
    pub application: Option<ApplicationId>,
    /// Display name.
    pub name: String,
    /// Hash of its secret, under a key of the cluster.
    pub secret_hash: SecretHash,
    /// Expiry; none = never.
    pub expires_at: Option<Stamp>,
    /// Creation time.
    pub created_at: Stamp,
    /// The revocation epoch in which it was made; it is dead in any other.
    pub epoch: u64,
    /// The cluster secret whose key hashes it; none = the first one.
    pub secret_id: Option<SecretId>,
}

pub(crate) fn create(draft: &mut Draft, command: &pb::CreateAppPassword) -> Result<Reply, Refusal> {
    let id = AppPasswordId::parse(&command.app_password_id)?;
    if draft.state.app_passwords.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, "the app password exists"));
    }
    let user = draft.state.existing_user(UserId::parse(&command.user_id)?)?.id;
    draft.state.take_dead_app_passwords_of(user);
    if draft.state.app_passwords_of(user).count() >= MAX_OF_USER {
        return Err(Refusal::malformed(format!(
            "a person has at most {MAX_OF_USER} app passwords; revoke one first"
        )));
    }
    let application = match command.application_id.as_slice() {
        [] => None,
        bytes => Some(draft.state.existing_application(ApplicationId::parse(bytes)?)?.id),
    };
    draft.state.put_app_password(AppPassword {
        id,
        user,
        application,
        name: text::required("name", &command.name, text::MAX_TEXT_BYTES)?,
        secret_hash: SecretHash::parse(&command.secret_hash)?,
        expires_at: (command.ttl_ms != 0).then(|| draft.at.plus_ms(command.ttl_ms)),
        created_at: draft.at,
        epoch: draft.state.meta.revocation_epoch,
        secret_id: parse_secret_id(&command.secret_id)?,
    });
    Ok(body(ReplyBody::ApiTokenCreated(pb::ApiTokenCreated { index: draft.index })))
}

/// Stores the hash of an app password under another key. An app password that is gone or was rehashed already is left
/// alone.
pub(crate) fn rehash(draft: &mut Draft, command: &pb::RehashAppPassword) -> Result<Reply, Refusal> {
    let id = AppPasswordId::parse(&command.app_password_id)?;
    let before = SecretHash::parse(&command.before)?;
    let (secret_hash, secret_id) =
        (SecretHash::parse(&command.secret_hash)?, Some(secret::parse_id(&command.secret_id)?));
    let found = draft.state.app_passwords.get(&id).filter(|row| row.secret_hash.matches(&before)).cloned();
    if let Some(row) = found {
        draft.state.put_app_password(AppPassword { secret_hash, secret_id, ..(*row).clone() });
    }
    Ok(done())
}

fn parse_secret_id(bytes: &[u8]) -> Result<Option<SecretId>, Refusal> {
    if bytes.is_empty() { Ok(None) } else { secret::parse_id(bytes).map(Some) }
}

pub(crate) fn revoke(draft: &mut Draft, command: &pb::RevokeAppPassword) -> Result<Reply, Refusal> {
    let id = AppPasswordId::parse(&command.app_password_id)?;
    match draft.state.take_app_password(id) {
        Some(_) => Ok(done()),
        None => Err(Refusal::new(Reason::TokenUnknown, format!("there is no app password {id}"))),
    }
}

impl State {
    /// The app password with this id and its user, if both are valid at `now`.
    pub fn live_app_password(
        &self,
        id: AppPasswordId,
        now: Stamp,
    ) -> Option<(&Arc<AppPassword>, &Arc<User>)> {
        let password = self.app_passwords.get(&id).filter(|row| self.is_app_password_good(row, now))?;
        let user = self.users.get(&password.user)?;
        (!user.disabled).then_some((password, user))
    }

    /// True if it has not expired and belongs to the current revocation epoch.
    pub fn is_app_password_good(&self, row: &AppPassword, now: Stamp) -> bool {
        let over = row.expires_at.is_some_and(|at| at.is_over_at(now));
        !over && row.epoch == self.meta.revocation_epoch
    }

    /// App passwords in the order of their ids, after `after`.
    pub fn app_passwords_after(
        &self,
        after: Option<AppPasswordId>,
    ) -> impl Iterator<Item = &Arc<AppPassword>> {
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.app_passwords.range((start, std::ops::Bound::Unbounded)).map(|(_, row)| row)
    }

    /// The app passwords of one user.
    pub fn app_passwords_of(&self, user: UserId) -> impl Iterator<Item = &Arc<AppPassword>> {
        let from = (user, AppPasswordId::new([0; 16]));
        let own = self.app_passwords_by_user.range(from..).take_while(move |(owner, _)| *owner == user);
        own.filter_map(|(_, id)| self.app_passwords.get(id))
    }

    pub(crate) fn put_app_password(&mut self, row: AppPassword) {
        if let Some(at) = row.expires_at {
            self.expire_at(at, Expiring::AppPassword(row.id));
        }
        self.app_passwords_by_user.insert((row.user, row.id));
        self.app_passwords.insert(row.id, Arc::new(row));
    }

    pub(crate) fn take_app_password(&mut self, id: AppPasswordId) -> Option<Arc<AppPassword>> {
        let row = self.app_passwords.remove(&id)?;
        self.app_passwords_by_user.remove(&(row.user, id));
        if let Some(at) = row.expires_at {
            self.forget_expiry(at, Expiring::AppPassword(id));
        }
        Some(row)
    }

    pub(crate) fn take_app_passwords_of(&mut self, user: UserId) {
        let ids: Vec<_> = self.app_passwords_of(user).map(|row| row.id).collect();
        for id in ids {
            self.take_app_password(id);
        }
    }

    /// Removes the app passwords of earlier revocation epochs. No sweep finds them, because most have no expiry.
    fn take_dead_app_passwords_of(&mut self, user: UserId) {
        let epoch = self.meta.revocation_epoch;
        let dead = self.app_passwords_of(user).filter(|row| row.epoch != epoch);
        let ids: Vec<_> = dead.map(|row| row.id).collect();
        for id in ids {
            self.take_app_password(id);
        }
    }

    pub(crate) fn take_app_passwords_for(&mut self, application: ApplicationId) {
        let rows = self.app_passwords.values().filter(|row| row.application == Some(application));
        let ids: Vec<_> = rows.map(|row| row.id).collect();
        for id in ids {
            self.take_app_password(id);
        }
    }
}

impl Row for AppPassword {
    const TABLE: u32 = 60;
    type Wire = rows::AppPasswordRow;

    fn to_wire(&self) -> rows::AppPasswordRow {
        rows::AppPasswordRow {
            app_password_id: self.id.to_vec(),
            user_id: self.user.to_vec(),
            application_id: self.application.map(ApplicationId::to_vec).unwrap_or_default(),
            name: self.name.clone(),
            secret_hash: self.secret_hash.bytes().to_vec(),
            expires_at_ms: self.expires_at.unwrap_or_default().0,
            created_at_ms: self.created_at.0,
            epochs_before: self.epoch.saturating_sub(FIRST_EPOCH),
            secret_id: self.secret_id.map(Vec::from).unwrap_or_default(),
        }
    }

    fn from_wire(wire: rows::AppPasswordRow) -> Result<Self, Refusal> {
        let application = match wire.application_id.as_slice() {
            [] => None,
            bytes => Some(ApplicationId::parse(bytes)?),
        };
        Ok(Self {
            id: AppPasswordId::parse(&wire.app_password_id)?,
            user: UserId::parse(&wire.user_id)?,
            application,
            name: wire.name,
            secret_hash: SecretHash::parse(&wire.secret_hash)?,
            expires_at: (wire.expires_at_ms != 0).then_some(Stamp(wire.expires_at_ms)),
            created_at: Stamp(wire.created_at_ms),
            epoch: wire.epochs_before.saturating_add(FIRST_EPOCH),
            secret_id: parse_secret_id(&wire.secret_id)?,
        })
    }

    fn put(self, state: &mut State) {
        state.put_app_password(self);
    }
}
