//! `CheckHandle`: users who were admitted by their handle alone are admitted for as long as the handle is theirs. A
//! handle that is unconfirmed for a while holds them out, and a handle that belongs to another DID does so at once:
//! their sessions end, and no new one begins until the handle is confirmed again.

use std::sync::Arc;

use conclave_proto::{
    command::v1::{self as pb, check_handle::Finding},
    state::v1 as rows,
};

use super::{LinkedIdentity, Upstream, atmosphere::parse_handle};
use crate::{
    draft::Draft,
    reply::{Reason, Refusal, Reply, done},
    stamp::Stamp,
};

/// The handle by which a user was admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetIn {
    /// The handle.
    pub handle: Arc<str>,
    /// Doubt about the handle; none = it was confirmed at the last lookup.
    pub doubt: Option<Doubt>,
}

/// Doubt about a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Start of the doubt.
    pub since: Stamp,
    /// The handle belongs to another DID now.
    pub elsewhere: bool,
    /// The user is not admitted.
    pub held_out: bool,
}

impl LetIn {
    pub(super) const fn by(handle: Arc<str>) -> Self {
        Self { handle, doubt: None }
    }

    pub(super) fn from_wire(wire: &rows::IdentityRow) -> Option<Self> {
        let doubt = (wire.unconfirmed_since_ms != 0).then_some(Doubt {
            since: Stamp(wire.unconfirmed_since_ms),
            elsewhere: wire.handle_elsewhere,
            held_out: wire.held_out,
        });
        (!wire.admitted_by.is_empty()).then(|| Self { handle: wire.admitted_by.as_str().into(), doubt })
    }
}

impl LinkedIdentity {
    /// The doubt about the handle by which the user was admitted.
    pub fn doubt(&self) -> Option<Doubt> {
        self.let_in.as_ref().and_then(|by| by.doubt)
    }

    /// True if the user is not admitted until their handle is confirmed.
    pub fn is_held_out(&self) -> bool {
        self.doubt().is_some_and(|doubt| doubt.held_out)
    }

    /// The time at which the handle of a user who is admitted by it was last looked up.
    pub fn looked_at(&self) -> Stamp {
        let verified = self.handle.as_ref().map_or(self.linked_at, |(_, at)| *at);
        self.doubt().map_or(verified, |doubt| doubt.since.max(verified))
    }

    /// This identity with no time later than `to`, if it has one. With a later time the handle would be treated as
    /// looked up, and a doubt as new, until log time is there again. None if nothing changes.
    pub(crate) fn moved_before(&self, to: Stamp) -> Option<Self> {
        let handle = self.handle.as_ref().map(|(handle, at)| (Arc::clone(handle), (*at).min(to)));
        let doubt = self.doubt().map(|doubt| Doubt { since: doubt.since.min(to), ..doubt });
        let let_in = self.let_in.as_ref().map(|by| LetIn { handle: Arc::clone(&by.handle), doubt });
        let moved = Self { linked_at: self.linked_at.min(to), handle, let_in, ..self.clone() };
        (moved != *self).then_some(moved)
    }

    /// True if this verified handle, or the DID alone, admits the user now.
    fn is_kept_by(&self, upstream: &Upstream, handle: &str) -> bool {
        let same = self.let_in.as_ref().is_some_and(|by| !handle.is_empty() && *by.handle == *handle);
        same || upstream.admits_from_atmosphere(&self.subject, handle)
    }

    /// The admission by handle after a handle was verified now, if the user still depends on one.
    fn confirmed(&self, upstream: &Upstream, handle: Option<&(Arc<str>, Stamp)>) -> Option<LetIn> {
        let by =
            handle.map(|(handle, _)| handle.clone()).or_else(|| Some(self.let_in.as_ref()?.handle.clone()));
        // If the DID itself is listed by now, the handle no longer decides.
        by.filter(|_| !upstream.admits_from_atmosphere(&self.subject, "")).map(LetIn::by)
    }
}

