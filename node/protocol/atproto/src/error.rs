//! Failures of a sign-in with Atmosphere: a stable code for each, and an error page that tells what to do.

use http::StatusCode;

use super::txt::NoAnswer;
use conclave_auth::{AuthError, ticket::TicketError};
use conclave_http::{Fault, outbound::OutboundError};

/// The reasons for a failure. Texts inside are for the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AtmosphereError {
    #[error("the typed text is not a handle, DID or server")]
    BadIdentifier,
    #[error("the handle does not resolve to a DID")]
    HandleNotFound,
    /// It is unknown if the handle exists.
    #[error("the handle cannot be looked up: {0}")]
    LookupUnavailable(#[from] NoAnswer),
    #[error("the handle and the DID do not name each other")]
    HandleMismatch,
    /// The network gives different answers to different nodes, or forged ones to one of them.
    #[error("another node sees another handle")]
    HandleDisputed,
    #[error("no other node could verify the handle")]
    NoSecondLook,
    #[error("the DID is of a method or spelling that is not supported")]
    DidUnsupported,
    #[error("the DID has no document")]
    DidNotFound,
    #[error("a server of the user does not answer: {0}")]
    Unreachable(OutboundError),
    #[error("a server of the user sent a response that cannot be used: {0}")]
    ProviderInvalid(&'static str),
    /// It could not read, or does not accept, the document or the keys of this cluster.
    #[error(
        "a server of the user does not accept this cluster as a client; `conclave doctor atmosphere` checks its document"
    )]
    ClientUnknown,
    #[error("a server of the user is at an address that may not be contacted: {0}")]
    Blocked(String),
    #[error("the user or the server denied the sign-in")]
    Denied,
    #[error("the response does not belong to a sign-in in progress")]
    StateInvalid,
    #[error("the response came from another server than the requested one")]
    IssuerMismatch,
    #[error("another user signed in than the expected one, or their server changed meanwhile")]
    SubjectMismatch,
    #[error("the server's token cannot be used: {0}")]
    TokenRejected(&'static str),
    /// The user must authenticate again, but no server states the time of authentication.
    #[error("the network does not state when a user authenticated")]
    NotFresh,
    #[error("sign-in with Atmosphere is off")]
    Off,
    #[error("too many sign-ins are in progress")]
    Busy,
    #[error("too many sign-ins came from this address")]
    TooMany,
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error(transparent)]
    Failed(#[from] AuthError),
}

impl PartialEq for AtmosphereError {
    /// Compares the codes.
    fn eq(&self, other: &Self) -> bool {
        self.code() == other.code()
    }
}

impl From<OutboundError> for AtmosphereError {
    fn from(error: OutboundError) -> Self {
        match error {
            OutboundError::Forbidden(host) => Self::Blocked(host),
            OutboundError::Insecure | OutboundError::Url => Self::Blocked(error.to_string()),
            error => Self::Unreachable(error),
        }
    }
}

