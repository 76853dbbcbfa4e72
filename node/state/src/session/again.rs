//! `SignInAgain`: a sign-in in a browser that presented a session's cookie.
//!
//! If the user is the same, the session is strengthened in place: the cookie secret, the expiry and the proofs are
//! renewed; the session's id, clients, grants and app sessions stay, and no logout is announced. The former secret
//! opens nothing from then on. A sign-in of another user ends the presented session, and its clients are notified.

use std::sync::Arc;

use conclave_proto::command::v1::{self as pb, sign_in_again::SignIn};

use super::{
    Session,
    start::{self, Authentication},
};
use crate::{
    draft::Draft,
    event::Event,
    ids::{SecretHash, SessionId},
    reply::{Refusal, Reply},
    text, upstream,
};

/// The session whose cookie a browser presented.
#[derive(Clone, Copy)]
pub(crate) struct PresentedSession {
    session: SessionId,
    secret_hash: SecretHash,
}

pub(crate) fn sign_in_again(draft: &mut Draft, command: &pb::SignInAgain) -> Result<Reply, Refusal> {
    let shown = PresentedSession {
        session: SessionId::parse(&command.shown_session_id)?,
        secret_hash: SecretHash::parse(&command.shown_secret_hash)?,
    };
    match &command.sign_in {
        Some(SignIn::Start(command)) => start::start_shown(draft, command, Some(shown)),
        Some(SignIn::Upstream(command)) => upstream::arrive(draft, command, Some(shown), false),
        Some(SignIn::ByHandle(command)) => {
            let command =
                command.sign_in.as_ref().ok_or_else(|| Refusal::malformed("there is no sign-in in it"))?;
            upstream::arrive(draft, command, Some(shown), true)
        }
        None => Err(Refusal::malformed("there is no sign-in in it")),
    }
}

impl Draft {
    /// The live session that the browser proved to hold, by its present secret or by the former one.
    pub(super) fn proven(&self, shown: PresentedSession) -> Option<Arc<Session>> {
        let (session, _) = self.state.live_session(shown.session, self.at)?;
        let former = session.former_secret_hash.is_some_and(|hash| hash.matches(&shown.secret_hash));
        (former || session.secret_hash.matches(&shown.secret_hash)).then(|| Arc::clone(session))
    }

    /// Renews the secret, the expiry and the proofs of a session whose user signed in again.
    pub(super) fn strengthen(
        &mut self,
        session: &Session,
        command: &pb::StartSession,
        proved: Authentication,
    ) -> Result<(), Refusal> {
        let mut renewed = Session {
            secret_hash: SecretHash::parse(&command.secret_hash)?,
            former_secret_hash: Some(session.secret_hash),
            expires_at: self.at.plus_ms(command.ttl_ms),
            user_agent: start::shortened(&command.user_agent),
            address: text::line("address", &command.address, text::MAX_TEXT_BYTES)?,
            ..session.clone()
        };
        // A provider may assert an authentication that is older than the session's own: that one adds nothing.
        if proved.at >= session.auth_time {
            renewed.amr.clone_from(&command.amr);
            renewed.auth_time = proved.at;
            renewed.upstream = proved.upstream;
        }
        self.state.take_expiry_of(session);
        self.state.put_session(renewed);
        self.report(Event::SessionStrengthened { session: session.id, user: session.user });
        Ok(())
    }
}
