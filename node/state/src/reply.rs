//! Replies of the rules. A refusal is a reply: deterministic, replicated, remembered by request id.

use conclave_proto::command::v1 as pb;
pub use pb::refused::Reason;
pub use pb::reply::Body as ReplyBody;

use crate::stamp::Stamp;

/// The reply to a command, on the wire and in the request memory.
pub type Reply = pb::Reply;

/// The reason for which a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason:?}: {detail}")]
pub struct Refusal {
    /// The machine-readable reason.
    pub reason: Reason,
    /// The field or name concerned, for the operator. Never a secret.
    pub detail: String,
    /// The time from which a retry can succeed.
    pub retry_at: Option<Stamp>,
}

impl Refusal {
    /// A refusal for this reason; `detail` names the object.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), retry_at: None }
    }

    /// A refusal because the command itself is invalid.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Reason::Malformed, detail)
    }

    /// Adds the time from which a retry can succeed.
    #[must_use]
    pub fn until(mut self, at: Stamp) -> Self {
        self.retry_at = Some(at);
        self
    }

    pub(crate) fn into_reply(self) -> Reply {
        body(ReplyBody::Refused(pb::Refused {
            reason: self.reason.into(),
            detail: self.detail,
            retry_at_ms: self.retry_at.unwrap_or_default().0,
        }))
    }

    /// Reads a refusal back out of a reply.
    pub fn from_wire(refused: &pb::Refused) -> Self {
        Self {
            reason: refused.reason(),
            detail: refused.detail.clone(),
            retry_at: (refused.retry_at_ms != 0).then_some(Stamp(refused.retry_at_ms)),
        }
    }
}

pub(crate) const fn body(body: ReplyBody) -> Reply {
    Reply { body: Some(body) }
}

pub(crate) const fn done() -> Reply {
    body(ReplyBody::Done(pb::Done {}))
}
