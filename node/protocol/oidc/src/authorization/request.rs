//! The authorization request: parsed once, by one parser, into a validated type (RFC 6749 §4.1.1, RFC 7636, OIDC Core
//! §3.1.2.1).
//!
//! The order matters: nothing is ever sent to a redirect URI before it was found, byte for byte, among those of an
//! existing client. Until then every error is a page here.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_state::{
    State,
    client::{Client, GrantType},
    grant::MAX_NONCE_BYTES,
};

use conclave_auth::authorization::{
    AuthorizationError, AuthorizationRequest, Prompt, PushedReference, RequestedClaims, ResponseMode,
};
use conclave_http::denial;

use crate::authorization::requested_claims;
use crate::token::dpop;

/// Maximum length of a parameter's value; `state` is the client's own and may be long.
const MAX_VALUE_BYTES: usize = 2_048;
/// Maximum length of values that hold JSON, a token, or a logout request that this cluster sealed.
const MAX_LONG_VALUE_BYTES: usize = 8 * 1024;
const LONG: [&str; 4] = ["claims", "request", "client_assertion", "posted"];
/// Maximum length of an ID token as a hint: every token made here can be read here, up to the default limit of a body.
const MAX_HINT_BYTES: usize = 64 * 1024;
/// The only parameter that may be repeated (RFC 8707 §2), and how often.
const RESOURCE: &str = "resource";
const MAX_RESOURCES: usize = 8;
/// Maximum number of parameters.
const MAX_PARAMETERS: usize = 64;
/// Maximum number of scopes requested at once.
const MAX_SCOPES: usize = 32;

/// An error that is shown here, since there is no verified address to send it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoWayBack {
    /// The parameters cannot be parsed: too many, too long, or a duplicate (RFC 6749 §3.1).
    Unreadable(&'static str),
    UnknownClient,
    DisabledClient,
    UnregisteredRedirectUri,
    /// The request object is invalid.
    RequestObject(&'static str),
    /// The client is described by a document, and the document is not accepted.
    Document(&'static str),
    /// The pushed request is unknown, another client's, expired or used.
    UnknownRequestUri,
    /// This node cannot look up registrations at the moment.
    Unavailable,
}

/// The origin of a request, and the cluster's requirements.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestContext {
    /// The pushed request behind it, if any.
    pub pushed: Option<PushedReference>,
    /// True if only pushed requests are accepted, from every client.
    pub must_be_pushed: bool,
}

/// An error that is reported to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub redirect_uri: String,
    pub mode: ResponseMode,
    pub state: Option<String>,
    pub error: AuthorizationError,
    pub description: &'static str,
    /// True if the error response carries no `iss`.
    pub omits_error_issuer: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InvalidRequest {
    Here(NoWayBack),
    There(Mistake),
}

/// The request's parameters: each name once, unknown ones ignored.
pub(crate) struct Parameters {
    pairs: Vec<(String, String)>,
    /// True if `state` was sent and is too long to be kept.
    state_is_too_long: bool,
}

impl Parameters {
    /// Parses a query string or a form body.
    ///
    /// # Errors
    /// [`NoWayBack::Unreadable`].
    pub(crate) fn parse(encoded: &[u8]) -> Result<Self, NoWayBack> {
        let pairs = url::form_urlencoded::parse(encoded);
        Self::of(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())))
    }

    /// Builds the parameters from pairs.
    ///
    /// # Errors
    /// [`NoWayBack::Unreadable`].
    pub(crate) fn of(given: impl IntoIterator<Item = (String, String)>) -> Result<Self, NoWayBack> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut state_is_too_long = false;
        for (name, value) in given {
            if pairs.len() >= MAX_PARAMETERS {
                return Err(NoWayBack::Unreadable("too many parameters"));
            }
            let limit = match name.as_str() {
                "id_token_hint" => MAX_HINT_BYTES,
                name if LONG.contains(&name) => MAX_LONG_VALUE_BYTES,
                _ => MAX_VALUE_BYTES,
            };
            if value.len() > limit {
                // The error is reported to the client, without the state by which it could match the response.
                if name == "state" {
                    state_is_too_long = true;
                    continue;
                }
                return Err(NoWayBack::Unreadable(too_long(&name)));
            }
            if name != RESOURCE && pairs.iter().any(|(known, _)| *known == name) {
                return Err(NoWayBack::Unreadable("a parameter is given twice"));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs, state_is_too_long })
    }

    /// The value, if it is present and not empty (RFC 6749 §3.1: an empty parameter counts as absent).
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Each value of a parameter that may be repeated.
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let own = self.pairs.iter().filter(move |(known, _)| known == name);
        own.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The parameters without these, form-encoded again.
    pub(crate) fn encoded_without(&self, left_out: &[&str]) -> String {
        let kept = self.pairs.iter().filter(|(name, _)| !left_out.contains(&name.as_str()));
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish()
    }
}

