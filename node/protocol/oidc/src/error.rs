//! OAuth errors (RFC 6749 §5.2, RFC 6750 §3): the one place where this slice maps errors to responses.

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use conclave_state::{Reason, Refusal};
use serde_json::json;

use conclave_auth::AuthError;
use conclave_http::{Denial, denial::not_denied};

use crate::token::dpop::DpopError;
use crate::userinfo::access::Dead;

/// The errors of the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    InvalidRequest(&'static str),
    /// True if the client tried HTTP Basic; the response must then offer it (RFC 6749 §5.2).
    InvalidClient {
        basic: bool,
        why: &'static str,
    },
    InvalidGrant(&'static str),
    UnsupportedGrantType,
    InvalidScope(&'static str),
    InvalidTarget(&'static str),
    /// The user has not answered the device's request yet (RFC 8628 §3.5).
    AuthorizationPending,
    /// The device polls too often (RFC 8628 §3.5).
    SlowDown,
    /// The device waited too long (RFC 8628 §3.5).
    ExpiredToken,
    /// The user denied the request (RFC 8628 §3.5).
    AccessDenied,
    /// The client may not use this grant type (RFC 6749 §5.2).
    UnauthorizedClient(&'static str),
    /// RFC 9449 §5.
    InvalidDpopProof(&'static str),
    /// RFC 9449 §8.
    UseDpopNonce,
    /// The cluster cannot accept the write now; nothing was changed.
    Unavailable,
    /// The write was sent, and its outcome is unknown.
    Unknown,
    /// A defect; the details are in the log.
    ServerError,
}

impl TokenError {
    fn parts(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InvalidRequest(why) => (StatusCode::BAD_REQUEST, "invalid_request", why),
            Self::InvalidClient { why, .. } => (StatusCode::UNAUTHORIZED, "invalid_client", why),
            Self::InvalidGrant(why) => (StatusCode::BAD_REQUEST, "invalid_grant", why),
            Self::UnsupportedGrantType => (
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "this provider does not support the grant type; discovery lists those it does",
            ),
            Self::InvalidScope(why) => (StatusCode::BAD_REQUEST, "invalid_scope", why),
            Self::InvalidTarget(why) => (StatusCode::BAD_REQUEST, "invalid_target", why),
            Self::AuthorizationPending => (
                StatusCode::BAD_REQUEST,
                "authorization_pending",
                "the user has not answered yet; poll again",
            ),
            Self::SlowDown => {
                (StatusCode::BAD_REQUEST, "slow_down", "increase the polling interval by five seconds")
            }
            Self::ExpiredToken => {
                (StatusCode::BAD_REQUEST, "expired_token", "the device waited too long; start again")
            }
            Self::AccessDenied => (StatusCode::BAD_REQUEST, "access_denied", "the user denied the request"),
            Self::UnauthorizedClient(why) => (StatusCode::BAD_REQUEST, "unauthorized_client", why),
            Self::InvalidDpopProof(why) => (StatusCode::BAD_REQUEST, "invalid_dpop_proof", why),
            Self::UseDpopNonce => (
                StatusCode::BAD_REQUEST,
                "use_dpop_nonce",
                "make the proof again, with the nonce of the DPoP-Nonce header",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "the cluster cannot take writes at the moment; nothing was changed, try again",
            ),
            Self::Unknown => (
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "the outcome is unknown; a retry with the same Idempotency-Key gets the first answer",
            ),
            Self::ServerError => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "server_error",
                "internal error; see the server log under the request id",
            ),
        }
    }
}

impl From<DpopError> for TokenError {
    fn from(error: DpopError) -> Self {
        match error {
            DpopError::Invalid(why) => Self::InvalidDpopProof(why),
            DpopError::NonceWanted => Self::UseDpopNonce,
        }
    }
}

impl From<AuthError> for TokenError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Refused(refusal) => of_refusal(&refusal),
            AuthError::Unavailable | AuthError::Busy => Self::Unavailable,
            AuthError::Unknown => Self::Unknown,
            AuthError::TooLong => Self::InvalidRequest("the request is too long"),
            AuthError::Internal(reason) => {
                tracing::error!("the token endpoint failed: {reason}");
                Self::ServerError
            }
        }
    }
}