impl AtmosphereError {
    /// A stable code, for searches and tests.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::BadIdentifier => "atproto_bad_identifier",
            Self::HandleNotFound => "atproto_handle_not_found",
            Self::LookupUnavailable(_) => "atproto_lookup_unavailable",
            Self::HandleMismatch => "atproto_handle_mismatch",
            Self::HandleDisputed => "atproto_handle_disputed",
            Self::NoSecondLook => "atproto_no_second_look",
            Self::DidUnsupported => "atproto_did_unsupported",
            Self::DidNotFound => "atproto_did_not_found",
            Self::Unreachable(_) => "atproto_provider_unreachable",
            Self::ProviderInvalid(_) => "atproto_provider_invalid",
            Self::ClientUnknown => "atproto_metadata_unreachable",
            Self::Blocked(_) => "atproto_provider_blocked",
            Self::Denied => "atproto_denied",
            Self::StateInvalid => "atproto_state_invalid",
            Self::IssuerMismatch => "atproto_issuer_mismatch",
            Self::SubjectMismatch => "atproto_subject_mismatch",
            Self::TokenRejected(_) => "atproto_token_rejected",
            Self::NotFresh => "atproto_not_fresh",
            Self::Off => "atproto_off",
            Self::Busy => "temporarily_unavailable",
            Self::TooMany => "too_many_attempts",
            Self::Ticket(_) => "ticket",
            Self::Failed(_) => "failed",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::Unreachable(_)
            | Self::ProviderInvalid(_)
            | Self::ClientUnknown
            | Self::Blocked(_)
            | Self::TokenRejected(_) => StatusCode::BAD_GATEWAY,
            Self::Denied | Self::SubjectMismatch | Self::NotFresh | Self::HandleDisputed => {
                StatusCode::FORBIDDEN
            }
            Self::Off => StatusCode::NOT_FOUND,
            Self::Busy | Self::NoSecondLook | Self::LookupUnavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The texts of the error page: a title, and what to do.
    const fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::BadIdentifier => (
                "That is not a handle",
                "Type your handle as you see it in your profile, such as alice.example.com, or your DID.",
            ),
            Self::HandleNotFound => (
                "That handle was not found",
                "Check the spelling. If you have just set or changed the handle, wait a few minutes, or sign in with your DID.",
            ),
            Self::LookupUnavailable(_) => (
                "Your handle cannot be looked up at the moment",
                "The name service of this site does not answer. This does not mean that your handle is wrong. Try again in a moment, or sign in another way.",
            ),
            Self::HandleMismatch => (
                "The handle is not confirmed by its account",
                "The handle leads to an account that does not have it. Set the handle in your account's settings again, or sign in with your DID.",
            ),
            Self::HandleDisputed => (
                "Your handle is not the same everywhere",
                "It decides if you may sign in, and from another place on the network it leads elsewhere or nowhere. If you have just set \
                 it, wait until every nameserver knows it; otherwise tell your administrator the request id below.",
            ),
            Self::NoSecondLook => (
                "Your handle could not be confirmed",
                "It decides if you may sign in, and no second server could look it up just now. Start again in a moment.",
            ),
            Self::DidUnsupported => (
                "That DID cannot be used",
                "Only DIDs that begin with did:plc: or did:web: and a plain host name can sign in here.",
            ),
            Self::DidNotFound => (
                "That account was not found",
                "The account does not exist, was deleted, or its directory does not answer. Check it, or try again in a moment.",
            ),
            Self::Unreachable(_) => (
                "Your account's server does not answer",
                "The server that holds your account cannot be reached from here. Try again in a moment, or sign in another way.",
            ),
            Self::ProviderInvalid(_) => (
                "Your account's server cannot be used",
                "The server that holds your account answers in a way that cannot be used to sign in. Ask its operator, and tell them \
                 the request id below.",
            ),
            Self::ClientUnknown => (
                "Your account's server does not know this site",
                "It could not read the public document that identifies this site, or does not accept it. Try again in some minutes; if it stays \
                 so, ask your administrator to run conclave doctor atmosphere, which says what is wrong with it.",
            ),
            Self::Blocked(_) => (
                "Your account's server is at an address that is not contacted",
                "The server that holds your account must be on the public internet and use https. Ask its operator.",
            ),
            Self::Denied => (
                "Sign-in was cancelled",
                "You or your account's server ended the sign-in there. Go back and try again, or sign in another way.",
            ),
            Self::StateInvalid => (
                "This sign-in has ended",
                "It was completed before, took too long, or was started in another browser. Start again.",
            ),
            Self::IssuerMismatch => (
                "The answer came from another server",
                "You were sent here by another server than the one you went to, so you were not signed in. Start again.",
            ),
            Self::SubjectMismatch => (
                "Another account signed in",
                "The account that signed in there is not the one that you named here, or it is moving to another server. Start again.",
            ),
            Self::TokenRejected(_) => (
                "The server's answer cannot be trusted",
                "The statement of your account's server about you could not be verified, so you were not signed in. Start again.",
            ),
            Self::NotFresh => (
                "You must sign in again",
                "The application requires a new sign-in, and Atmosphere does not state the time of a sign-in. Go back and sign in another way.",
            ),
            Self::Off => (
                "This way to sign in is not available",
                "Sign-in with Atmosphere is turned off here. Go back and sign in another way.",
            ),
            Self::Busy => ("Too many sign-ins at once", "Nothing was changed. Try again in a moment."),
            Self::TooMany => {
                ("Too many attempts", "There were too many sign-ins from your address. Try again later.")
            }
            Self::Ticket(_) | Self::Failed(_) => ("Sign-in failed", "Start again from the application."),
        }
    }

    /// The error page.
    pub(crate) fn fault(&self) -> Fault {
        tracing::debug!("a sign-in with Atmosphere failed ({}): {self}", self.code());
        let (title, detail) = self.words();
        match self {
            Self::Ticket(error) => conclave_web::pages::fault_of_ticket(*error),
            Self::Failed(error) => conclave_web::pages::fault_of(error),
            _ => Fault::new(self.status(), self.code(), title, detail),
        }
    }
}
