//! `StartSession`: a completed sign-in in one entry: the ticket is spent, the session opens, and the code that it was
//! for is issued.

use std::sync::Arc;

use conclave_proto::command::v1 as pb;

use super::{Session, again::PresentedSession};
use crate::{
    draft::Draft,
    event::Event,
    grant,
    ids::{SecretHash, SessionId, TicketId, UserId},
    level,
    reply::{Reason, Refusal, Reply, ReplyBody, body},
    stamp::Stamp,
    text,
};

/// Longest session, as in the configuration. A longer one is a configuration error.
const MAX_TTL_MS: u64 = 400 * 24 * 3_600_000;
/// Most sessions of one user; the oldest is removed, so that a loop of logins cannot grow the state without bound.
const MAX_SESSIONS_OF_USER: usize = 1_000;
/// Most authentication methods of one session.
const MAX_AMR: usize = 8;

pub(crate) fn start(draft: &mut Draft, command: &pb::StartSession) -> Result<Reply, Refusal> {
    start_shown(draft, command, None)
}

/// Starts a session like `start`, in a browser that presented a session's cookie.
pub(crate) fn start_shown(
    draft: &mut Draft,
    command: &pb::StartSession,
    shown: Option<PresentedSession>,
) -> Result<Reply, Refusal> {
    SessionId::parse(&command.session_id)?;
    draft.spend_ticket(TicketId::parse(&command.ticket_id)?, Stamp(command.ticket_expires_at_ms))?;
    let user = draft.state.able_user(UserId::parse(&command.user_id)?)?;
    credential_still_stands(draft, user.id, command.credential_version)?;
    clear_counts(draft, user.id, &command.cleared_count_ids)?;
    open(draft, command, shown, Authentication { user: user.id, upstream: "".into(), at: draft.at })
}

/// Most counts that one sign-in clears: an attempt is counted in two counters.
const MAX_CLEARED: usize = 4;

fn clear_counts(draft: &mut Draft, user: UserId, counts: &[Vec<u8>]) -> Result<(), Refusal> {
    draft.state.take_throttle(user);
    if draft.state.meta.level < level::CLEARED_COUNTS {
        return Ok(());
    }
    if counts.len() > MAX_CLEARED {
        return Err(Refusal::malformed("a sign-in clears too many counts"));
    }
    for id in counts {
        draft.state.take_throttle(UserId::parse(id)?);
    }
    Ok(())
}

/// The result of an authentication: user, provider and time.
pub(crate) struct Authentication {
    pub(crate) user: UserId,
    /// The provider; empty = here.
    pub(crate) upstream: Arc<str>,
    pub(crate) at: Stamp,
}

/// Opens the session of an authenticated user, or strengthens the one whose cookie their browser presented, and issues
/// the code that the sign-in was for.
pub(crate) fn open(
    draft: &mut Draft,
    command: &pb::StartSession,
    shown: Option<PresentedSession>,
    proved: Authentication,
) -> Result<Reply, Refusal> {
    let id = SessionId::parse(&command.session_id)?;
    if draft.state.sessions.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, "the session exists"));
    }
    if command.ttl_ms == 0 || command.ttl_ms > MAX_TTL_MS || command.amr.len() > MAX_AMR {
        return Err(Refusal::malformed("ttl_ms or amr is out of bounds"));
    }
    let own = shown.and_then(|shown| draft.proven(shown));
    let id = match own {
        Some(session) if session.user == proved.user => {
            draft.strengthen(&session, command, proved)?;
            session.id
        }
        other => {
            other.into_iter().for_each(|session| draft.end_session(session.id));
            open_new(draft, command, id, proved)?;
            id
        }
    };
    let grant_id = match &command.code {
        Some(code) => grant::open(draft, code, id)?.to_vec(),
        None => Vec::new(),
    };
    Ok(body(ReplyBody::SessionStarted(pb::SessionStarted {
        session_id: id.to_vec(),
        grant_id,
        index: draft.index,
    })))
}

fn open_new(
    draft: &mut Draft,
    command: &pb::StartSession,
    id: SessionId,
    proved: Authentication,
) -> Result<(), Refusal> {
    let user = proved.user;
    if !command.replaces_session_id.is_empty() {
        draft.end_session(SessionId::parse(&command.replaces_session_id)?);
    }
    make_room(draft, user);
    draft.state.put_session(Session {
        id,
        user,
        secret_hash: SecretHash::parse(&command.secret_hash)?,
        amr: command.amr.clone(),
        auth_time: proved.at,
        expires_at: draft.at.plus_ms(command.ttl_ms),
        epoch: draft.state.meta.revocation_epoch,
        user_agent: shortened(&command.user_agent),
        address: text::line("address", &command.address, text::MAX_TEXT_BYTES)?,
        clients: Vec::new(),
        upstream: proved.upstream,
        former_secret_hash: None,
    });
    draft.report(Event::SessionStarted { session: id, user });
    Ok(())
}

/// Checks that the password is still the one that was verified. It may have been changed or removed between the
/// verification at the edge and now.
fn credential_still_stands(draft: &Draft, user: UserId, version: u64) -> Result<(), Refusal> {
    let current = draft.state.passwords.get(&user).map_or(0, |password| password.version);
    if current == version {
        return Ok(());
    }
    Err(Refusal::new(Reason::CredentialChanged, "the password was changed meanwhile; sign in again"))
}

fn make_room(draft: &mut Draft, user: UserId) {
    if draft.state.sessions_of(user).nth(MAX_SESSIONS_OF_USER - 1).is_none() {
        return;
    }
    let mut own: Vec<_> = draft.state.sessions_of(user).map(|s| (s.auth_time, s.id)).collect();
    own.sort_unstable();
    let surplus = (own.len() + 1).saturating_sub(MAX_SESSIONS_OF_USER);
    own.into_iter().take(surplus).for_each(|(_, id)| draft.end_session(id));
}

/// Shortens the `User-Agent`. It is only displayed, so it is cut rather than refused.
pub(super) fn shortened(user_agent: &str) -> String {
    user_agent.chars().filter(|c| !c.is_control()).take(text::MAX_TEXT_BYTES).collect()
}
