//! A validated OAuth authorization request, and the ways back to its client (RFC 6749 §4.1, OIDC Core §3.1.2).
//!
//! Only [`AuthorizationRequest`]s whose client and redirect URI were checked exist, so a redirect built here never
//! leads to an unregistered place.

use axum::response::Response;
use conclave_state::{Reason, Refusal};
use serde::{Deserialize, Serialize};
use url::Url;

use conclave_http::{Denial, denial::not_denied};

/// What a client asked for. Made by the OIDC slice, after the redirect URI was matched exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationRequest {
    pub client_id: String,
    /// Registered for the client; an exact string.
    pub redirect_uri: String,
    /// How the answer travels there.
    #[serde(default)]
    pub response_mode: ResponseMode,
    pub scopes: Vec<String>,
    pub state: Option<String>,
    pub nonce: String,
    /// S256, 32 bytes (RFC 7636); none only for a client that may do without.
    pub code_challenge: Option<[u8; 32]>,
    pub prompt: Prompt,
    /// `max_age`, seconds.
    pub max_age_secs: Option<u64>,
    pub login_hint: String,
    /// Who must be signed in, as a verified `id_token_hint` or the `claims` parameter says.
    pub subject: Option<String>,
    /// The DPoP key that the code is to be bound to (RFC 9449 §10), SHA-256 thumbprint.
    #[serde(default)]
    pub dpop_jkt: Option<[u8; 32]>,
    /// What the access token is for (RFC 8707); the client may name each.
    #[serde(default)]
    pub resources: Vec<String>,
    /// Claims asked for by name (OIDC Core §5.5).
    #[serde(default)]
    pub claims: RequestedClaims,
    /// The pushed request that this is; used up by the code.
    #[serde(default)]
    pub pushed: Option<Pushed>,
    /// An `acr` is essential that a password alone reaches here.
    #[serde(default)]
    pub needs_password: bool,
}

/// The authentication method of a password (RFC 8176).
pub const PASSWORD_METHOD: &str = "pwd";

/// How an answer travels to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseMode {
    /// In the query of a redirect.
    #[default]
    Query,
    /// In a form that the browser posts (OAuth 2.0 Form Post Response Mode).
    FormPost,
    /// In the fragment of a redirect, which the browser keeps to itself (OAuth 2.0 Multiple Response Type Encoding
    /// Practices §2.1).
    Fragment,
}

/// Claims asked for by name: those that this provider knows, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedClaims {
    pub id_token: Vec<String>,
    pub userinfo: Vec<String>,
}

impl RequestedClaims {
    /// All of them, for what a person is asked.
    pub fn all(&self) -> Vec<String> {
        let mut all = [self.id_token.as_slice(), &self.userinfo].concat();
        all.sort();
        all.dedup();
        all
    }
}

/// A pushed request, and how long it must be remembered that it was used: no login that began with it is on its way any
/// longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    pub id: [u8; 16],
    pub until_ms: u64,
}

/// `prompt` (OIDC Core §3.1.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// No page may be shown.
    pub none: bool,
    /// The person must prove who they are again.
    pub login: bool,
    /// The person must be asked again.
    pub consent: bool,
}

/// Error codes of the authorization endpoint (RFC 6749 §4.1.2.1, OIDC Core §3.1.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationError {
    InvalidRequest,
    UnauthorizedClient,
    UnsupportedResponseType,
    InvalidScope,
    InvalidTarget,
    AccessDenied,
    LoginRequired,
    UnmetAuthenticationRequirements,
    ConsentRequired,
    InvalidRequestObject,
    RequestNotSupported,
    RequestUriNotSupported,
    TemporarilyUnavailable,
    ServerError,
}

impl AuthorizationError {
    const ALL: [Self; 14] = [
        Self::InvalidRequest,
        Self::UnauthorizedClient,
        Self::UnsupportedResponseType,
        Self::InvalidScope,
        Self::InvalidTarget,
        Self::AccessDenied,
        Self::LoginRequired,
        Self::UnmetAuthenticationRequirements,
        Self::ConsentRequired,
        Self::InvalidRequestObject,
        Self::RequestNotSupported,
        Self::RequestUriNotSupported,
        Self::TemporarilyUnavailable,
        Self::ServerError,
    ];

    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::UnmetAuthenticationRequirements => "unmet_authentication_requirements",
            Self::AccessDenied => "access_denied",
            Self::LoginRequired => "login_required",
            Self::ConsentRequired => "consent_required",
            Self::InvalidRequestObject => "invalid_request_object",
            Self::RequestNotSupported => "request_not_supported",
            Self::RequestUriNotSupported => "request_uri_not_supported",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }
}

/// The way back to a client: a redirect URI that was matched, how to go it, the client's `state`, and who answers (RFC
/// 9207).
#[derive(Clone, Debug)]
pub struct WayBack<'a> {
    pub redirect_uri: &'a str,
    pub mode: ResponseMode,
    pub state: Option<&'a str>,
    pub issuer: &'a str,
    /// The client is not told in errors who answers: it misreads them.
    pub omits_error_issuer: bool,
}

/// An answer to a client, on its way through the browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub redirect_uri: String,
    pub mode: ResponseMode,
    pub parameters: Vec<(&'static str, String)>,
}