/// The message for a parameter that is too long, with the name for those that clients often overfill.
fn too_long(name: &str) -> &'static str {
    match name {
        "nonce" => "nonce is longer than 2048 bytes",
        "scope" => "scope is longer than 2048 bytes",
        "redirect_uri" => "redirect_uri is longer than 2048 bytes",
        "login_hint" => "login_hint is longer than 2048 bytes",
        "claims" => "claims is longer than 8192 bytes",
        "id_token_hint" => "id_token_hint is longer than 65536 bytes",
        "request" => "request is longer than 8192 bytes",
        _ => "a parameter is longer than 2048 bytes",
    }
}

/// The nonce, within the bounds of the rules.
fn nonce(parameters: &Parameters) -> Result<&str, &'static str> {
    let nonce = parameters.get("nonce").unwrap_or_default();
    if nonce.len() > MAX_NONCE_BYTES {
        return Err("nonce is longer than 512 bytes");
    }
    if nonce.chars().any(char::is_control) {
        return Err("nonce has a control character");
    }
    Ok(nonce)
}

/// Validates the request against the clients in `state`.
///
/// # Errors
/// [`InvalidRequest`], with the place where the error must be reported.
pub(crate) fn validate(
    parameters: &Parameters,
    state: &State,
    circumstances: RequestContext,
) -> Result<AuthorizationRequest, InvalidRequest> {
    let here = InvalidRequest::Here;
    let client_id = parameters.get("client_id").ok_or(here(NoWayBack::UnknownClient))?;
    let client = state.client(client_id).ok_or(here(NoWayBack::UnknownClient))?;
    if client.disabled {
        return Err(here(NoWayBack::DisabledClient));
    }
    let redirect_uri = parameters.get("redirect_uri").ok_or(here(NoWayBack::UnregisteredRedirectUri))?;
    if !client.may_be_answered_at(redirect_uri) {
        return Err(here(NoWayBack::UnregisteredRedirectUri));
    }
    let (mode, mode_is_known) = response_mode(parameters);
    let client_state = parameters.get("state").map(str::to_owned);
    let requested = Asking { parameters, client, circumstances };
    let result = if mode_is_known { requested.read() } else { Err(UNKNOWN_MODE) };
    match result {
        Ok(requested) => Ok(AuthorizationRequest {
            redirect_uri: redirect_uri.to_owned(),
            response_mode: mode,
            state: client_state,
            ..requested
        }),
        Err((error, description)) => Err(InvalidRequest::There(Mistake {
            redirect_uri: redirect_uri.to_owned(),
            mode,
            state: client_state,
            error,
            description,
            omits_error_issuer: client.requests.exceptions.omit_error_issuer,
        })),
    }
}

/// An error and its description.
type Wrong = (AuthorizationError, &'static str);

const UNKNOWN_MODE: Wrong =
    (AuthorizationError::InvalidRequest, "only response_mode=query, fragment and form_post are supported");

/// The response mode, and false if the requested one is unknown. The default then applies: the query for a code, and
/// the fragment for response types that would return a token, whose clients look for errors there too (OAuth 2.0
/// Multiple Response Type Encoding Practices §5).
fn response_mode(parameters: &Parameters) -> (ResponseMode, bool) {
    let mut types = parameters.get("response_type").unwrap_or_default().split(' ');
    let usual = if types.any(|one| one == "token" || one == "id_token") {
        ResponseMode::Fragment
    } else {
        ResponseMode::Query
    };
    match parameters.get("response_mode") {
        None => (usual, true),
        Some("query") => (ResponseMode::Query, true),
        Some("fragment") => (ResponseMode::Fragment, true),
        Some("form_post") => (ResponseMode::FormPost, true),
        Some(_) => (usual, false),
    }
}

/// A request with a valid client and redirect URI: from here on errors are reported to the client.
struct Asking<'a> {
    parameters: &'a Parameters,
    client: &'a Client,
    circumstances: RequestContext,
}

