//! One log line for each event of the rules, written only by the leader that wrote the entry.
//!
//! Entries that are applied again (on a follower, after a restart) are not logged again. A leader that is lost between
//! commit and reply may log nothing. These lines are for operators; the replicated log is the record.

use conclave_state::{
    Event, State,
    ids::{SessionId, UserId},
};

/// Writes the lines of one entry. `state` is the version of this entry or a later one.
pub(crate) fn tell(events: &[Event], state: &State, index: u64) {
    for event in events {
        match event {
            Event::SessionStarted { session, user } => {
                signed_in("session_started", *session, *user, state, index)
            }
            Event::SessionStrengthened { session, user } => {
                signed_in("session_strengthened", *session, *user, state, index);
            }
            Event::SessionRevoked { session } => {
                line("session_revoked", index, "session", &session.to_string())
            }
            Event::CodeReused { grant } => line("code_reused", index, "grant", &grant.to_string()),
            Event::RefreshReused { family } => {
                line("refresh_token_reused", index, "family", &family.to_string())
            }
            Event::AttemptsExhausted { user } => {
                let name = name_of(*user, state);
                tracing::info!(
                    target: "conclave::audit",
                    { event = "attempts_exhausted", user.name = %name, raft.index = index },
                    "attempts_exhausted"
                );
            }
            Event::UserRenamed { user, before, after } => {
                renamed("user_renamed", &user.to_string(), before, after, index);
            }
            Event::GroupRenamed { group, before, after } => {
                renamed("group_renamed", &group.to_string(), before, after, index);
            }
            Event::ClockSetBack { from, to } => {
                let from_to = format!("{}..{}", from.0, to.0);
                line("clock_set_back", index, "log_time_ms", &from_to);
            }
        }
    }
}

fn signed_in(event: &'static str, session: SessionId, user: UserId, state: &State, index: u64) {
    let name = name_of(user, state);
    let address = state.session_address(session).unwrap_or("-");
    tracing::info!(
        target: "conclave::audit",
        { event, client.address = %address, user.name = %name, session.id = %session, raft.index = index },
        "{event}"
    );
}

/// Logs the new name of a user or a group. The line contains both names, so that earlier lines can be found.
fn renamed(event: &'static str, id: &str, before: &str, after: &str, index: u64) {
    tracing::info!(
        target: "conclave::audit",
        { event, id, name.before = %before, name.after = %after, raft.index = index },
        "{event}"
    );
}

fn line(event: &'static str, index: u64, what: &'static str, id: &str) {
    tracing::info!(target: "conclave::audit", { event, what, id, raft.index = index }, "{event}");
}

/// The username, or the id if there is no such user.
fn name_of(user: UserId, state: &State) -> String {
    state.user(user).map_or_else(|| user.to_string(), |user| user.username.to_string())
}
