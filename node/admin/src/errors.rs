//! Conversions of refusals and failures to gRPC status: the only place that chooses codes.
//!
//! `UNAVAILABLE` means that nothing happened, and carries `retry-after-ms`. `DEADLINE_EXCEEDED` on a write means that
//! its outcome is unknown. Refusals of the rules carry their name in `x-conclave-reason`, for programs.
#![deny(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use conclave_state::{Reason, Refusal};
use tonic::{Code, Status, metadata::MetadataValue};

use conclave_archive::ArchiveError;
use conclave_auth::redirect_uri::RedirectUriError;
use conclave_cluster::{MembershipError, ProposeError, ViewError};
use conclave_crypto::password::PasswordError;

/// Metadata key: the name of a refusal.
const REASON: &str = "x-conclave-reason";
/// Metadata key: the time after which a retry may succeed.
const RETRY_AFTER: &str = "retry-after-ms";
/// An election or a lag has usually ended by then.
const SHORTLY: Duration = Duration::from_millis(200);
/// A queue takes longer to drain.
const LATER: Duration = Duration::from_secs(1);

/// The one message for every fault of a token.
pub(super) fn unauthenticated() -> Status {
    Status::unauthenticated("a valid bearer token is required")
}

pub(super) fn forbidden() -> Status {
    Status::permission_denied("this token may only read; writes require a token with the role admin")
}

/// The requested object does not exist.
pub(super) fn not_found(what: &str, name: &str) -> Status {
    Status::not_found(format!("there is no {what} {name}"))
}

pub(super) fn invalid(text: impl Into<String>) -> Status {
    Status::invalid_argument(text)
}

/// The feature level of the cluster does not include the requested command.
pub(super) fn outdated_member() -> Status {
    Status::failed_precondition(
        "a member of the cluster runs an older version, which does not know this command; upgrade all members, then try again",
    )
}

/// The fault of an address, with the name of its field.
pub(super) fn redirect_uri(field: &str, text: &str, error: &RedirectUriError) -> Status {
    invalid(format!("{field}: {text:?} {error}"))
}

pub(super) fn view(error: &ViewError) -> Status {
    match error {
        ViewError::Behind => unavailable(error.to_string(), SHORTLY),
        ViewError::FromTheFuture => Status::out_of_range(
            "x-conclave-index belongs to another cluster, or to this one before a restore: begin without it",
        ),
    }
}

pub(super) fn propose(error: ProposeError) -> Status {
    match error {
        ProposeError::Refused(refusal) => refused(&refusal),
        ProposeError::Unavailable | ProposeError::Clock(_) => unavailable(error.to_string(), SHORTLY),
        ProposeError::Busy => unavailable(error.to_string(), LATER),
        ProposeError::Unknown => Status::deadline_exceeded(
            "the outcome of the write is unknown; sending it again under the same x-conclave-request-id is safe",
        ),
        ProposeError::TooLarge(text) => invalid(format!("the request is too large: {text}")),
    }
}

/// The archive's own text: the caller may read it, and is the operator.
pub(super) fn archive(error: &ArchiveError) -> Status {
    unavailable(error.to_string(), LATER)
}

pub(super) fn membership(error: &MembershipError) -> Status {
    let text = error.to_string();
    match error {
        MembershipError::Unknown(_) => Status::not_found(text),
        MembershipError::Refused(_) => Status::failed_precondition(text),
        MembershipError::Busy => Status::aborted(text),
        MembershipError::Outcome => Status::deadline_exceeded(text),
        MembershipError::NotLeader(_) | MembershipError::Unavailable(_) => unavailable(text, SHORTLY),
    }
}

pub(super) fn password(error: &PasswordError) -> Status {
    match error {
        PasswordError::TooLong => invalid(error.to_string()),
        PasswordError::Busy => unavailable(error.to_string(), LATER),
        PasswordError::Stopped | PasswordError::MalformedHash | PasswordError::CostTooHigh => {
            tracing::error!(%error, "a password could not be hashed");
            Status::internal("the password could not be hashed")
        }
    }
}

