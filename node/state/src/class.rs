//! **The class of each command**: the one place that decides which commands revoke or restrict something. Such a
//! command is acknowledged only when no node can still accept what it ended (docs/design/serve-leases.md); every other
//! command is acknowledged as soon as it is committed.
//!
//! The class depends only on the kind of the command and on its reply, so that a retry that is answered from the
//! request memory has the same class as the first attempt. A command that may grant or restrict (an updated group,
//! application or client) is of the revocation class.

use conclave_proto::command::v1::{self as pb, check_handle::Finding, command::Body};
use prost::Message as _;

use crate::reply::{Reason, Reply, ReplyBody};

/// The time at which the caller of a command gets the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Once it is committed.
    Plain,
    /// Once every node that may accept on its own lease has applied it.
    Revocation,
}

/// The class of what was done while answering. The reuse of a code or a refresh token revokes everything that was
/// issued from it, although the command was meant to grant.
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

/// The class of an encoded `conclave.command.v1.LogEntry`, by its command alone; only `apply` knows what was done while
/// answering it ([`class_of_answer`]). None if the bytes hold no command that this build knows.
pub fn class_of(bytes: &[u8]) -> Option<Class> {
    let entry = pb::LogEntry::decode(bytes).ok()?;
    let command = pb::Command::decode(entry.command.as_slice()).ok()?;
    command.body.as_ref().map(class)
}

/// The class of this command.
pub const fn class(body: &Body) -> Class {
    match body {
        // A candidate has no effect on decisions.
        Body::SetPolicy(command) => if command.candidate { Class::Plain } else { Class::Revocation },
        Body::RemovePolicy(command) => if command.candidate { Class::Plain } else { Class::Revocation },
        // A confirmed handle revokes nothing.
        Body::CheckHandle(command) => {
            if command.finding == Finding::Verified as i32 { Class::Plain } else { Class::Revocation }
        }
        // Setting the clock back ends what was made while it was ahead.
        Body::SetClock(command) => if command.to_ms < command.from_ms { Class::Revocation } else { Class::Plain },
        // These end sessions, grants and tokens.
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
        // Ends the former cookie secret of the browser, or the session of another user.
        | Body::SignInAgain(_)
        // Users: disabled, deleted, another password, another address.
        | Body::UpdateUser(_)
        | Body::DeleteUser(_)
        | Body::SetPassword(_)
        | Body::ResetPassword(_)
        // Applications know users by their names: no check may return the former one.
        | Body::RenameUser(_)
        // Providers and linked identities.
        | Body::UpdateUpstream(_)
        | Body::DeleteUpstream(_)
        | Body::UnlinkIdentity(_)
        | Body::RevokeInvitation(_)
        // Access rules.
        | Body::DeleteGroup(_)
        // Applications grant rights by names of groups.
        | Body::RenameGroup(_)
        | Body::RemoveGroupMember(_)
        // A policy may deny a group.
        | Body::AddGroupMember(_)
        // Another application's wildcard may have matched its host.
        | Body::CreateApplication(_)
        | Body::UpdateApplication(_)
        | Body::DeleteApplication(_)
        | Body::UpdateClient(_)
        | Body::DeleteClient(_)
        | Body::PromoteCandidate(_)
        // Retired keys no longer verify signatures.
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
        // Revokes nothing: what was sealed, hashed or derived under the one key is now under the other.
        | Body::ChangeSecret(_)
        | Body::Reseal(_)
        | Body::RehashAppPassword(_)
        // Has no effect before the restore is committed.
        | Body::BeginRestore(_)
        | Body::StageRows(_)
        | Body::AbortRestore(_)
        | Body::ReserveNodeId(_) => Class::Plain,
    }
}
