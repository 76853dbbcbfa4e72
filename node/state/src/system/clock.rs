//! `SetClock`: log time is set forward after a long silence, or back after wrong clocks had moved it ahead
//! (docs/design/rules.md).
//!
//! Setting it forward ends nothing by itself: the leader does so once a quorum of clocks agrees, before an entry that
//! would move log time by more than [`MAX_STEP_MS`](crate::stamp::MAX_STEP_MS). Setting it back is an operator's
//! command. It ends what was issued while log time was ahead, because it would live too long. Times of other rows that
//! affect decisions are moved to the new log time; times that only record when a row was made stay.

use std::sync::Arc;

use conclave_proto::command::v1 as pb;

use super::{RememberedReply, SpentTicket, lease::ChangedTerms, ticket::MAX_TICKET_LIFE_MS};
use crate::{
    draft::Draft,
    event::Event,
    ids::{GrantId, SessionId},
    key::{KeyStage, SigningKey},
    level,
    outbox::OutboxItem,
    reply::{Reason, Refusal, Reply, ReplyBody, body},
    snapshot::Row as _,
    stamp::Stamp,
    state::State,
    user::FormerName,
};

/// The longest lifetime of a code that was not redeemed: one that expires later was issued while log time was ahead.
const MAX_CODE_LIFE_MS: u64 = 3_600_000;

pub(crate) fn set_clock(draft: &mut Draft, command: &pb::SetClock) -> Result<Reply, Refusal> {
    if draft.state.meta.level < level::BOUNDED_LOG_TIME {
        return Err(Refusal::malformed(
            "log time can be set once every member runs a version that knows how",
        ));
    }
    let (before, to) = (draft.at, Stamp(command.to_ms));
    if to == Stamp::default() {
        return Err(Refusal::malformed("the new log time is missing"));
    }
    let mut ended = pb::ClockSet { from_ms: before.0, to_ms: to.0, ..pb::ClockSet::default() };
    if to >= before {
        draft.state.meta.clock = to;
        draft.at = to;
        return Ok(body(ReplyBody::ClockSet(ended)));
    }
    if command.to_ms > command.from_ms {
        // The command was meant to set time forward, but other entries were faster.
        ended.to_ms = before.0;
        return Ok(body(ReplyBody::ClockSet(ended)));
    }
    if command.from_ms != before.0 {
        return Err(Refusal::new(Reason::TooSoon, "log time has changed meanwhile; look again"));
    }
    draft.state.meta.clock = to;
    draft.at = to;
    set_back(draft, to, &mut ended);
    draft.report(Event::ClockSetBack { from: before, to });
    Ok(body(ReplyBody::ClockSet(ended)))
}

/// Ends what was issued while log time was ahead of `to`, and moves the times of the rest.
fn set_back(draft: &mut Draft, to: Stamp, ended: &mut pb::ClockSet) {
    let sessions: Vec<SessionId> = draft
        .state
        .sessions
        .values()
        .filter(|session| session.auth_time > to)
        .map(|session| session.id)
        .collect();
    let grants: Vec<GrantId> = grants_made_after(&draft.state, to);
    ended.ended_sessions = count(sessions.len());
    ended.ended_grants = count(grants.len());
    sessions.into_iter().for_each(|id| draft.end_session(id));
    grants.into_iter().for_each(|id| draft.state.take_grant(id));
    ended.ended_credentials = draft.state.forget_what_came_after(to);
}