pub(crate) fn check(draft: &mut Draft, command: &pb::CheckHandle) -> Result<Reply, Refusal> {
    let upstream = draft.state.existing_upstream(&command.upstream)?;
    let known = draft.state.identity(&upstream.name, &command.subject).cloned();
    let by = known.as_ref().and_then(|known| known.let_in.clone());
    let (Some(known), Some(by)) = (known, by) else {
        return Err(Refusal::new(
            Reason::IdentityUnknown,
            "nobody was let in by a handle with this identity",
        ));
    };
    let handle = parse_handle(&command.handle)?;
    match command.finding() {
        Finding::Verified => {
            let handle = Some((handle, draft.at));
            let is_kept = known.is_kept_by(&upstream, handle.as_ref().map_or("", |(handle, _)| handle));
            let let_in = if is_kept {
                known.confirmed(&upstream, handle.as_ref())
            } else {
                Some(doubted(&by, false, draft.at, command.patience_ms))
            };
            draft.look_again(&known, handle, let_in);
        }
        // The lookup began before the user was admitted by another handle.
        Finding::Unconfirmed | Finding::Elsewhere if handle != by.handle => {
            return Err(Refusal::new(Reason::CredentialChanged, "they are let in by another handle now"));
        }
        finding @ (Finding::Unconfirmed | Finding::Elsewhere) => {
            let elsewhere = finding == Finding::Elsewhere;
            let let_in = if known.is_kept_by(&upstream, "") {
                None
            } else {
                Some(doubted(&by, elsewhere, draft.at, command.patience_ms))
            };
            draft.look_again(&known, None, let_in);
        }
        Finding::Unspecified => return Err(Refusal::malformed("nothing was found")),
    }
    Ok(done())
}

/// Doubt grows, and ends only when the handle is confirmed.
fn doubted(by: &LetIn, elsewhere: bool, at: Stamp, patience_ms: u64) -> LetIn {
    let before = by.doubt.unwrap_or(Doubt { since: at, elsewhere: false, held_out: false });
    let held_out = before.held_out || elsewhere || before.since.plus_ms(patience_ms).is_over_at(at);
    LetIn { doubt: Some(Doubt { since: before.since, elsewhere, held_out }), ..by.clone() }
}

impl Draft {
    /// Handles the sign-in of a known user.
    ///
    /// # Errors
    /// `HandleUnconfirmed` for a user who is held out and presents nothing that would admit them.
    pub(super) fn meet_again(
        &mut self,
        upstream: &Upstream,
        known: &LinkedIdentity,
        handle: Option<(Arc<str>, Stamp)>,
    ) -> Result<(), Refusal> {
        let is_kept = known.is_kept_by(upstream, handle.as_ref().map_or("", |(handle, _)| handle));
        if known.is_held_out() && !is_kept {
            let why = "the handle that let this person in is not confirmed any more";
            return Err(Refusal::new(Reason::HandleUnconfirmed, why));
        }
        let let_in = match &known.let_in {
            Some(_) if is_kept => known.confirmed(upstream, handle.as_ref()),
            other => other.clone(),
        };
        self.look_again(known, handle, let_in);
        Ok(())
    }

    /// Updates the handle. A handle is the present name of a DID; one that could not be verified any more is dropped.
    fn look_again(
        &mut self,
        known: &LinkedIdentity,
        handle: Option<(Arc<str>, Stamp)>,
        let_in: Option<LetIn>,
    ) {
        let label =
            handle.as_ref().map_or_else(|| known.subject.to_string(), |(handle, _)| handle.to_string());
        let next = LinkedIdentity { label, handle, let_in, ..known.clone() };
        let ends = next.is_held_out() && !known.is_held_out();
        self.state.put_identity(next);
        if ends {
            self.end_sessions_of_by(known.user, &known.upstream, None);
        }
    }
}