/// A signing key that a client needs could not be made.
pub(super) fn signing_key(error: &conclave_auth::AuthError) -> Status {
    tracing::warn!(%error, "a signing key could not be made");
    unavailable("a signing key for the client cannot be made at the moment; nothing happened".into(), LATER)
}

pub(super) fn refused(refusal: &Refusal) -> Status {
    let text = if refusal.detail.is_empty() { refusal.reason.as_str_name() } else { &refusal.detail };
    let mut status = Status::new(code(refusal.reason), text);
    let name = refusal.reason.as_str_name().trim_start_matches("REASON_").to_ascii_lowercase();
    if let Ok(name) = MetadataValue::try_from(name) {
        status.metadata_mut().insert(REASON, name);
    }
    status
}

fn code(reason: Reason) -> Code {
    match reason {
        Reason::Malformed => Code::InvalidArgument,
        Reason::UserUnknown
        | Reason::GroupUnknown
        | Reason::ApplicationUnknown
        | Reason::ClientUnknown
        | Reason::SessionUnknown
        | Reason::GrantUnknown
        | Reason::RefreshUnknown
        | Reason::KeyUnknown
        | Reason::DeviceUnknown
        | Reason::UpstreamUnknown
        | Reason::IdentityUnknown
        | Reason::PolicyUnknown
        | Reason::InvitationUnknown
        | Reason::TokenUnknown => Code::NotFound,
        Reason::UsernameTaken
        | Reason::GroupNameTaken
        | Reason::ApplicationSlugTaken
        | Reason::HostTaken
        | Reason::ClientIdTaken
        | Reason::KeyExists
        | Reason::UserCodeTaken
        | Reason::UpstreamNameTaken
        | Reason::IdentityTaken
        | Reason::AddressTaken
        | Reason::AlreadyExists => Code::AlreadyExists,
        Reason::UserDisabled
        | Reason::ClientDisabled
        | Reason::TicketSpent
        | Reason::TicketExpired
        | Reason::CredentialChanged
        | Reason::CodeAlreadyUsed
        | Reason::CodeExpired
        | Reason::CodeMismatch
        | Reason::RefreshReused
        | Reason::RefreshExpired
        | Reason::AccessDenied
        | Reason::TooSoon
        | Reason::DeviceExpired
        | Reason::DevicePending
        | Reason::DeviceDenied
        | Reason::AssertionReplayed
        | Reason::ProofReplayed
        | Reason::GrantTypeNotAllowed
        | Reason::DpopKeyMismatch
        | Reason::UpstreamDisabled
        | Reason::NotAdmitted
        | Reason::HandleUnconfirmed
        | Reason::SessionTooOld
        | Reason::LastSignIn
        | Reason::LocksOut
        | Reason::CandidateChanged
        | Reason::GroupInUse
        | Reason::NameInUse
        | Reason::RestoreUnknown
        | Reason::LastKey => Code::FailedPrecondition,
        Reason::AttemptsExhausted | Reason::TooManyWaiting | Reason::TooManyRemembered => {
            Code::ResourceExhausted
        }
        // A reason that a newer version added.
        Reason::Unspecified => Code::Unknown,
    }
}

fn unavailable(text: String, retry_after: Duration) -> Status {
    let mut status = Status::unavailable(text);
    let ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
    status.metadata_mut().insert(RETRY_AFTER, MetadataValue::from(ms));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_words_and_its_name() {
        let status = refused(&Refusal::new(Reason::UsernameTaken, "the username ada is taken"));
        assert_eq!((status.code(), status.message()), (Code::AlreadyExists, "the username ada is taken"));
        assert_eq!(status.metadata().get(REASON).unwrap(), "username_taken");
    }

    #[test]
    fn only_what_certainly_did_not_happen_is_unavailable() {
        for error in [ProposeError::Unavailable, ProposeError::Busy] {
            let status = propose(error);
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.metadata().contains_key(RETRY_AFTER));
        }
        let unknown = propose(ProposeError::Unknown);
        assert_eq!(unknown.code(), Code::DeadlineExceeded);
        assert!(unknown.message().contains("unknown"));
    }
}