/// The response contains only the code; the log has the reason.
fn of_refusal(refusal: &Refusal) -> TokenError {
    tracing::info!("the token endpoint refused: {refusal}");
    match refusal.reason {
        Reason::GrantUnknown
        | Reason::CodeAlreadyUsed
        | Reason::CodeExpired
        | Reason::CodeMismatch
        | Reason::RefreshUnknown
        | Reason::RefreshReused
        | Reason::RefreshExpired
        | Reason::SessionUnknown
        | Reason::UserUnknown
        | Reason::UserDisabled
        | Reason::AccessDenied => {
            TokenError::InvalidGrant("the code or token is invalid, expired, used or revoked")
        }
        Reason::DevicePending => TokenError::AuthorizationPending,
        Reason::DeviceUnknown | Reason::DeviceExpired => TokenError::ExpiredToken,
        Reason::DeviceDenied => TokenError::AccessDenied,
        Reason::DpopKeyMismatch => {
            TokenError::InvalidGrant("the code or token is bound to a DPoP key that was not proved")
        }
        Reason::ProofReplayed => {
            TokenError::InvalidDpopProof("the DPoP proof was used before, or is too old")
        }
        Reason::GrantTypeNotAllowed => {
            TokenError::UnauthorizedClient("the client may not use this grant type")
        }
        Reason::TooManyWaiting | Reason::TooManyRemembered => TokenError::Unavailable,
        Reason::AssertionReplayed => TokenError::InvalidClient {
            basic: false,
            why: "the client assertion was used before; make one with a new jti for each request",
        },
        Reason::ClientUnknown | Reason::ClientDisabled => {
            TokenError::InvalidClient { basic: false, why: "the client is unknown or disabled" }
        }
        Reason::Malformed => TokenError::InvalidRequest("a parameter is malformed"),
        Reason::Unspecified
        | Reason::UsernameTaken
        | Reason::GroupUnknown
        | Reason::GroupNameTaken
        | Reason::ApplicationUnknown
        | Reason::ApplicationSlugTaken
        | Reason::HostTaken
        | Reason::ClientIdTaken
        | Reason::LocksOut
        | Reason::PolicyUnknown
        | Reason::CandidateChanged
        | Reason::GroupInUse
        | Reason::RestoreUnknown
        | Reason::TicketSpent
        | Reason::TicketExpired
        | Reason::CredentialChanged
        | Reason::KeyExists
        | Reason::KeyUnknown
        | Reason::TokenUnknown
        | Reason::TooSoon
        | Reason::AttemptsExhausted
        | Reason::AlreadyExists
        | Reason::UserCodeTaken
        | Reason::UpstreamUnknown
        | Reason::UpstreamDisabled
        | Reason::UpstreamNameTaken
        | Reason::IdentityUnknown
        | Reason::IdentityTaken
        | Reason::NotAdmitted
        | Reason::InvitationUnknown
        | Reason::HandleUnconfirmed
        | Reason::SessionTooOld
        | Reason::LastSignIn
        | Reason::AddressTaken
        | Reason::NameInUse
        | Reason::LastKey => TokenError::ServerError,
    }
}

impl IntoResponse for TokenError {
    fn into_response(self) -> Response {
        let (status, code, description) = self.parts();
        let mut headers = no_store();
        if matches!(self, Self::InvalidClient { basic: true, .. }) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"conclave\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        let body = Json(json!({ "error": code, "error_description": description }));
        let response = (status, headers, body).into_response();
        match self {
            // Normal steps of the protocol, not denials.
            Self::AuthorizationPending | Self::SlowDown | Self::UseDpopNonce => not_denied(response),
            _ => Denial::new(code, description).on(response),
        }
    }
}

/// Token responses must not be cached (RFC 6749 §5.1).
pub(crate) fn no_store() -> HeaderMap {
    HeaderMap::from_iter([
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("dpop-nonce, www-authenticate")),
    ])
}

/// Allows applications of other origins to read every response of an endpoint for machines, including a 405 or a 413
/// that no handler made.
pub(crate) async fn readable_from_anywhere(mut response: Response) -> Response {
    let anywhere = HeaderValue::from_static("*");
    response.headers_mut().entry(header::ACCESS_CONTROL_ALLOW_ORIGIN).or_insert(anywhere);
    response
}

