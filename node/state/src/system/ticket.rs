//! Spent tickets: the one-time ids of logins, consents and hand-overs. Remembered until they would have expired anyway.

use conclave_proto::state::v1 as rows;

use crate::{
    draft::Draft,
    ids::TicketId,
    reply::{Reason, Refusal},
    snapshot::Row,
    stamp::Stamp,
    state::{Expiring, State},
};

/// Longest life of a ticket: longer ones are refused, for each spent one is remembered as long.
const MAX_TICKET_LIFE_MS: u64 = 24 * 3_600_000;

/// A ticket that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpentTicket {
    /// Which.
    pub id: TicketId,
    /// When it would have expired.
    pub expires_at: Stamp,
}

impl Draft {
    pub(crate) fn spend_ticket(&mut self, id: TicketId, expires_at: Stamp) -> Result<(), Refusal> {
        if expires_at.is_over_at(self.at) {
            return Err(Refusal::new(Reason::TicketExpired, "the attempt has expired; start again"));
        }
        if expires_at > self.at.plus_ms(MAX_TICKET_LIFE_MS) {
            return Err(Refusal::malformed("the ticket lives too long"));
        }
        if self.state.tickets.contains_key(&id) {
            return Err(Refusal::new(Reason::TicketSpent, "the attempt was completed before"));
        }
        SpentTicket { id, expires_at }.put(&mut self.state);
        Ok(())
    }
}

impl Row for SpentTicket {
    const TABLE: u32 = 13;
    type Wire = rows::SpentTicketRow;

    fn to_wire(&self) -> rows::SpentTicketRow {
        rows::SpentTicketRow { ticket_id: self.id.to_vec(), expires_at_ms: self.expires_at.0 }
    }

    fn from_wire(wire: rows::SpentTicketRow) -> Result<Self, Refusal> {
        Ok(Self { id: TicketId::parse(&wire.ticket_id)?, expires_at: Stamp(wire.expires_at_ms) })
    }

    fn put(self, state: &mut State) {
        state.expire_at(self.expires_at, Expiring::Ticket(self.id));
        state.tickets.insert(self.id, self);
    }
}