impl WayBack<'_> {
    pub fn with_code(&self, code: &str) -> Answer {
        self.with(&[("code", code)], true)
    }

    pub fn with_error(&self, error: AuthorizationError, description: &str) -> Answer {
        self.with(&[("error", error.code()), ("error_description", description)], !self.omits_error_issuer)
    }

    fn with(&self, parameters: &[(&'static str, &str)], names_issuer: bool) -> Answer {
        let state = self.state.map(|state| ("state", state));
        let issuer = names_issuer.then_some(("iss", self.issuer));
        let all = parameters.iter().copied().chain(state).chain(issuer);
        Answer {
            redirect_uri: self.redirect_uri.to_owned(),
            mode: self.mode,
            parameters: all.map(|(name, value)| (name, value.to_owned())).collect(),
        }
    }
}

impl Answer {
    /// The response that carries this answer, marked if it is an error: its line names the code and the description.
    #[must_use]
    pub fn told(&self, response: Response) -> Response {
        let value =
            |name| self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        let error = AuthorizationError::ALL.iter().find(|known| Some(known.code()) == value("error"));
        let Some(error) = error else { return response };
        if *error == AuthorizationError::LoginRequired {
            // A client that asks in silence whether somebody is signed in is told so, and refused nothing.
            return not_denied(response);
        }
        let detail =
            format!("{}; answered to {}", value("error_description").unwrap_or_default(), self.redirect_uri);
        Denial::new(error.code(), detail).on(response)
    }

    /// The answer in the query of the redirect URI, or in its fragment where the mode says so. No registered URI has a
    /// fragment.
    pub fn location(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.parameters);
        if self.mode == ResponseMode::Fragment {
            return format!("{}#{}", self.redirect_uri, query.finish());
        }
        // The registered string stays as it is, byte for byte; a query it has is continued (RFC 6749 §3.1.2).
        let joint = if self.redirect_uri.contains('?') { '&' } else { '?' };
        format!("{}{joint}{}", self.redirect_uri, query.finish())
    }
}

impl AuthorizationRequest {
    pub fn way_back<'a>(&'a self, issuer: &'a str, omits_error_issuer: bool) -> WayBack<'a> {
        let (redirect_uri, mode) = (&self.redirect_uri, self.response_mode);
        WayBack { redirect_uri, mode, state: self.state.as_deref(), issuer, omits_error_issuer }
    }

    /// Whether somebody who proved who they are by these methods will do.
    pub fn is_satisfied_by(&self, methods: &[String]) -> bool {
        !self.needs_password || methods.iter().any(|method| method == PASSWORD_METHOD)
    }

    /// For the `form-action` of pages whose POST ends in a redirect to the client.
    pub fn origin(&self) -> Option<String> {
        origin_of(&self.redirect_uri)
    }
}

/// `scheme://host[:port]`; for a private-use scheme (RFC 8252 §7.1) the scheme alone.
pub fn origin_of(uri: &str) -> Option<String> {
    let url = Url::parse(uri).ok()?;
    match url.origin() {
        origin @ url::Origin::Tuple(..) => Some(origin.ascii_serialization()),
        url::Origin::Opaque(_) => Some(format!("{}:", url.scheme())),
    }
}

/// What a refusal of the rules means to the client.
pub fn error_of(refusal: &Refusal) -> AuthorizationError {
    match refusal.reason {
        Reason::AccessDenied | Reason::UserDisabled | Reason::ClientDisabled => {
            AuthorizationError::AccessDenied
        }
        Reason::GrantTypeNotAllowed => AuthorizationError::UnauthorizedClient,
        Reason::SessionUnknown => AuthorizationError::LoginRequired,
        Reason::Malformed | Reason::TicketSpent | Reason::TicketExpired => AuthorizationError::InvalidRequest,
        _ => AuthorizationError::ServerError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_carry_state_and_issuer_and_leave_the_registered_uri_alone() {
        let back = WayBack {
            redirect_uri: "https://rp.test/cb?x=1",
            mode: ResponseMode::Query,
            state: Some("a b&c"),
            issuer: "https://id.test",
            omits_error_issuer: false,
        };
        let with_code = back.with_code("C").location();
        assert_eq!(with_code, "https://rp.test/cb?x=1&code=C&state=a+b%26c&iss=https%3A%2F%2Fid.test");
        let in_fragment = WayBack { mode: ResponseMode::Fragment, ..back.clone() }.with_code("C").location();
        assert_eq!(in_fragment, "https://rp.test/cb?x=1#code=C&state=a+b%26c&iss=https%3A%2F%2Fid.test");
        let plain = WayBack { redirect_uri: "com.example.app:/cb", state: None, ..back };
        let denied = plain.with_error(AuthorizationError::AccessDenied, "no").location();
        assert_eq!(
            denied,
            "com.example.app:/cb?error=access_denied&error_description=no&iss=https%3A%2F%2Fid.test"
        );
        let without = WayBack { omits_error_issuer: true, ..plain };
        assert!(!without.with_error(AuthorizationError::AccessDenied, "no").location().contains("iss="));
        assert!(without.with_code("C").location().contains("iss="));
        assert_eq!(origin_of("com.example.app:/cb").unwrap(), "com.example.app:");
        assert_eq!(origin_of("https://rp.test:8443/cb").unwrap(), "https://rp.test:8443");
    }
}
