//! What a caller learns when a call does not succeed.

use tonic::{Code, Status};

/// Why a call did not succeed. Texts are the cluster's own, fit for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong. Nothing changed.
    #[error("{0}")]
    InvalidArgument(String),
    /// What the request names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The rules said no: a name is taken, or the object is in no state for it. Nothing changed.
    #[error("{0}")]
    Refused(String),
    /// The token is missing, wrong, expired or revoked.
    #[error("{0}")]
    Unauthenticated(String),
    /// The token may not do this.
    #[error("{0}")]
    PermissionDenied(String),
    /// Nobody took the request in time. Nothing changed.
    #[error("the cluster cannot be reached or has no leader: {0}")]
    Unavailable(String),
    /// A write was sent and not answered in time: it may have happened, or may still. Look before doing it anew.
    #[error("the outcome is unknown, look before trying again (request {request_id}): {last}")]
    OutcomeUnknown {
        /// The write's name, as it stands in the nodes' logs.
        request_id: String,
        /// What the last attempt ended with.
        last: String,
    },
    /// Anything else; a defect or a version that does not know the call.
    #[error("{code:?}: {message}")]
    Other {
        /// The gRPC code.
        code: Code,
        /// The server's words.
        message: String,
    },
}

impl From<&Status> for Error {
    fn from(status: &Status) -> Self {
        let text = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument => Self::InvalidArgument(text),
            Code::NotFound => Self::NotFound(text),
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted | Code::ResourceExhausted => {
                Self::Refused(text)
            }
            Code::Unauthenticated => Self::Unauthenticated(text),
            Code::PermissionDenied => Self::PermissionDenied(text),
            Code::Unavailable => Self::Unavailable(text),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Self::Other { code: status.code(), message: text },
        }
    }
}