fn grants_made_after(state: &State, to: Stamp) -> Vec<GrantId> {
    let latest_code = to.plus_ms(MAX_CODE_LIFE_MS);
    let is_later = |grant: &crate::grant::Grant| {
        let rotated =
            grant.family.and_then(|family| state.families.get(&family)).map(|family| family.rotated_at);
        grant.auth_time > to
            || grant.code_expires_at > latest_code
            || grant.redeemed_at.is_some_and(|at| at > to)
            || rotated.is_some_and(|at| at > to)
    };
    state.grants.values().filter(|grant| is_later(grant)).map(|grant| grant.id).collect()
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

impl State {
    /// Applies the new log time `to` to rows other than sessions and grants; returns the number of credentials that
    /// ended.
    pub(crate) fn forget_what_came_after(&mut self, to: Stamp) -> u64 {
        let ended = self.end_credentials_made_after(to);
        self.move_times_before(to);
        ended
    }

    /// Ends API tokens, app passwords and invitations made after `to`; returns their number.
    fn end_credentials_made_after(&mut self, to: Stamp) -> u64 {
        let tokens: Vec<_> =
            self.tokens.values().filter(|row| row.created_at > to).map(|row| row.id).collect();
        let passwords: Vec<_> =
            self.app_passwords.values().filter(|row| row.created_at > to).map(|row| row.id).collect();
        let invitations: Vec<_> =
            self.invitations.values().filter(|row| row.created_at > to).map(|row| row.id).collect();
        let ended = tokens.len() + passwords.len() + invitations.len();
        tokens.into_iter().for_each(|id| drop(self.take_token(id)));
        passwords.into_iter().for_each(|id| drop(self.take_app_password(id)));
        invitations.into_iter().for_each(|id| drop(self.take_invitation(id)));
        count(ended)
    }

    /// Moves times that lie after `to` back to it, and removes rows that live for minutes only. Every table is named
    /// here, so that a new one does not compile before its part in this is decided.
    fn move_times_before(&mut self, to: Stamp) {
        let Self {
            meta: _,
            // The caller ends those that were made later; their expiries are absolute otherwise.
            sessions: _,
            app_sessions: _,
            grants: _,
            families: _,
            tokens: _,
            app_passwords: _,
            invitations: _,
            // Their times record when a row was made or changed, and no decision depends on them.
            users: _,
            passwords: _,
            groups: _,
            applications: _,
            consents: _,
            upstreams: _,
            pictures: _,
            policies: _,
            clients,
            identities,
            former_names,
            // Revoked until the token would have expired: later is safe.
            revoked_access: _,
            keys,
            tickets,
            throttles,
            requests,
            outbox,
            pushed,
            devices,
            staging,
            // Indexes.
            usernames: _,
            users_by_address: _,
            former_names_by_time: _,
            group_names: _,
            groups_by_folded_name: _,
            subjects_by_user: _,
            pictures_by_id: _,
            members: _,
            slugs: _,
            hosts: _,
            sessions_by_user: _,
            app_passwords_by_user: _,
            app_sessions_by_session: _,
            grants_by_session: _,
            grants_by_user: _,
            grants_by_client: _,
            proofs_by_client: _,
            pushed_by_client: _,
            devices_by_client: _,
            user_codes: _,
            expiries: _,
            request_order: _,
        } = self.clone();
        self.move_meta_before(to);
        for client in clients.values() {
            if let Some(moved) = client.moved_before(to) {
                self.put_client(moved);
            }
        }
        for identity in identities.values() {
            if let Some(moved) = identity.moved_before(to) {
                self.put_identity(moved);
            }
        }
        for former in former_names.values().filter(|former| former.since > to) {
            self.put_former_name(FormerName { since: to, ..(**former).clone() });
        }
        for key in keys.values() {
            self.put_key(key_before(key, to));
        }
        self.move_tickets_before(&tickets, to);
        throttles.keys().for_each(|user| self.take_throttle(*user));
        for remembered in requests.values().filter(|row| row.at > to) {
            self.request_order.remove(&(remembered.at, remembered.request));
            RememberedReply { at: to, ..(**remembered).clone() }.put(self);
        }
        for item in outbox.values().filter(|item| item.created_at > to) {
            self.outbox.insert(item.sequence, Arc::new(OutboxItem { created_at: to, ..(**item).clone() }));
        }
        pushed.keys().for_each(|id| self.take_pushed(*id));
        devices.keys().for_each(|id| self.take_device(*id));
        if let Some((id, ..)) = staging.as_deref().map(crate::restore::Staging::progress) {
            self.forget_restore(id);
        }
    }

    /// Moves the times in the state's own numbers. The time of the cluster secret stays: it identifies snapshots from
    /// before the secret, and some may be from the time ahead as well.
    fn move_meta_before(&mut self, to: Stamp) {
        let terms = self.meta.lease_terms.map(|terms: ChangedTerms| terms.changed_before(to));
        self.meta.lease_terms = terms;
    }

    /// Shortens how long tickets are remembered to the longest lifetime from now on, so that the memory shrinks again.
    fn move_tickets_before(&mut self, tickets: &imbl::OrdMap<crate::ids::TicketId, SpentTicket>, to: Stamp) {
        let latest = to.plus_ms(MAX_TICKET_LIFE_MS);
        for ticket in tickets.values().filter(|ticket| ticket.expires_at > latest) {
            self.forget_expiry(ticket.expires_at, crate::state::Expiring::Ticket(ticket.id));
            self.take_ticket(ticket.id);
            SpentTicket { expires_at: latest, ..ticket.clone() }.put(self);
        }
    }
}

fn key_before(key: &SigningKey, to: Stamp) -> SigningKey {
    let stage = match key.stage {
        KeyStage::Next => KeyStage::Next,
        KeyStage::Active(since) => KeyStage::Active(since.min(to)),
        KeyStage::Retired { active_since, at } => {
            KeyStage::Retired { active_since: active_since.min(to), at: at.min(to) }
        }
    };
    SigningKey { stage, created_at: key.created_at.min(to), ..key.clone() }
}
