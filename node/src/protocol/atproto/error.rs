//! Why a sign-in with Atmosphere did not come about: a stable code for each reason, and a page that says what to do.

use http::StatusCode;

use super::txt::NoAnswer;
use crate::auth::{AuthError, ticket::TicketError};
use conclave_http::{Fault, outbound::OutboundError};

/// The reasons. Texts inside are for the log.
#[derive(Debug, thiserror::Error)]
pub enum AtmosphereError {
    #[error("what was typed is no handle, DID or server")]
    BadIdentifier,
    #[error("the handle leads to no DID")]
    HandleNotFound,
    /// Nothing is known of the handle: neither that it is there nor that it is not.
    #[error("the handle cannot be looked up: {0}")]
    LookupUnavailable(#[from] NoAnswer),
    #[error("the handle and the DID do not name each other")]
    HandleMismatch,
    /// Answers of the network are not the same for everybody, or are forged for somebody.
    #[error("another node sees another handle")]
    HandleDisputed,
    #[error("no other node could look at the handle")]
    NoSecondLook,
    #[error("the DID is of a method or spelling that is not supported")]
    DidUnsupported,
    #[error("the DID has no document")]
    DidNotFound,
    #[error("a server of the person's does not answer: {0}")]
    Unreachable(OutboundError),
    #[error("a server of the person's answers what cannot be used: {0}")]
    ProviderInvalid(&'static str),
    /// It could not read, or does not take, the document or the keys of this cluster.
    #[error(
        "a server of the person's does not know this cluster; `conclave doctor atmosphere` says what is wrong with its document"
    )]
    ClientUnknown,
    #[error("a server of the person's is at an address that may not be asked: {0}")]
    Blocked(String),
    #[error("the person or the server said no")]
    Denied,
    #[error("the answer belongs to no sign-in that is on its way")]
    StateInvalid,
    #[error("the answer came from another server than was asked")]
    IssuerMismatch,
    #[error("another person signed in than was meant, or their server changed meanwhile")]
    SubjectMismatch,
    #[error("the server's token cannot be used: {0}")]
    TokenRejected(&'static str),
    /// Who must prove who they are again cannot do so here: no server says when they did.
    #[error("the network does not say when a person proved who they are")]
    NotFresh,
    #[error("sign-in with Atmosphere is off")]
    Off,
    #[error("too many sign-ins are on their way")]
    Busy,
    #[error("too many sign-ins came from this address")]
    TooMany,
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error(transparent)]
    Failed(#[from] AuthError),
}

impl PartialEq for AtmosphereError {
    /// By their codes.
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
    /// Stable, for people who search and for tests.
    pub const fn code(&self) -> &'static str {
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

    /// What a person is told: a title, and what to do.
    const fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::BadIdentifier => (
                "That is no handle",
                "Type your handle as you see it in your profile, such as alice.example.com, or your DID.",
            ),
            Self::HandleNotFound => (
                "That handle was not found",
                "Check the spelling. If you have just set or changed the handle, wait a few minutes, or sign in with your DID.",
            ),
            Self::LookupUnavailable(_) => (
                "Your handle cannot be looked up at the moment",
                "The name service of this site does not answer. That says nothing of your handle. Try again in a moment, or sign in another way.",
            ),
            Self::HandleMismatch => (
                "The handle is not confirmed by its account",
                "The handle leads to an account that does not have it. Set the handle in your account's settings again, or sign in with your DID.",
            ),
            Self::HandleDisputed => (
                "Your handle is not the same everywhere",
                "It decides whether you may come in, and from another place on the network it leads elsewhere or nowhere. If you have just set \
                 it, wait until every nameserver knows it; otherwise tell your administrator the request id below.",
            ),
            Self::NoSecondLook => (
                "Your handle could not be confirmed",
                "It decides whether you may come in, and no second server could look it up just now. Start again in a moment.",
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
                "The server that holds your account answers in a way that cannot be used to sign in. Ask whoever runs it, and tell them \
                 the request id below.",
            ),
            Self::ClientUnknown => (
                "Your account's server does not know this site",
                "It could not read the public document that says who this site is, or does not take it. Try again in some minutes; if it stays \
                 so, ask your administrator to run conclave doctor atmosphere, which says what is wrong with it.",
            ),
            Self::Blocked(_) => (
                "Your account's server is at an address that is not asked",
                "The server that holds your account must be on the public internet and use https. Ask whoever runs it.",
            ),
            Self::Denied => (
                "Sign-in was cancelled",
                "You or your account's server ended the sign-in there. Go back and try again, or sign in another way.",
            ),
            Self::StateInvalid => (
                "This sign-in is not on its way any more",
                "It was completed before, took too long, or was begun in another browser. Start again.",
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
                "What your account's server says of you could not be verified, so you were not signed in. Start again.",
            ),
            Self::NotFresh => (
                "You must prove who you are again",
                "The application wants you to sign in anew, and Atmosphere does not say when you did. Go back and sign in another way.",
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

    /// The page.
    pub fn fault(&self) -> Fault {
        tracing::debug!("a sign-in with Atmosphere failed ({}): {self}", self.code());
        let (title, detail) = self.words();
        match self {
            Self::Ticket(error) => crate::auth::pages::fault_of_ticket(*error),
            Self::Failed(error) => crate::auth::pages::fault_of(error),
            _ => Fault::new(self.status(), self.code(), title, detail),
        }
    }
}
