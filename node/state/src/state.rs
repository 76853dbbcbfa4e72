//! The replicated state: persistent ordered maps, so a clone costs nothing and a reader keeps one consistent version.
//!
//! Tables are what snapshots hold. Indexes are derived from tables by the `put_*`/`take_*` functions of each domain and
//! are never written to a snapshot; loading puts every row again and so rebuilds them.

use std::{fmt, sync::Arc};

use imbl::{OrdMap, OrdSet};

use crate::{
    access::RevokedAccess,
    app_password::AppPassword,
    application::Application,
    client::{Client, ClientId},
    consent::Consent,
    device::DeviceRequest,
    grant::{Grant, RefreshFamily},
    group::Group,
    ids::{
        AccessTokenId, AppPasswordId, AppSessionId, ApplicationId, DeviceId, FamilyId, GrantId, GroupId,
        InvitationId, PictureId, PushedRequestId, RequestId, RestoreId, SessionId, TicketId, TokenId, UserId,
    },
    key::SigningKey,
    outbox::OutboxItem,
    picture::Picture,
    policy::ApplicationPolicy,
    pushed::PushedRequest,
    restore::Staging,
    secret::SecretInUse,
    session::{AppSession, Session},
    stamp::Stamp,
    system::{ChangedTerms, RememberedReply, SpentTicket},
    throttle::Throttle,
    token::ApiToken,
    upstream::{Invitation, LinkedIdentity, Upstream},
    user::{FormerName, PasswordHash, User},
};

/// One consistent version of the replicated state.
#[derive(Clone, Default)]
pub struct State {
    pub(crate) meta: Meta,

    pub(crate) users: OrdMap<UserId, Arc<User>>,
    pub(crate) passwords: OrdMap<UserId, Arc<PasswordHash>>,
    pub(crate) groups: OrdMap<GroupId, Arc<Group>>,
    pub(crate) applications: OrdMap<ApplicationId, Arc<Application>>,
    pub(crate) clients: OrdMap<ClientId, Arc<Client>>,
    pub(crate) sessions: OrdMap<SessionId, Arc<Session>>,
    pub(crate) app_sessions: OrdMap<AppSessionId, Arc<AppSession>>,
    pub(crate) grants: OrdMap<GrantId, Arc<Grant>>,
    pub(crate) families: OrdMap<FamilyId, Arc<RefreshFamily>>,
    pub(crate) keys: OrdMap<Arc<str>, Arc<SigningKey>>,
    pub(crate) tokens: OrdMap<TokenId, Arc<ApiToken>>,
    pub(crate) app_passwords: OrdMap<AppPasswordId, Arc<AppPassword>>,
    pub(crate) tickets: OrdMap<TicketId, SpentTicket>,
    pub(crate) throttles: OrdMap<UserId, Throttle>,
    pub(crate) requests: OrdMap<RequestId, Arc<RememberedReply>>,
    pub(crate) outbox: OrdMap<u64, Arc<OutboxItem>>,
    pub(crate) pushed: OrdMap<PushedRequestId, Arc<PushedRequest>>,
    pub(crate) devices: OrdMap<DeviceId, Arc<DeviceRequest>>,
    pub(crate) consents: OrdMap<(UserId, ClientId), Arc<Consent>>,
    pub(crate) revoked_access: OrdMap<AccessTokenId, RevokedAccess>,
    pub(crate) upstreams: OrdMap<Arc<str>, Arc<Upstream>>,
    pub(crate) identities: OrdMap<(Arc<str>, Arc<str>), Arc<LinkedIdentity>>,
    pub(crate) pictures: OrdMap<UserId, Arc<Picture>>,
    pub(crate) invitations: OrdMap<InvitationId, Arc<Invitation>>,
    pub(crate) policies: OrdMap<ApplicationId, Arc<ApplicationPolicy>>,
    pub(crate) former_names: OrdMap<Arc<str>, Arc<FormerName>>,
    pub(crate) staging: Option<Arc<Staging>>,

