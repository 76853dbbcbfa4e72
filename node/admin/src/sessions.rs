//! Live sessions, and their revocation.

use std::time::Duration;

use conclave_proto::{
    admin::v1::{self as pb, session_service_server::SessionService},
    command::v1::{RevokeGrant, RevokeSession, RevokeUserAccess, RevokeUserSessions, command::Body},
};
use conclave_state::{
    ids::{GrantId, SessionId},
    outbox::{OutboxEffect, OutboxItem},
    session::Session,
    user::User,
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tonic::{Request, Response, Status};

use conclave_auth::notices::{self, Whose};
use conclave_cluster::CommittedWrite;

use super::{
    Api, errors, names,
    page::Listing,
    request::{Reading, Writing},
};

/// Grants of one session that are revoked concurrently. Each waits until no node accepts it any more, and one command
/// must not fill the queue of writes.
const GRANTS_AT_ONCE: usize = 16;
/// The number of checks and the pause between them, while clients receive notices: two seconds in total, in which a
/// client that answers has answered.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// The most outbox rows that are read for one response.
const MAX_NOTICES_LOOKED_AT: usize = 10_000;

#[tonic::async_trait]
impl SessionService for Api {
    async fn list_sessions(
        &self,
        request: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let (sessions, next_page_token) = if wanted.user.is_empty() {
            everyones(&reading, &self.listing("sessions", wanted.page)?)?
        } else {
            let user = names::user(&reading.state, &wanted.user);
            let user = user.ok_or_else(|| errors::not_found("user", &wanted.user))?;
            let listing = self.listing(format!("sessions of {user}"), wanted.page)?;
            let after = listing.after(|bytes| SessionId::parse(bytes).ok())?;
            let rows = reading.state.sessions_of(user).filter(|session| Some(session.id) > after);
            listing.page(rows.filter_map(|session| row(&reading, session)))
        };
        reading.reply(pb::ListSessionsResponse { sessions, next_page_token })
    }

    /// Revokes a session. The reply for a session that has already ended is that of one that ends now. With its grants,
    /// there is one write for the session, and one for each grant that outlives it. None can be added once the session
    /// has ended, and a retry finds the remaining ones.
    async fn revoke_session(
        &self,
        request: Request<pb::RevokeSessionRequest>,
    ) -> Result<Response<pb::RevokeSessionResponse>, Status> {
        let (writing, message) = self.write(request, "RevokeSession").await?;
        let session = SessionId::from_hex(&message.session_id);
        let session = session.ok_or_else(|| errors::invalid("session_id must be 32 hex digits"))?;
        let body = Body::RevokeSession(RevokeSession { session_id: session.to_vec() });
        let mut committed = writing.propose(body).await?;
        if message.with_grants {
            committed = end_grants(&writing, session, committed).await?;
        }
        let not_told = writing.not_told(Whose::Session(session)).await;
        writing.reply(&committed, pb::RevokeSessionResponse { not_told })
    }

    async fn revoke_user_sessions(
        &self,
        request: Request<pb::RevokeUserSessionsRequest>,
    ) -> Result<Response<pb::RevokeUserSessionsResponse>, Status> {
        let (mut writing, message) = self.write(request, "RevokeUserSessions").await?;
        let user = writing.user(&message.user).await?;
        let user_id = user.to_vec();
        let body = if message.app_passwords {
            Body::RevokeUserAccess(RevokeUserAccess { user_id })
        } else {
            Body::RevokeUserSessions(RevokeUserSessions { user_id, except_session_id: Vec::new() })
        };
        let committed = writing.propose(body).await?;
        let (state, now) = (&committed.state, self.auth.now(&committed.state));
        let left = state.app_passwords_of(user).filter(|row| state.is_app_password_good(row, now)).count();
        let app_passwords_left = u32::try_from(left).unwrap_or(u32::MAX);
        let not_told = writing.not_told(Whose::User(user)).await;
        writing.reply(&committed, pb::RevokeUserSessionsResponse { app_passwords_left, not_told })
    }

    async fn list_notices(
        &self,
        request: Request<pb::ListNoticesRequest>,
    ) -> Result<Response<pb::ListNoticesResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let listing = self.listing("notices", wanted.page)?;
        let after = listing.after(|bytes| bytes.try_into().ok().map(u64::from_be_bytes))?;
        let rows = reading.state.outbox().filter(|item| Some(item.sequence) > after);
        let rows = rows.map(|item| (item.sequence.to_be_bytes().to_vec(), self.notice(&reading, item)));
        let (notices, next_page_token) = listing.page(rows);
        reading.reply(pb::ListNoticesResponse { notices, next_page_token })
    }
}

impl Api {
    fn notice(&self, reading: &Reading, item: &OutboxItem) -> pb::Notice {
        let OutboxEffect::BackChannelLogout { client, session, user } = &item.effect;
        let attempts = self.auth.notices().of(item.sequence);
        pb::Notice {
            sequence: item.sequence,
            client_id: client.to_string(),
            session_id: session.to_string(),
            username: reading.state.user(*user).map(|user| user.username.to_string()).unwrap_or_default(),
            waiting_since_ms: item.created_at.0,
            attempts: attempts.times,
            last_error: attempts.last_error,
        }
    }
}

impl Writing {
    /// The clients that have not accepted the notice of a sign-out after a moment, in which clients that can be reached
    /// accept it.
    pub(super) async fn not_told(&self, whose: Whose) -> Vec<String> {
        let cluster = self.api.auth.cluster();
        for _ in 0..LOOKS {
            if notices::not_told(&cluster.view(), whose, MAX_NOTICES_LOOKED_AT).is_empty() {
                return Vec::new();
            }
            tokio::time::sleep(PAUSE).await;
        }
        notices::not_told(&cluster.view(), whose, MAX_NOTICES_LOOKED_AT)
    }
}

/// Revokes the grants that outlive the session. Returns the last of the writes, or `over` if there is nothing to do.
async fn end_grants(
    writing: &Writing,
    session: SessionId,
    over: CommittedWrite,
) -> Result<CommittedWrite, Status> {
    let grants: Vec<GrantId> = over.state.grants_of_session(session).map(|grant| grant.id).collect();
    futures_util::stream::iter(grants)
        .map(|grant| {
            let body = Body::RevokeGrant(RevokeGrant { grant_id: grant.to_vec() });
            writing.propose_then(format!("grant {grant}"), body)
        })
        .buffer_unordered(GRANTS_AT_ONCE)
        .try_fold(over, async |last, next| Ok(if next.index > last.index { next } else { last }))
        .await
}

fn everyones(reading: &Reading, listing: &Listing) -> Result<(Vec<pb::Session>, String), Status> {
    let after = listing.after(|bytes| SessionId::parse(bytes).ok())?;
    let rows = reading.state.sessions_after(after);
    Ok(listing.page(rows.filter_map(|session| row(reading, session))))
}

fn row(reading: &Reading, session: &Session) -> Option<(Vec<u8>, pb::Session)> {
    let (session, user) = reading.state.live_session(session.id, reading.now)?;
    Some((session.id.to_vec(), to_proto(session, user)))
}

fn to_proto(session: &Session, user: &User) -> pb::Session {
    pb::Session {
        id: session.id.to_string(),
        username: user.username.to_string(),
        user_id: user.id.to_string(),
        auth_time_ms: session.auth_time.0,
        expires_at_ms: session.expires_at.0,
        amr: session.amr.clone(),
        user_agent: session.user_agent.clone(),
        address: session.address.clone(),
    }
}
