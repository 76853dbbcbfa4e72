//! Proofs that are accepted once on all nodes together: client assertions (RFC 7523 §3), DPoP proofs (RFC 9449 §11.1)
//! and state parameters of sign-ins at providers.
//!
//! They are remembered with the spent tickets. Their ids are hashes over a `jti` and a ticket's id is random, so they
//! do not collide. The memory is bounded: each proof is forgotten once its age alone makes it invalid, every new one
//! removes two dead rows, and beyond the bound no further proof is accepted.

use conclave_proto::command::v1 as pb;
use pb::spent_proof::Kind;

use super::{SpentTicket, sweep::sweep_rows};
use crate::{
    client::ClientId,
    draft::Draft,
    ids::TicketId,
    reply::{Reason, Refusal, Reply, done},
    stamp::Stamp,
};

/// Most rows remembered: a minute of five thousand proofs a second, and room for clients with long-lived assertions.
const MAX_REMEMBERED: usize = 500_000;
/// Most rows of one client, so that no client uses up the others' share: a thousand a second, each valid for two
/// minutes.
const MAX_OF_CLIENT: usize = MAX_REMEMBERED / 4;
/// Most proofs of one command: an assertion and a DPoP proof, and room for more.
const MAX_OF_COMMAND: usize = 4;
/// Dead rows that each proof removes, so that the memory shrinks without a sweep.
const SWEPT_WITH_EACH: u32 = 2;

/// Spends proofs when the request writes nothing else.
pub(crate) fn spend_proofs(draft: &mut Draft, command: &pb::SpendProofs) -> Result<Reply, Refusal> {
    draft.use_up(&command.proofs)?;
    Ok(done())
}

impl Draft {
    /// Spends each proof for the first time; refuses with the first one that was spent before.
    pub(crate) fn use_up(&mut self, proofs: &[pb::SpentProof]) -> Result<(), Refusal> {
        if proofs.len() > MAX_OF_COMMAND {
            return Err(Refusal::malformed("too many proofs in one command"));
        }
        for proof in proofs {
            let reason = match proof.kind() {
                Kind::ClientAssertion => Reason::AssertionReplayed,
                Kind::Dpop => Reason::ProofReplayed,
                Kind::AtprotoState | Kind::RecoveryLink => Reason::TicketSpent,
                Kind::Unspecified => return Err(Refusal::malformed("a proof is of no kind")),
            };
            sweep_rows(self, SWEPT_WITH_EACH);
            if self.state.tickets.len() >= MAX_REMEMBERED {
                return Err(Refusal::new(Reason::TooManyRemembered, "too many proofs are remembered"));
            }
            let ticket = ticket_of(proof)?;
            if ticket.client.as_ref().is_some_and(|client| self.state.proofs_of(client) >= MAX_OF_CLIENT) {
                return Err(Refusal::new(
                    Reason::TooManyRemembered,
                    "too many proofs of this client are remembered",
                ));
            }
            self.spend(ticket).map_err(|refusal| match refusal.reason {
                Reason::TicketSpent | Reason::TicketExpired => {
                    Refusal::new(reason, "the proof was used before, or is too old")
                }
                _ => refusal,
            })?;
        }
        Ok(())
    }
}

fn ticket_of(proof: &pb::SpentProof) -> Result<SpentTicket, Refusal> {
    let client = (!proof.client_id.is_empty()).then(|| ClientId::parse(&proof.client_id)).transpose()?;
    Ok(SpentTicket { id: TicketId::parse(&proof.proof_id)?, expires_at: Stamp(proof.expires_at_ms), client })
}
