//! **Which commands take something away**: the one place that says so. Such a command is acknowledged only when no node
//! can still accept what it ended (design.md §6); every other one as soon as it is committed.
//!
//! By the kind of the command and by its answer alone, so that a retry that is answered from memory is of the same
//! class as the first. Where a command may give or take (an updated group, application or client), it counts as taking.

use conclave_proto::command::v1::{self as pb, check_handle::Finding, command::Body};
use prost::Message as _;

use crate::reply::{Reason, Reply, ReplyBody};

/// When the caller of a command may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Once it is committed.
    Plain,
    /// Once each node that may accept without asking has seen it.
    Revocation,
}

/// What was done in answering so takes something away: the reuse of a code or a refresh token ends all that came of it,
/// though the command was to give.
pub fn class_of_answer(reply: &Reply) -> Class {
    match &reply.body {
        Some(ReplyBody::Refused(refused))
            if matches!(refused.reason(), Reason::CodeAlreadyUsed | Reason::RefreshReused) =>
        {
            Class::Revocation
        }
        _ => Class::Plain,
    }
}

/// The class of an encoded `conclave.command.v1.LogEntry`, by its command alone: what was done in answering it
/// ([`class_of_answer`]) only `apply` knows. None of bytes that hold no command this build knows.
pub fn class_of(bytes: &[u8]) -> Option<Class> {
    let entry = pb::LogEntry::decode(bytes).ok()?;
    let command = pb::Command::decode(entry.command.as_slice()).ok()?;
    command.body.as_ref().map(class)
}

/// The class of this command.
pub const fn class(order: &Body) -> Class {
    match order {
        // A candidate decides nothing.
        Body::SetPolicy(order) => if order.candidate { Class::Plain } else { Class::Revocation },
        Body::RemovePolicy(order) => if order.candidate { Class::Plain } else { Class::Revocation },
        // A handle that is confirmed takes nothing away.
        Body::CheckHandle(order) => {
            if order.finding == Finding::Verified as i32 { Class::Plain } else { Class::Revocation }
        }
        // Set back, it ends what was made while it was ahead.
        Body::SetClock(order) => if order.to_ms < order.from_ms { Class::Revocation } else { Class::Plain },
        // Sessions, grants and tokens end.
        Body::RevokeSession(_)
        | Body::RevokeUserSessions(_)
        | Body::RevokeUserAccess(_)
        | Body::RevokeGrant(_)
        | Body::RevokeConsent(_)
        | Body::RevokeApiToken(_)
        | Body::RevokeAccessToken(_)
        | Body::RevokeAppPassword(_)
        | Body::RaiseRevocationEpoch(_)
        | Body::CommitRestore(_)
        // The cookie secret that the browser had, or the session of the user before.
        | Body::SignInAgain(_)
        // People: disabled, deleted, another password, another address.
        | Body::UpdateUser(_)
        | Body::DeleteUser(_)
        | Body::SetPassword(_)
        | Body::ResetPassword(_)
        // Applications know users by their names: no check may hand out the former one.
        | Body::RenameUser(_)
        // Other providers, and who is who there.
        | Body::UpdateUpstream(_)
        | Body::DeleteUpstream(_)
        | Body::UnlinkIdentity(_)
        | Body::RevokeInvitation(_)
        // Who may open what.
        | Body::DeleteGroup(_)
        // Applications give rights by names of groups.
        | Body::RenameGroup(_)
        | Body::RemoveGroupMember(_)
        // A policy may deny a group.
        | Body::AddGroupMember(_)
        // Its host may have been another's by a wildcard.
        | Body::CreateApplication(_)
        | Body::UpdateApplication(_)
        | Body::DeleteApplication(_)
        | Body::UpdateClient(_)
        | Body::DeleteClient(_)
        | Body::PromoteCandidate(_)
        // What signatures are worth.
        | Body::RetireSigningKey(_) => Class::Revocation,

        Body::CreateUser(_)
        | Body::CreateGroup(_)
        | Body::CreateClient(_)
        | Body::StartSession(_)
        | Body::OpenAppSession(_)
        | Body::IssueCode(_)
        | Body::RedeemCode(_)
        | Body::RotateRefresh(_)
        | Body::PushRequest(_)
        | Body::StartDevice(_)
        | Body::AnswerDevice(_)
        | Body::RedeemDevice(_)
        | Body::CreateUpstream(_)
        | Body::LinkIdentity(_)
        | Body::SignInUpstream(_)
        | Body::SignInByHandle(_)
        | Body::UnlockUser(_)
        | Body::InviteIdentity(_)
        | Body::SetPicture(_)
        | Body::AddSigningKey(_)
        | Body::ActivateSigningKey(_)
        | Body::CreateApiToken(_)
        | Body::CreateAppPassword(_)
        | Body::SpendProofs(_)
        | Body::ReserveAttempt(_)
        | Body::RaiseLevel(_)
        | Body::AcknowledgeOutbox(_)
        | Body::Sweep(_)
        | Body::SetLeaseTerms(_)
        // Nothing is taken away: what was sealed, hashed or derived under the one key is under the other.
        | Body::ChangeSecret(_)
        | Body::Reseal(_)
        | Body::RehashAppPassword(_)
        // Nothing of it counts before it is committed.
        | Body::BeginRestore(_)
        | Body::StageRows(_)
        | Body::AbortRestore(_)
        | Body::ReserveNodeId(_) => Class::Plain,
    }
}
