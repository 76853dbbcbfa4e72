//! `OpenAppSession`: exchanges an SSO ticket for a cookie on the application's own host, once.

use conclave_proto::command::v1 as pb;

use super::AppSession;
use crate::{
    draft::Draft,
    ids::{AppSessionId, SecretHash, SessionId, TicketId},
    reply::{Reason, Refusal, Reply, ReplyBody, body},
    stamp::Stamp,
};

/// Most app sessions of one session: one for each application host, with room for several browser profiles on a host.
const MAX_APP_SESSIONS_OF_SESSION: usize = 256;

/// The scope in which the app session is valid: the host, or a domain that the host belongs to, written with a leading
/// dot.
fn scope(host: &str, domain: &str) -> Result<String, Refusal> {
    if domain.is_empty() {
        return Ok(host.to_owned());
    }
    let scope = format!(".{}", domain.to_ascii_lowercase());
    let labelled = domain.contains('.') && !domain.split('.').any(str::is_empty);
    if !labelled || !(host.ends_with(&scope) || scope.strip_prefix('.') == Some(host)) {
        return Err(Refusal::malformed(format!("domain: {host} does not belong to {domain:?}")));
    }
    Ok(scope)
}

pub(crate) fn open_app_session(draft: &mut Draft, command: &pb::OpenAppSession) -> Result<Reply, Refusal> {
    let id = AppSessionId::parse(&command.app_session_id)?;
    draft.spend_ticket(TicketId::parse(&command.ticket_id)?, Stamp(command.ticket_expires_at_ms))?;
    let (session, _) = draft.state.existing_live_session(SessionId::parse(&command.session_id)?, draft.at)?;
    let host = command.host.to_ascii_lowercase();
    if draft.state.application_by_host(&host).is_none() {
        return Err(Refusal::new(Reason::ApplicationUnknown, format!("no application has the host {host}")));
    }
    if draft.state.app_sessions.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, "the session's arm exists"));
    }
    let from = (session.id, AppSessionId::new([0; 16]));
    let app_sessions =
        draft.state.app_sessions_by_session.range(from..).take_while(|(s, _)| *s == session.id).count();
    if app_sessions >= MAX_APP_SESSIONS_OF_SESSION {
        return Err(Refusal::malformed(
            "the session has been opened on too many hosts; sign out and in again",
        ));
    }
    let secret_hash = SecretHash::parse(&command.secret_hash)?;
    let host = scope(&host, &command.domain)?.into();
    draft.state.put_app_session(AppSession { id, session: session.id, secret_hash, host });
    Ok(body(ReplyBody::SessionStarted(pb::SessionStarted {
        session_id: session.id.to_vec(),
        grant_id: Vec::new(),
        index: draft.index,
    })))
}