impl Asking<'_> {
    /// Parses everything except the redirect URI and response mode.
    fn read(&self) -> Result<AuthorizationRequest, Wrong> {
        let parameters = self.parameters;
        let invalid = |why| (AuthorizationError::InvalidRequest, why);
        if parameters.state_is_too_long {
            return Err(invalid("state is longer than 2048 bytes"));
        }
        unsupported(parameters).map_or(Ok(()), Err)?;
        if self.circumstances.pushed.is_none()
            && (self.circumstances.must_be_pushed || self.client.requests.must_be_pushed)
        {
            return Err(invalid("the request must be pushed first (RFC 9126)"));
        }
        if !self.client.allows(GrantType::AuthorizationCode) {
            return Err((AuthorizationError::UnauthorizedClient, "the client may not use codes"));
        }
        let nonce = nonce(parameters).map_err(invalid)?;
        let claims = self.claims()?;
        Ok(AuthorizationRequest {
            client_id: self.client.id.to_string(),
            redirect_uri: String::new(),
            response_mode: ResponseMode::default(),
            scopes: scopes(parameters, self.client)
                .ok_or((AuthorizationError::InvalidScope, "no requested scope is allowed for the client"))?,
            state: None,
            nonce: nonce.to_owned(),
            code_challenge: challenge(parameters, self.client, nonce).map_err(invalid)?,
            prompt: prompt(parameters).map_err(invalid)?,
            max_age_secs: parameters
                .get("max_age")
                .map(str::parse::<u64>)
                .transpose()
                .map_err(|_| invalid("max_age must be a number of seconds"))?,
            login_hint: parameters.get("login_hint").unwrap_or_default().to_owned(),
            subject: claims.subject,
            resources: self.resources()?,
            claims: claims.names,
            pushed: self.circumstances.pushed,
            needs_password: claims.needs_password,
            dpop_jkt: dpop::wanted_key(parameters.get("dpop_jkt")).map_err(invalid)?,
        })
    }

    fn resources(&self) -> Result<Vec<String>, Wrong> {
        wanted_resources(self.parameters, self.client).map_err(|why| (AuthorizationError::InvalidTarget, why))
    }

    /// `claims` and `acr_values`: every request for an `acr` gets the one that was reached.
    fn claims(&self) -> Result<requested_claims::ClaimsParameter, Wrong> {
        let parsed = self.parameters.get("claims").map(requested_claims::parse).transpose();
        let mut requested =
            parsed.map_err(|why| (AuthorizationError::InvalidRequest, why))?.unwrap_or_default();
        if requested.unmet_acr {
            return Err((
                AuthorizationError::UnmetAuthenticationRequirements,
                "no requested essential acr value can be satisfied here",
            ));
        }
        let RequestedClaims { id_token, .. } = &mut requested.names;
        if self.parameters.get("acr_values").is_some() && !id_token.iter().any(|name| name == "acr") {
            id_token.push("acr".to_owned());
            id_token.sort();
        }
        Ok(requested)
    }
}

/// The resources for the access tokens of an authorization: those that the request names, or the client's default
/// resources.
pub(crate) fn wanted_resources(
    parameters: &Parameters,
    client: &Client,
) -> Result<Vec<String>, &'static str> {
    let named = resources(parameters, &client.requests.resources)?;
    Ok(if named.is_empty() { client.requests.exceptions.default_resources.clone() } else { named })
}

