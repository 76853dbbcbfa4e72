//! Request memory: a repeated command gets its first reply, and changes nothing.

use std::sync::Arc;

use conclave_proto::state::v1 as rows;

use crate::{
    ids::RequestId,
    reply::{Refusal, Reply},
    snapshot::Row,
    stamp::Stamp,
    state::State,
};

/// The time for which a reply is remembered: far longer than a node holds and retries a write (3 s), or a load balancer
/// its request.
pub(super) const MEMORY_MS: u64 = 120_000;
/// Most replies remembered; beyond that, the oldest are dropped first. At 1,500 writes a second the window is still
/// complete.
const MAX_REMEMBERED: usize = 200_000;
/// Old replies dropped with each new one, so that the memory shrinks without a command of its own.
const DROPPED_AT_ONCE: usize = 2;

/// A reply kept for retries.
#[derive(Clone, Debug, PartialEq)]
pub struct RememberedReply {
    /// The request's id.
    pub request: RequestId,
    /// The time of the reply.
    pub at: Stamp,
    /// The reply.
    pub reply: Reply,
}

impl State {
    /// The reply to this request, if it is remembered.
    pub(crate) fn remembered(&self, request: RequestId) -> Option<Reply> {
        let kept = self.requests.get(&request)?;
        (!kept.at.plus_ms(MEMORY_MS).is_over_at(self.meta.clock)).then(|| kept.reply.clone())
    }

    pub(crate) fn remember(&mut self, request: RequestId, at: Stamp, reply: Reply) {
        for _ in 0..DROPPED_AT_ONCE {
            self.forget_oldest(at);
        }
        if let Some(before) = self.requests.get(&request) {
            self.request_order.remove(&(before.at, request));
        }
        RememberedReply { request, at, reply }.put(self);
    }

    fn forget_oldest(&mut self, now: Stamp) {
        let Some(oldest) = self.request_order.get_min().copied() else { return };
        if oldest.0.plus_ms(MEMORY_MS).is_over_at(now) || self.requests.len() >= MAX_REMEMBERED {
            self.request_order.remove(&oldest);
            self.requests.remove(&oldest.1);
        }
    }
}

impl Row for RememberedReply {
    const TABLE: u32 = 15;
    type Wire = rows::RememberedRow;

    fn to_wire(&self) -> rows::RememberedRow {
        rows::RememberedRow {
            request_id: self.request.to_vec(),
            at_ms: self.at.0,
            reply: Some(self.reply.clone()),
        }
    }

    fn from_wire(wire: rows::RememberedRow) -> Result<Self, Refusal> {
        Ok(Self {
            request: RequestId::parse(&wire.request_id)?,
            at: Stamp(wire.at_ms),
            reply: wire.reply.unwrap_or_default(),
        })
    }

    fn put(self, state: &mut State) {
        state.request_order.insert((self.at, self.request));
        state.requests.insert(self.request, Arc::new(self));
    }
}
