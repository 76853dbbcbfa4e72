//! Errors of a call.

use tonic::{Code, Status};

/// The reason for which a call did not succeed. Texts are the cluster's own, suitable for display.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request itself is invalid. Nothing changed.
    #[error("{0}")]
    InvalidArgument(String),
    /// The object that the request names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The rules refused: a name is taken, or the object is not in a state that allows it. Nothing changed.
    #[error("{0}")]
    Refused(String),
    /// The token is missing, invalid, expired or revoked.
    #[error("{0}")]
    Unauthenticated(String),
    /// The token does not permit this.
    #[error("{0}")]
    PermissionDenied(String),
    /// No node accepted the request in time. Nothing changed.
    #[error("the cluster cannot be reached or has no leader: {0}")]
    Unavailable(String),
    /// A write was sent and not answered in time: it may have happened, or may still happen. Check before repeating it.
    #[error("the outcome is unknown; check before you try again (request {request_id}): {last}")]
    OutcomeUnknown {
        /// The write's request id, as it appears in the nodes' logs.
        request_id: String,
        /// The error of the last attempt.
        last: String,
    },
    /// Any other error; a defect, or a version that does not know the call.
    #[error("{code:?}: {message}")]
    Other {
        /// The gRPC code.
        code: Code,
        /// The server's error message.
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
