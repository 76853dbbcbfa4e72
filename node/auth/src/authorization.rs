//! A validated OAuth authorization request, and the responses to its client (RFC 6749 §4.1, OIDC Core §3.1.2).
//!
//! An [`AuthorizationRequest`] exists only after its client and redirect URI were checked, so a redirect built here
//! never leads to an unregistered address.

use conclave_state::{Reason, Refusal};
use http::Response;
use serde::{Deserialize, Serialize};
use url::Url;

use conclave_http::{Denial, denial::not_denied};

/// The parameters of an authorization request. Built by the OIDC slice after the redirect URI was matched exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationRequest {
    pub client_id: String,
    /// Registered for the client; compared as an exact string.
    pub redirect_uri: String,
    /// The `response_mode`: how the response travels to the redirect URI.
    #[serde(default)]
    pub response_mode: ResponseMode,
    pub scopes: Vec<String>,
    pub state: Option<String>,
    pub nonce: String,
    /// The S256 challenge, 32 bytes (RFC 7636). `None` only for a client that is exempt from PKCE.
    pub code_challenge: Option<[u8; 32]>,
    pub prompt: Prompt,
    /// `max_age`, seconds.
    pub max_age_secs: Option<u64>,
    pub login_hint: String,
    /// The required `sub`, from a verified `id_token_hint` or the `claims` parameter.
    pub subject: Option<String>,
    /// SHA-256 thumbprint of the DPoP key to which the code is bound (RFC 9449 §10).
    #[serde(default)]
    pub dpop_jkt: Option<[u8; 32]>,
    /// The resources for which the access token is requested (RFC 8707); the client may use each of them.
    #[serde(default)]
    pub resources: Vec<String>,
    /// Claims requested by name (OIDC Core §5.5).
    #[serde(default)]
    pub claims: RequestedClaims,
    /// The pushed request behind this one, if any; issuing the code spends it.
    #[serde(default)]
    pub pushed: Option<PushedReference>,
    /// True if an essential `acr` was requested that only a password satisfies.
    #[serde(default)]
    pub needs_password: bool,
}

/// The authentication method of a password (RFC 8176).
pub const PASSWORD_METHOD: &str = "pwd";

/// The way a response travels to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseMode {
    /// In the query of a redirect.
    #[default]
    Query,
    /// In a form that the browser posts (OAuth 2.0 Form Post Response Mode).
    FormPost,
    /// In the fragment of a redirect, which the browser does not send to the server (OAuth 2.0 Multiple Response Type
    /// Encoding Practices §2.1).
    Fragment,
}

/// Claims requested by name, sorted; only those that this provider supports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedClaims {
    pub id_token: Vec<String>,
    pub userinfo: Vec<String>,
}

impl RequestedClaims {
    /// The claims of both places, sorted and without duplicates, for the consent page.
    pub fn all(&self) -> Vec<String> {
        let mut all = [self.id_token.as_slice(), &self.userinfo].concat();
        all.sort();
        all.dedup();
        all
    }
}

/// A pushed request, and the time until which its use must be remembered. By then every login that began with it has
/// expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedReference {
    pub id: [u8; 16],
    pub until_ms: u64,
}

/// `prompt` (OIDC Core §3.1.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// No page may be shown to the user.
    pub none: bool,
    /// The user must authenticate again.
    pub login: bool,
    /// The user must give consent again.
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

/// Everything needed to send a response to a client: a matched redirect URI, the response mode, the client's `state`
/// and the issuer (RFC 9207).
#[derive(Clone, Debug)]
pub struct WayBack<'a> {
    pub redirect_uri: &'a str,
    pub mode: ResponseMode,
    pub state: Option<&'a str>,
    pub issuer: &'a str,
    /// True if error responses to this client carry no `iss`, because the client misreads it.
    pub omits_error_issuer: bool,
}

/// A response to a client, sent through the browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientResponse {
    pub redirect_uri: String,
    pub mode: ResponseMode,
    pub parameters: Vec<(&'static str, String)>,
}

impl WayBack<'_> {
    pub fn with_code(&self, code: &str) -> ClientResponse {
        self.with(&[("code", code)], true)
    }

    pub fn with_error(&self, error: AuthorizationError, description: &str) -> ClientResponse {
        self.with(&[("error", error.code()), ("error_description", description)], !self.omits_error_issuer)
    }

    fn with(&self, parameters: &[(&'static str, &str)], names_issuer: bool) -> ClientResponse {
        let state = self.state.map(|state| ("state", state));
        let issuer = names_issuer.then_some(("iss", self.issuer));
        let all = parameters.iter().copied().chain(state).chain(issuer);
        ClientResponse {
            redirect_uri: self.redirect_uri.to_owned(),
            mode: self.mode,
            parameters: all.map(|(name, value)| (name, value.to_owned())).collect(),
        }
    }
}

impl ClientResponse {
    /// Marks the HTTP response that carries this answer, if it is an error. The denial log line then names the code and
    /// the description.
    #[must_use]
    pub fn mark_denial<B>(&self, response: Response<B>) -> Response<B> {
        let value =
            |name| self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        let error = AuthorizationError::ALL.iter().find(|known| Some(known.code()) == value("error"));
        let Some(error) = error else { return response };
        if *error == AuthorizationError::LoginRequired {
            // A client that checks silently for a signed-in user gets the expected response, so this is not a denial.
            return not_denied(response);
        }
        let detail =
            format!("{}; answered to {}", value("error_description").unwrap_or_default(), self.redirect_uri);
        Denial::new(error.code(), detail).on(response)
    }

    /// The redirect location: the parameters in the query of the redirect URI, or in the fragment if the mode requires
    /// it. A registered URI never has a fragment.
    pub fn location(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.parameters);
        if self.mode == ResponseMode::Fragment {
            return format!("{}#{}", self.redirect_uri, query.finish());
        }
        // The registered string stays as it is, byte for byte. An existing query is extended (RFC 6749 §3.1.2).
        let joint = if self.redirect_uri.contains('?') { '&' } else { '?' };
        format!("{}{joint}{}", self.redirect_uri, query.finish())
    }
}

impl AuthorizationRequest {
    pub fn way_back<'a>(&'a self, issuer: &'a str, omits_error_issuer: bool) -> WayBack<'a> {
        let (redirect_uri, mode) = (&self.redirect_uri, self.response_mode);
        WayBack { redirect_uri, mode, state: self.state.as_deref(), issuer, omits_error_issuer }
    }

    /// True if these authentication methods satisfy the request.
    pub fn is_satisfied_by(&self, methods: &[String]) -> bool {
        !self.needs_password || methods.iter().any(|method| method == PASSWORD_METHOD)
    }

    /// The origin of the redirect URI, for the `form-action` of pages whose POST ends in a redirect to the client.
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

/// The error code that the client receives for a refusal by the rules.
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