/// The response to a CORS preflight request. These endpoints ignore cookies, so any origin may call them with its own
/// credentials and with any header: clients for tracing and for MCP add theirs. By the Fetch standard `*` does not
/// include `Authorization`, so that header is named.
pub(crate) async fn preflight() -> (StatusCode, HeaderMap) {
    let mut headers = no_store();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("*, authorization, content-type, dpop"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    (StatusCode::NO_CONTENT, headers)
}

/// The errors of the userinfo endpoint (RFC 6750 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BearerError {
    /// No token was sent.
    Missing,
    InvalidRequest,
    InvalidToken,
    InsufficientScope,
    /// The token is bound to a key that was not proved, or was sent with the wrong scheme (RFC 9449 §7.1).
    DpopTokenRefused,
    InvalidDpopProof,
    UseDpopNonce,
    Unavailable,
}

impl From<Dead> for BearerError {
    fn from(dead: Dead) -> Self {
        match dead {
            Dead::Invalid => Self::InvalidToken,
            Dead::Unavailable => Self::Unavailable,
        }
    }
}

impl From<DpopError> for BearerError {
    fn from(error: DpopError) -> Self {
        match error {
            DpopError::Invalid(why) => {
                tracing::debug!("a DPoP proof was refused: {why}");
                Self::InvalidDpopProof
            }
            DpopError::NonceWanted => Self::UseDpopNonce,
        }
    }
}

impl BearerError {
    /// The body, for programs that do not read the header: OAuth's error code, and what to do.
    const fn body(self) -> (&'static str, &'static str) {
        match self {
            Self::Missing => {
                ("invalid_token", "no access token; send it in the header Authorization: Bearer")
            }
            Self::InvalidRequest => {
                ("invalid_request", "the access token is sent twice, or not as Authorization: Bearer or DPoP")
            }
            Self::InvalidToken => {
                ("invalid_token", "the access token is invalid, expired or revoked; get a new one")
            }
            Self::InsufficientScope => ("insufficient_scope", "the access token lacks the scope openid"),
            Self::DpopTokenRefused => (
                "invalid_token",
                "the token is bound to a key; send it as DPoP with a proof of that key, or as Bearer if it is not",
            ),
            Self::InvalidDpopProof => {
                ("invalid_dpop_proof", "the DPoP proof is missing, malformed, old or used before")
            }
            Self::UseDpopNonce => {
                ("use_dpop_nonce", "make the proof again, with the nonce of the DPoP-Nonce header")
            }
            Self::Unavailable => {
                ("temporarily_unavailable", "this node cannot decide at the moment; try again")
            }
        }
    }

    /// The code in the log line: it distinguishes a missing token from an invalid one.
    const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing_token",
            _ => self.body().0,
        }
    }
}

impl IntoResponse for BearerError {
    fn into_response(self) -> Response {
        let (error, description) = self.body();
        let body = Json(json!({ "error": error, "error_description": description }));
        let (status, challenge) = match self {
            Self::Missing => (StatusCode::UNAUTHORIZED, "Bearer realm=\"conclave\""),
            Self::InvalidRequest => {
                (StatusCode::BAD_REQUEST, "Bearer realm=\"conclave\", error=\"invalid_request\"")
            }
            Self::InvalidToken => {
                (StatusCode::UNAUTHORIZED, "Bearer realm=\"conclave\", error=\"invalid_token\"")
            }
            Self::InsufficientScope => (
                StatusCode::FORBIDDEN,
                "Bearer realm=\"conclave\", error=\"insufficient_scope\", scope=\"openid\"",
            ),
            Self::DpopTokenRefused => {
                (StatusCode::UNAUTHORIZED, "DPoP error=\"invalid_token\", algs=\"RS256 PS256 ES256 EdDSA\"")
            }
            Self::InvalidDpopProof => (
                StatusCode::UNAUTHORIZED,
                "DPoP error=\"invalid_dpop_proof\", algs=\"RS256 PS256 ES256 EdDSA\"",
            ),
            Self::UseDpopNonce => {
                (StatusCode::UNAUTHORIZED, "DPoP error=\"use_dpop_nonce\", algs=\"RS256 PS256 ES256 EdDSA\"")
            }
            Self::Unavailable => {
                let response =
                    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], no_store(), body)
                        .into_response();
                return Denial::new(self.reason(), description).on(response);
            }
        };
        let mut headers = no_store();
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        let response = (status, headers, body).into_response();
        if matches!(self, Self::UseDpopNonce) {
            not_denied(response)
        } else {
            Denial::new(self.reason(), description).on(response)
        }
    }
}
