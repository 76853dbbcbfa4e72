//! Attempts at an account's password, counted for the whole cluster.
//!
//! A node lets a few attempts pass on its own count. From then on each attempt is reserved here *before* the password
//! is verified, so that parallel guesses on several nodes cannot exceed the limit. A completed sign-in clears the row.

use conclave_proto::{command::v1 as pb, state::v1 as rows};

use crate::{
    draft::Draft,
    event::Event,
    ids::UserId,
    reply::{Reason, Refusal, Reply, ReplyBody, body},
    snapshot::Row,
    stamp::Stamp,
    state::{Expiring, State},
};

/// Longest window: a day.
const MAX_WINDOW_MS: u64 = 24 * 3_600_000;

/// Most accounts counted at once, existing or not; beyond that, the window that ends first is dropped.
const MAX_COUNTED: usize = 100_000;

/// An account's attempts within a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// The account.
    pub user: UserId,
    /// Attempts reserved so far.
    pub attempts: u32,
    /// The time at which the count restarts.
    pub window_ends_at: Stamp,
}

pub(crate) fn reserve(draft: &mut Draft, command: &pb::ReserveAttempt) -> Result<Reply, Refusal> {
    // An account that does not exist is counted like one that does: a response must not tell them apart.
    let user = UserId::parse(&command.user_id)?;
    if command.window_ms == 0 || command.window_ms > MAX_WINDOW_MS || command.limit == 0 {
        return Err(Refusal::malformed("the throttle's window or limit is out of bounds"));
    }
    let fresh = Throttle { user, attempts: 0, window_ends_at: draft.at.plus_ms(command.window_ms) };
    let current =
        draft.state.throttles.get(&user).copied().filter(|t| !t.window_ends_at.is_over_at(draft.at));
    let mut throttle = current.unwrap_or(fresh);
    if throttle.attempts >= command.limit {
        draft.report(Event::AttemptsExhausted { user });
        let refusal = Refusal::new(Reason::AttemptsExhausted, "too many attempts at this account");
        return Err(refusal.until(throttle.window_ends_at));
    }
    throttle.attempts += 1;
    if current.is_none() {
        draft.state.make_room_for_throttle();
    }
    draft.state.put_throttle(throttle);
    Ok(body(ReplyBody::AttemptReserved(pb::AttemptReserved { remaining: command.limit - throttle.attempts })))
}

impl State {
    /// Attempts counted against the account in a window that has not ended.
    pub fn throttle(&self, user: UserId, now: Stamp) -> Option<&Throttle> {
        self.throttles.get(&user).filter(|throttle| !throttle.window_ends_at.is_over_at(now))
    }

    fn make_room_for_throttle(&mut self) {
        if self.throttles.len() < MAX_COUNTED {
            return;
        }
        let first = self
            .throttles
            .values()
            .min_by_key(|throttle| throttle.window_ends_at)
            .map(|throttle| throttle.user);
        first.into_iter().for_each(|user| self.take_throttle(user));
    }

    pub(crate) fn put_throttle(&mut self, throttle: Throttle) {
        self.take_throttle(throttle.user);
        self.expire_at(throttle.window_ends_at, Expiring::Throttle(throttle.user));
        self.throttles.insert(throttle.user, throttle);
    }

    pub(crate) fn take_throttle(&mut self, user: UserId) {
        if let Some(throttle) = self.throttles.remove(&user) {
            self.forget_expiry(throttle.window_ends_at, Expiring::Throttle(user));
        }
    }
}

impl Row for Throttle {
    const TABLE: u32 = 14;
    type Wire = rows::ThrottleRow;

    fn to_wire(&self) -> rows::ThrottleRow {
        rows::ThrottleRow {
            user_id: self.user.to_vec(),
            attempts: self.attempts,
            window_ends_at_ms: self.window_ends_at.0,
        }
    }

    fn from_wire(wire: rows::ThrottleRow) -> Result<Self, Refusal> {
        Ok(Self {
            user: UserId::parse(&wire.user_id)?,
            attempts: wire.attempts,
            window_ends_at: Stamp(wire.window_ends_at_ms),
        })
    }

    fn put(self, state: &mut State) {
        state.put_throttle(self);
    }
}
