//! Effects outside the state: rows that the leader carries out and acknowledges by command. An effect may happen twice.
//! It is lost only if more than `MAX_WAITING` rows are pending.

use std::sync::Arc;

use conclave_proto::{command::v1 as pb, state::v1 as rows};

use crate::{
    client::ClientId,
    draft::Draft,
    ids::{SessionId, UserId},
    reply::{Refusal, Reply, done},
    snapshot::Row,
    stamp::Stamp,
    state::State,
};

/// Most pending rows. Beyond it the oldest are dropped: a notice about a session that ended long ago is worth least.
const MAX_WAITING: usize = 100_000;

/// An effect that is pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxItem {
    /// Its position in the queue.
    pub sequence: u64,
    /// The time since which it waits.
    pub created_at: Stamp,
    /// The effect.
    pub effect: OutboxEffect,
}

/// The action to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboxEffect {
    /// Notify the client that the session has ended (OIDC Back-Channel Logout §2.5).
    BackChannelLogout {
        /// The client to notify.
        client: ClientId,
        /// The session that ended.
        session: SessionId,
        /// The session's user.
        user: UserId,
    },
}

pub(crate) fn acknowledge(draft: &mut Draft, command: &pb::AcknowledgeOutbox) -> Result<Reply, Refusal> {
    for sequence in &command.sequence_numbers {
        draft.state.outbox.remove(sequence);
    }
    Ok(done())
}

impl Draft {
    /// Queues the notice, if the client has registered for such notices.
    pub(crate) fn announce_logout(&mut self, client: &ClientId, session: SessionId, user: UserId) {
        let wants = self.state.clients.get(client).is_some_and(|c| !c.back_channel_logout_uri.is_empty());
        if !wants {
            return;
        }
        if self.state.outbox.len() >= MAX_WAITING
            && let Some(oldest) = self.state.outbox.get_min().map(|(sequence, _)| *sequence)
        {
            self.state.outbox.remove(&oldest);
        }
        let sequence = self.state.meta.next_outbox;
        self.state.meta.next_outbox += 1;
        let effect = OutboxEffect::BackChannelLogout { client: client.clone(), session, user };
        OutboxItem { sequence, created_at: self.at, effect }.put(&mut self.state);
    }
}

impl State {
    /// The row with this sequence number, while it is pending.
    pub fn outbox_item(&self, sequence: u64) -> Option<&Arc<OutboxItem>> {
        self.outbox.get(&sequence)
    }

    /// The number of pending rows.
    pub fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    /// The pending rows, oldest first.
    pub fn outbox(&self) -> impl Iterator<Item = &Arc<OutboxItem>> {
        self.outbox.values()
    }
}

impl Row for OutboxItem {
    const TABLE: u32 = 16;
    type Wire = rows::OutboxRow;

    fn to_wire(&self) -> rows::OutboxRow {
        let OutboxEffect::BackChannelLogout { client, session, user } = &self.effect;
        let notice = rows::BackChannelLogout {
            client_id: client.to_string(),
            session_id: session.to_vec(),
            user_id: user.to_vec(),
        };
        rows::OutboxRow {
            sequence: self.sequence,
            created_at_ms: self.created_at.0,
            effect: Some(rows::outbox_row::Effect::BackChannelLogout(notice)),
        }
    }

    fn from_wire(wire: rows::OutboxRow) -> Result<Self, Refusal> {
        let effect = match wire.effect {
            Some(rows::outbox_row::Effect::BackChannelLogout(notice)) => OutboxEffect::BackChannelLogout {
                client: ClientId::parse(&notice.client_id)?,
                session: SessionId::parse(&notice.session_id)?,
                user: UserId::parse(&notice.user_id)?,
            },
            None => return Err(Refusal::malformed("an effect of a newer version")),
        };
        Ok(Self { sequence: wire.sequence, created_at: Stamp(wire.created_at_ms), effect })
    }

    fn put(self, state: &mut State) {
        state.outbox.insert(self.sequence, Arc::new(self));
    }
}
