//! Spent tickets: the one-time ids of logins, consents and SSO, and of clients' proofs. They are remembered until they
//! would have expired anyway.

use conclave_proto::state::v1 as rows;

use crate::{
    client::ClientId,
    draft::Draft,
    ids::TicketId,
    reply::{Reason, Refusal},
    snapshot::Row,
    stamp::Stamp,
    state::{Expiring, State},
};

/// Longest lifetime of a ticket: longer ones are refused, because each spent one is remembered as long.
pub(super) const MAX_TICKET_LIFE_MS: u64 = 24 * 3_600_000;

/// A ticket that was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpentTicket {
    /// The ticket's id.
    pub id: TicketId,
    /// The time at which it would have expired.
    pub expires_at: Stamp,
    /// For a proof: the client whose share of the memory it uses.
    pub client: Option<ClientId>,
}

impl Draft {
    pub(crate) fn spend_ticket(&mut self, id: TicketId, expires_at: Stamp) -> Result<(), Refusal> {
        self.spend(SpentTicket { id, expires_at, client: None })
    }

    pub(super) fn spend(&mut self, ticket: SpentTicket) -> Result<(), Refusal> {
        let SpentTicket { id, expires_at, .. } = ticket;
        if expires_at.is_over_at(self.at) {
            return Err(Refusal::new(Reason::TicketExpired, "the attempt has expired; start again"));
        }
        if expires_at > self.at.plus_ms(MAX_TICKET_LIFE_MS) {
            return Err(Refusal::malformed("the ticket lives too long"));
        }
        if self.state.tickets.contains_key(&id) {
            return Err(Refusal::new(Reason::TicketSpent, "the attempt was completed before"));
        }
        ticket.put(&mut self.state);
        Ok(())
    }
}

impl State {
    /// True if this ticket or proof was used, and is still remembered.
    pub fn is_ticket_spent(&self, id: TicketId) -> bool {
        self.tickets.contains_key(&id)
    }

    /// The number of remembered proofs of this client.
    pub(super) fn proofs_of(&self, client: &ClientId) -> usize {
        self.proofs_by_client.get(client).copied().unwrap_or_default()
    }

    pub(super) fn take_ticket(&mut self, id: TicketId) {
        let Some(client) = self.tickets.remove(&id).and_then(|ticket| ticket.client) else { return };
        match self.proofs_of(&client) {
            0 | 1 => drop(self.proofs_by_client.remove(&client)),
            several => drop(self.proofs_by_client.insert(client, several - 1)),
        }
    }
}

impl Row for SpentTicket {
    const TABLE: u32 = 13;
    type Wire = rows::SpentTicketRow;

    fn to_wire(&self) -> rows::SpentTicketRow {
        rows::SpentTicketRow {
            ticket_id: self.id.to_vec(),
            expires_at_ms: self.expires_at.0,
            client_id: self.client.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }

    fn from_wire(wire: rows::SpentTicketRow) -> Result<Self, Refusal> {
        let client = (!wire.client_id.is_empty()).then(|| ClientId::parse(&wire.client_id)).transpose()?;
        Ok(Self { id: TicketId::parse(&wire.ticket_id)?, expires_at: Stamp(wire.expires_at_ms), client })
    }

    fn put(self, state: &mut State) {
        state.expire_at(self.expires_at, Expiring::Ticket(self.id));
        if let Some(client) = &self.client {
            let others = state.proofs_of(client);
            state.proofs_by_client.insert(client.clone(), others + 1);
        }
        state.tickets.insert(self.id, self);
    }
}
