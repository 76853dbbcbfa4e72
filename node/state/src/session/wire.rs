//! Sessions and app sessions on the wire.

use conclave_proto::state::v1 as rows;

use super::{AppSession, Session};
use crate::{
    client::ClientId,
    ids::{AppSessionId, SecretHash, SessionId, UserId},
    reply::Refusal,
    snapshot::Row,
    stamp::Stamp,
    state::State,
};

impl Row for Session {
    const TABLE: u32 = 7;
    type Wire = rows::SessionRow;

    fn to_wire(&self) -> rows::SessionRow {
        rows::SessionRow {
            session_id: self.id.to_vec(),
            user_id: self.user.to_vec(),
            secret_hash: self.secret_hash.bytes().to_vec(),
            amr: self.amr.clone(),
            auth_time_ms: self.auth_time.0,
            expires_at_ms: self.expires_at.0,
            epoch: self.epoch,
            user_agent: self.user_agent.clone(),
            address: self.address.clone(),
            clients: self.clients.iter().map(ToString::to_string).collect(),
            upstream: self.upstream.to_string(),
            former_secret_hash: self.former_secret_hash.map(|hash| hash.bytes().to_vec()).unwrap_or_default(),
        }
    }

    fn from_wire(wire: rows::SessionRow) -> Result<Self, Refusal> {
        Ok(Self {
            id: SessionId::parse(&wire.session_id)?,
            user: UserId::parse(&wire.user_id)?,
            secret_hash: SecretHash::parse(&wire.secret_hash)?,
            amr: wire.amr,
            auth_time: Stamp(wire.auth_time_ms),
            expires_at: Stamp(wire.expires_at_ms),
            epoch: wire.epoch,
            user_agent: wire.user_agent,
            address: wire.address,
            clients: wire.clients.iter().map(|id| ClientId::parse(id)).collect::<Result<_, _>>()?,
            upstream: wire.upstream.into(),
            former_secret_hash: match wire.former_secret_hash.as_slice() {
                [] => None,
                bytes => Some(SecretHash::parse(bytes)?),
            },
        })
    }

    fn put(self, state: &mut State) {
        state.put_session(self);
    }
}

impl Row for AppSession {
    const TABLE: u32 = 8;
    type Wire = rows::AppSessionRow;

    fn to_wire(&self) -> rows::AppSessionRow {
        rows::AppSessionRow {
            app_session_id: self.id.to_vec(),
            session_id: self.session.to_vec(),
            secret_hash: self.secret_hash.bytes().to_vec(),
            host: self.host.to_string(),
        }
    }

    fn from_wire(wire: rows::AppSessionRow) -> Result<Self, Refusal> {
        Ok(Self {
            id: AppSessionId::parse(&wire.app_session_id)?,
            session: SessionId::parse(&wire.session_id)?,
            secret_hash: SecretHash::parse(&wire.secret_hash)?,
            host: wire.host.into(),
        })
    }

    fn put(self, state: &mut State) {
        state.put_app_session(self);
    }
}
