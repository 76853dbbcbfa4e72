//! Who is signed in, and the end of it. Only live sessions are shown.

use conclave_proto::{
    admin::v1::{self as pb, session_service_server::SessionService},
    command::v1::{RevokeGrant, RevokeSession, RevokeUserAccess, RevokeUserSessions, command::Body},
};
use conclave_state::{
    ids::{GrantId, SessionId},
    session::Session,
    user::User,
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tonic::{Request, Response, Status};

use crate::cluster::Committed;

use super::{
    Api, errors, names,
    page::Listing,
    request::{Reading, Writing},
};

/// Grants of one session that are ended side by side: each waits until no node accepts it any more, and one order must not fill the
/// queue of writes.
const GRANTS_AT_ONCE: usize = 16;

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

    /// A session that is over already is answered like one that ends now. With its grants: one write, and one for each grant that
    /// outlives it; none can be added once the session is over, and a retry finds those that are left.
    async fn revoke_session(
        &self,
        request: Request<pb::RevokeSessionRequest>,
    ) -> Result<Response<pb::RevokeSessionResponse>, Status> {
        let (writing, order) = self.write(request, "RevokeSession").await?;
        let session = SessionId::from_hex(&order.session_id);
        let session = session.ok_or_else(|| errors::invalid("session_id must be 32 hex digits"))?;
        let body = Body::RevokeSession(RevokeSession { session_id: session.to_vec() });
        let mut committed = writing.propose(body).await?;
        if order.with_grants {
            committed = end_grants(&writing, session, committed).await?;
        }
        writing.reply(&committed, pb::RevokeSessionResponse {})
    }

    async fn revoke_user_sessions(
        &self,
        request: Request<pb::RevokeUserSessionsRequest>,
    ) -> Result<Response<pb::RevokeUserSessionsResponse>, Status> {
        let (mut writing, order) = self.write(request, "RevokeUserSessions").await?;
        let user = writing.user(&order.user).await?;
        let user_id = user.to_vec();
        let body = if order.app_passwords {
            Body::RevokeUserAccess(RevokeUserAccess { user_id })
        } else {
            Body::RevokeUserSessions(RevokeUserSessions { user_id, except_session_id: Vec::new() })
        };
        let committed = writing.propose(body).await?;
        let (state, now) = (&committed.state, self.auth.now(&committed.state));
        let left = state.app_passwords_of(user).filter(|row| state.is_app_password_good(row, now)).count();
        let app_passwords_left = u32::try_from(left).unwrap_or(u32::MAX);
        writing.reply(&committed, pb::RevokeUserSessionsResponse { app_passwords_left })
    }
}

/// Ends what outlived the session. Gives the last of the writes, or `over` when there was nothing to do.
async fn end_grants(writing: &Writing, session: SessionId, over: Committed) -> Result<Committed, Status> {
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
    Some((session.id.to_vec(), message(session, user)))
}

fn message(session: &Session, user: &User) -> pb::Session {
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
