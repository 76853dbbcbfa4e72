//! Who is signed in, and the end of it. Only live sessions are shown.

use conclave_proto::{
    admin::v1::{self as pb, session_service_server::SessionService},
    command::v1::{RevokeSession, RevokeUserSessions, command::Body},
};
use conclave_state::{ids::SessionId, session::Session, user::User};
use tonic::{Request, Response, Status};

use super::{Api, errors, names, page::Listing, request::Reading};

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

    /// A session that is over already is answered like one that ends now.
    async fn revoke_session(
        &self,
        request: Request<pb::RevokeSessionRequest>,
    ) -> Result<Response<pb::RevokeSessionResponse>, Status> {
        let (writing, order) = self.write(request, "RevokeSession").await?;
        let session = SessionId::from_hex(&order.session_id);
        let session = session.ok_or_else(|| errors::invalid("session_id must be 32 hex digits"))?;
        let body = Body::RevokeSession(RevokeSession { session_id: session.to_vec() });
        let committed = writing.propose(body).await?;
        writing.reply(&committed, pb::RevokeSessionResponse {})
    }

    async fn revoke_user_sessions(
        &self,
        request: Request<pb::RevokeUserSessionsRequest>,
    ) -> Result<Response<pb::RevokeUserSessionsResponse>, Status> {
        let (mut writing, order) = self.write(request, "RevokeUserSessions").await?;
        let user_id = writing.user(&order.user).await?.to_vec();
        let body = Body::RevokeUserSessions(RevokeUserSessions { user_id, except_session_id: Vec::new() });
        let committed = writing.propose(body).await?;
        writing.reply(&committed, pb::RevokeUserSessionsResponse {})
    }
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
