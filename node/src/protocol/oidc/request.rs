//! The authorization request: parsed once, by one parser, into something that cannot be wrong (RFC 6749 §4.1.1, RFC 7636,
//! OIDC Core §3.1.2.1).
//!
//! The order matters: nothing is ever sent to a redirect URI before it was found, byte for byte, among those of a client that
//! exists. Until then every mistake is a page here.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_state::{State, client::GrantType};

use crate::auth::authorization::{AuthorizationError, AuthorizationRequest, Prompt};

use super::dpop;

/// Longest value of any parameter; `state` is the client's own and may be long.
const MAX_VALUE_BYTES: usize = 2_048;
/// Most parameters looked at.
const MAX_PARAMETERS: usize = 64;
/// Most scopes asked for at once.
const MAX_SCOPES: usize = 32;

/// A mistake that is shown here, since nobody it could be sent to is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoWayBack {
    /// The parameters cannot be read: too many, too long, or one of them twice (RFC 6749 §3.1).
    Unreadable(&'static str),
    UnknownClient,
    DisabledClient,
    UnregisteredRedirectUri,
}

/// A mistake that the client is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub redirect_uri: String,
    pub state: Option<String>,
    pub error: AuthorizationError,
    pub description: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unacceptable {
    Here(NoWayBack),
    There(Mistake),
}

/// The request's parameters: each name once, unknown ones ignored.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a query string or a form body.
    ///
    /// # Errors
    /// [`NoWayBack::Unreadable`].
    pub fn parse(encoded: &[u8]) -> Result<Self, NoWayBack> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(encoded) {
            if pairs.len() >= MAX_PARAMETERS {
                return Err(NoWayBack::Unreadable("too many parameters"));
            }
            if value.len() > MAX_VALUE_BYTES {
                return Err(NoWayBack::Unreadable("a parameter is too long"));
            }
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(NoWayBack::Unreadable("a parameter is given twice"));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    /// The value, if it is given and not empty (RFC 6749 §3.1: an empty parameter is an absent one).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }
}

/// Validates the request against the clients that `state` knows.
///
/// # Errors
/// [`Unacceptable`], saying where the mistake is to be told.
pub fn validate(parameters: &Parameters, state: &State) -> Result<AuthorizationRequest, Unacceptable> {
    let here = Unacceptable::Here;
    let client_id = parameters.get("client_id").ok_or(here(NoWayBack::UnknownClient))?;
    let client = state.client(client_id).ok_or(here(NoWayBack::UnknownClient))?;
    if client.disabled {
        return Err(here(NoWayBack::DisabledClient));
    }
    let redirect_uri = parameters.get("redirect_uri").ok_or(here(NoWayBack::UnregisteredRedirectUri))?;
    if !client.redirect_uris.iter().any(|registered| registered == redirect_uri) {
        return Err(here(NoWayBack::UnregisteredRedirectUri));
    }

    let client_state = parameters.get("state").map(str::to_owned);
    let there = |error, description| {
        let (redirect_uri, state) = (redirect_uri.to_owned(), client_state.clone());
        Unacceptable::There(Mistake { redirect_uri, state, error, description })
    };
    unsupported(parameters).map_or(Ok(()), |(error, why)| Err(there(error, why)))?;
    if !client.allows(GrantType::AuthorizationCode) {
        return Err(there(AuthorizationError::UnauthorizedClient, "the client may not use codes"));
    }
    let dpop_jkt =
        dpop::wanted_key(parameters).map_err(|why| there(AuthorizationError::InvalidRequest, why))?;
    let scopes = scopes(parameters, &client.scopes)
        .ok_or_else(|| there(AuthorizationError::InvalidScope, "no scope that the client may ask for"))?;
    let code_challenge =
        challenge(parameters).map_err(|why| there(AuthorizationError::InvalidRequest, why))?;
    let prompt = prompt(parameters).map_err(|why| there(AuthorizationError::InvalidRequest, why))?;
    let max_age_secs = parameters
        .get("max_age")
        .map(str::parse::<u64>)
        .transpose()
        .map_err(|_| there(AuthorizationError::InvalidRequest, "max_age must be a number of seconds"))?;
    Ok(AuthorizationRequest {
        client_id: client_id.to_owned(),
        redirect_uri: redirect_uri.to_owned(),
        scopes,
        state: client_state.clone(),
        nonce: parameters.get("nonce").unwrap_or_default().to_owned(),
        code_challenge,
        prompt,
        max_age_secs,
        login_hint: parameters.get("login_hint").unwrap_or_default().to_owned(),
        subject: None,
        dpop_jkt,
    })
}

/// What this provider does not do is refused by name, never ignored (OIDC Core §3.1.2.6).
fn unsupported(parameters: &Parameters) -> Option<(AuthorizationError, &'static str)> {
    if parameters.get("request").is_some() {
        return Some((AuthorizationError::RequestNotSupported, "request objects are not supported"));
    }
    if parameters.get("request_uri").is_some() {
        return Some((AuthorizationError::RequestUriNotSupported, "request_uri is not supported"));
    }
    match parameters.get("response_type") {
        Some("code") => {}
        None => return Some((AuthorizationError::InvalidRequest, "response_type is missing; use code")),
        Some(_) => {
            return Some((
                AuthorizationError::UnsupportedResponseType,
                "only response_type=code is supported",
            ));
        }
    }
    match parameters.get("response_mode") {
        None | Some("query") => None,
        Some(_) => Some((AuthorizationError::InvalidRequest, "only response_mode=query is supported")),
    }
}

/// What is asked for and allowed. A scope that the client may not have is left out (RFC 6749 §3.3); none left is a mistake.
fn scopes(parameters: &Parameters, allowed: &[String]) -> Option<Vec<String>> {
    let mut granted: Vec<String> = Vec::new();
    for scope in
        parameters.get("scope").unwrap_or_default().split(' ').filter(|s| !s.is_empty()).take(MAX_SCOPES)
    {
        if allowed.iter().any(|a| a == scope) && !granted.iter().any(|g| g == scope) {
            granted.push(scope.to_owned());
        }
    }
    (!granted.is_empty()).then_some(granted)
}

fn challenge(parameters: &Parameters) -> Result<[u8; 32], &'static str> {
    let challenge =
        parameters.get("code_challenge").ok_or("code_challenge is missing; PKCE with S256 is required")?;
    if parameters.get("code_challenge_method") != Some("S256") {
        return Err("code_challenge_method must be S256");
    }
    let bytes =
        URL_SAFE_NO_PAD.decode(challenge).map_err(|_| "code_challenge is not base64url without padding")?;
    bytes.try_into().map_err(|_| "code_challenge must be the SHA-256 of the verifier")
}

fn prompt(parameters: &Parameters) -> Result<Prompt, &'static str> {
    let mut prompt = Prompt::default();
    for value in parameters.get("prompt").unwrap_or_default().split(' ').filter(|v| !v.is_empty()) {
        match value {
            "none" => prompt.none = true,
            // Choosing an account means signing in: a browser has one session here.
            "login" | "select_account" => prompt.login = true,
            "consent" => prompt.consent = true,
            _ => return Err("prompt has a value that is not known"),
        }
    }
    if prompt.none && (prompt.login || prompt.consent) {
        return Err("prompt=none goes with nothing else");
    }
    Ok(prompt)
}
