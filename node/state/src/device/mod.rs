//! Device authorizations (RFC 8628): a device without a browser waits until a user answers in another browser.
//!
//! Polling writes nothing; each change is one write: the request, the answer, the redemption. An answer belongs to a
//! live session. The device receives a grant of that session like any other, and ends with it.

mod answer;
mod redeem;
mod start;

use std::sync::Arc;

use conclave_proto::state::v1 as rows;

pub(crate) use {answer::answer, redeem::redeem, start::start};

use crate::{
    client::ClientId,
    ids::{DeviceId, SecretHash, SessionId},
    reply::{Reason, Refusal},
    snapshot::Row,
    stamp::Stamp,
    state::{Expiring, State},
};

/// A device authorization request that is pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRequest {
    /// Its id; part of the device code.
    pub id: DeviceId,
    /// The client that the device runs.
    pub client: ClientId,
    /// The requested scopes.
    pub scopes: Vec<String>,
    /// The audience of its access token (RFC 8707).
    pub resources: Vec<String>,
    /// Hash of the device code's secret.
    pub secret_hash: SecretHash,
    /// A keyed hash of the user code.
    pub user_code_hash: [u8; 32],
    /// Expiry, answered or not.
    pub expires_at: Stamp,
    /// The user's answer.
    pub answer: DeviceAnswer,
}

/// The user's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceAnswer {
    /// No answer yet.
    Waiting,
    /// The user denied.
    Denied,
    /// The user allowed, in this session.
    Allowed {
        /// The session that the grant will belong to.
        session: SessionId,
    },
}

impl State {
    /// The device request, if it has not expired.
    pub fn device_request(&self, id: DeviceId, now: Stamp) -> Option<&Arc<DeviceRequest>> {
        self.devices.get(&id).filter(|device| !device.expires_at.is_over_at(now))
    }

    /// The device request for a user code, if it has not expired.
    pub fn device_by_user_code(&self, hash: &[u8; 32], now: Stamp) -> Option<&Arc<DeviceRequest>> {
        self.device_request(*self.user_codes.get(hash)?, now)
    }

    pub(crate) fn existing_device(&self, id: DeviceId, now: Stamp) -> Result<Arc<DeviceRequest>, Refusal> {
        let device = self
            .devices
            .get(&id)
            .ok_or_else(|| Refusal::new(Reason::DeviceUnknown, "there is no such device request"))?;
        if device.expires_at.is_over_at(now) {
            return Err(Refusal::new(Reason::DeviceExpired, "the device request has expired"));
        }
        Ok(Arc::clone(device))
    }

    fn devices_of(&self, client: &ClientId) -> usize {
        let from = (client.clone(), DeviceId::new([0; 16]));
        self.devices_by_client.range(from..).take_while(|(of, _)| of == client).count()
    }

    pub(crate) fn put_device(&mut self, device: DeviceRequest) {
        self.take_device(device.id);
        self.devices_by_client.insert((device.client.clone(), device.id));
        self.user_codes.insert(device.user_code_hash, device.id);
        self.expire_at(device.expires_at, Expiring::Device(device.id));
        self.devices.insert(device.id, Arc::new(device));
    }

    pub(crate) fn take_device(&mut self, id: DeviceId) {
        let Some(device) = self.devices.remove(&id) else { return };
        self.devices_by_client.remove(&(device.client.clone(), id));
        self.user_codes.remove(&device.user_code_hash);
        self.forget_expiry(device.expires_at, Expiring::Device(id));
    }
}

impl Row for DeviceRequest {
    const TABLE: u32 = 31;
    type Wire = rows::DeviceRow;

    fn to_wire(&self) -> rows::DeviceRow {
        rows::DeviceRow {
            device_id: self.id.to_vec(),
            client_id: self.client.to_string(),
            scopes: self.scopes.clone(),
            resources: self.resources.clone(),
            secret_hash: self.secret_hash.bytes().to_vec(),
            user_code_hash: self.user_code_hash.to_vec(),
            expires_at_ms: self.expires_at.0,
            denied: self.answer == DeviceAnswer::Denied,
            session_id: match self.answer {
                DeviceAnswer::Allowed { session } => session.to_vec(),
                DeviceAnswer::Waiting | DeviceAnswer::Denied => Vec::new(),
            },
        }
    }

    fn from_wire(wire: rows::DeviceRow) -> Result<Self, Refusal> {
        Ok(Self {
            id: DeviceId::parse(&wire.device_id)?,
            client: ClientId::parse(&wire.client_id)?,
            scopes: wire.scopes,
            resources: wire.resources,
            secret_hash: SecretHash::parse(&wire.secret_hash)?,
            user_code_hash: start::parse_user_code(&wire.user_code_hash)?,
            expires_at: Stamp(wire.expires_at_ms),
            answer: match (wire.denied, wire.session_id.as_slice()) {
                (true, _) => DeviceAnswer::Denied,
                (false, []) => DeviceAnswer::Waiting,
                (false, session) => DeviceAnswer::Allowed { session: SessionId::parse(session)? },
            },
        })
    }

    fn put(self, state: &mut State) {
        state.put_device(self);
    }
}