    pub(crate) usernames: OrdMap<Arc<str>, UserId>,
    pub(crate) users_by_address: OrdSet<(Arc<str>, UserId)>,
    pub(crate) former_names_by_time: OrdSet<(Stamp, Arc<str>)>,
    pub(crate) group_names: OrdMap<Arc<str>, GroupId>,
    pub(crate) groups_by_folded_name: OrdSet<(Arc<str>, GroupId)>,
    pub(crate) subjects_by_user: OrdMap<(UserId, Arc<str>), Arc<str>>,
    pub(crate) pictures_by_id: OrdSet<(PictureId, UserId)>,
    pub(crate) members: OrdSet<(GroupId, UserId)>,
    pub(crate) slugs: OrdMap<Arc<str>, ApplicationId>,
    pub(crate) hosts: OrdMap<Arc<str>, ApplicationId>,
    pub(crate) sessions_by_user: OrdSet<(UserId, SessionId)>,
    pub(crate) app_passwords_by_user: OrdSet<(UserId, AppPasswordId)>,
    pub(crate) app_sessions_by_session: OrdSet<(SessionId, AppSessionId)>,
    pub(crate) grants_by_session: OrdSet<(SessionId, GrantId)>,
    pub(crate) grants_by_user: OrdSet<(UserId, GrantId)>,
    pub(crate) grants_by_client: OrdSet<(ClientId, GrantId)>,
    pub(crate) proofs_by_client: OrdMap<ClientId, usize>,
    pub(crate) pushed_by_client: OrdSet<(ClientId, PushedRequestId)>,
    pub(crate) devices_by_client: OrdSet<(ClientId, DeviceId)>,
    pub(crate) user_codes: OrdMap<[u8; 32], DeviceId>,
    pub(crate) expiries: OrdSet<(Stamp, Expiring)>,
    pub(crate) request_order: OrdSet<(Stamp, RequestId)>,
}

/// The state's own numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The last log index applied.
    pub index: u64,
    /// Log time: the largest stamp so far.
    pub clock: Stamp,
    /// The feature level in force.
    pub level: u32,
    /// Sessions and grants of an earlier epoch are dead.
    pub revocation_epoch: u64,
    /// The sequence number that the next outbox row takes.
    pub next_outbox: u64,
    /// The lease terms; none while no operator has changed them.
    pub lease_terms: Option<ChangedTerms>,
    /// The highest node id ever reserved; 0 = none.
    pub last_node_id: u64,
    /// Epochs of the lineages before the present one, oldest first.
    pub former_epochs: Vec<u64>,
    /// The cluster secret in use; none while there has only ever been one.
    pub secret: Option<Arc<SecretInUse>>,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            index: 0,
            clock: Stamp::default(),
            level: 1,
            revocation_epoch: 1,
            next_outbox: 1,
            lease_terms: None,
            last_node_id: 0,
            former_epochs: Vec::new(),
            secret: None,
        }
    }
}

/// A row that a sweep removes after its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Expiring {
    Session(SessionId),
    Grant(GrantId),
    Token(TokenId),
    Ticket(TicketId),
    Throttle(UserId),
    Pushed(PushedRequestId),
    Device(DeviceId),
    RevokedAccess(AccessTokenId),
    AppPassword(AppPasswordId),
    Restore(RestoreId),
    Invitation(InvitationId),
}

impl State {
    /// The state's own numbers.
    pub const fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The last log index that this version includes.
    pub const fn index(&self) -> u64 {
        self.meta.index
    }

    /// This version, after an entry that carries no command (blank, membership).
    #[must_use]
    pub fn having_seen(&self, index: u64) -> Self {
        let mut next = self.clone();
        next.meta.index = index;
        next
    }

    /// True if a sweep at `now` would find anything.
    pub fn has_expired_rows(&self, now: Stamp) -> bool {
        self.expiries.get_min().is_some_and(|(at, _)| at.is_over_at(now))
    }

    pub(crate) fn expire_at(&mut self, at: Stamp, row: Expiring) {
        self.expiries.insert((at, row));
    }

    pub(crate) fn forget_expiry(&mut self, at: Stamp, row: Expiring) {
        self.expiries.remove(&(at, row));
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("meta", &self.meta)
            .field("users", &self.users.len())
            .field("sessions", &self.sessions.len())
            .field("grants", &self.grants.len())
            .finish_non_exhaustive()
    }
}