/// The resources that the request names: absolute URIs that are registered for the client (RFC 8707 §2).
pub(crate) fn resources(parameters: &Parameters, allowed: &[String]) -> Result<Vec<String>, &'static str> {
    let mut resources: Vec<String> = Vec::new();
    for resource in parameters.all(RESOURCE) {
        if resources.len() >= MAX_RESOURCES {
            return Err("too many resources");
        }
        if !allowed.iter().any(|registered| registered == resource) {
            return Err("a resource is not one that the client may request");
        }
        if !resources.iter().any(|known| known == resource) {
            resources.push(resource.to_owned());
        }
    }
    Ok(resources)
}

/// Unsupported features are refused by name, never ignored (OIDC Core §3.1.2.6).
fn unsupported(parameters: &Parameters) -> Option<(AuthorizationError, &'static str)> {
    if parameters.get("request").is_some() {
        return Some((
            AuthorizationError::RequestNotSupported,
            "request objects are for clients with registered keys",
        ));
    }
    if parameters.get("request_uri").is_some() {
        return Some((AuthorizationError::RequestUriNotSupported, "request_uri must name a pushed request"));
    }
    match parameters.get("response_type") {
        Some("code") => None,
        None => Some((AuthorizationError::InvalidRequest, "response_type is missing; use code")),
        Some(_) => {
            Some((AuthorizationError::UnsupportedResponseType, "only response_type=code is supported"))
        }
    }
}

/// Maximum length of dropped scopes in the log: enough to see what a client requests.
const MAX_LOGGED_SCOPES: usize = 256;

/// The scopes that are requested and allowed. A scope that the client may not have is dropped (RFC 6749 §3.3) and
/// logged. `None` if no scope is left.
pub(crate) fn scopes(parameters: &Parameters, client: &Client) -> Option<Vec<String>> {
    let (mut granted, mut dropped): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    let requested = parameters.get("scope").unwrap_or_default().split(' ').filter(|scope| !scope.is_empty());
    for scope in requested.take(MAX_SCOPES) {
        if !client.scopes.iter().any(|allowed| allowed == scope) {
            dropped.push(scope);
        } else if !granted.iter().any(|known| known == scope) {
            granted.push(scope.to_owned());
        }
    }
    if !dropped.is_empty() {
        tracing::info!(
            client = client.id.as_str(),
            scopes = %denial::escaped(&dropped.join(" "), MAX_LOGGED_SCOPES, true),
            "scopes that the client may not have were left out; to allow them: conclave client update --scope"
        );
    }
    (!granted.is_empty()).then_some(granted)
}

fn challenge(
    parameters: &Parameters,
    client: &Client,
    nonce: &str,
) -> Result<Option<[u8; 32]>, &'static str> {
    let Some(challenge) = parameters.get("code_challenge") else {
        // A method without a challenge is an incomplete request, not one that omits PKCE.
        if parameters.get("code_challenge_method").is_some() {
            return Err("code_challenge_method is given, and code_challenge is missing; send both");
        }
        if client.may_omit_pkce(nonce) {
            return Ok(None);
        }
        return Err(if client.requests.pkce_optional && !client.is_public() {
            "code_challenge and nonce are missing; send code_challenge (PKCE with S256), or a nonce"
        } else {
            "code_challenge is missing; PKCE with S256 is required of this client"
        });
    };
    if parameters.get("code_challenge_method") != Some("S256") {
        return Err("code_challenge_method must be S256");
    }
    let bytes =
        URL_SAFE_NO_PAD.decode(challenge).map_err(|_| "code_challenge is not base64url without padding")?;
    bytes.try_into().map(Some).map_err(|_| "code_challenge must be the SHA-256 of the verifier")
}

fn prompt(parameters: &Parameters) -> Result<Prompt, &'static str> {
    let mut prompt = Prompt::default();
    for value in parameters.get("prompt").unwrap_or_default().split(' ').filter(|v| !v.is_empty()) {
        match value {
            "none" => prompt.none = true,
            // Choosing an account means signing in: a browser has one session here.
            "login" | "select_account" => prompt.login = true,
            "consent" => prompt.consent = true,
            _ => return Err("prompt has an unknown value"),
        }
    }
    if prompt.none && (prompt.login || prompt.consent) {
        return Err("prompt=none cannot be combined with other values");
    }
    Ok(prompt)
}
