//! Requirements and permissions for a client's authorization requests, and its logout notifications.

use conclave_proto::{command::v1 as pb, state::v1 as rows};

use super::{Client, wire};
use crate::{ids::SecretHash, level::EXCEPTIONS, reply::Refusal, text};

/// Requirements and permissions for a client's authorization requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestPolicy {
    /// Its logout tokens must carry `sid`; they always do.
    pub back_channel_logout_session_required: bool,
    /// Only pushed requests are accepted (RFC 9126 §6).
    pub must_be_pushed: bool,
    /// PKCE may be omitted if the request has a nonce (RFC 9700 §2.1.1). Has no effect for a public client.
    pub pkce_optional: bool,
    /// Values that it may name as `resource` (RFC 8707); exact strings.
    pub resources: Vec<String>,
    /// A page of the client that the browser loads when it signs out; empty = none.
    pub front_channel_logout_uri: String,
    /// For a self-registered client: the hash of the registration access token (RFC 7592).
    pub registration_token_hash: Option<SecretHash>,
    /// Exceptions that an administrator explicitly allowed this client.
    pub exceptions: Exceptions,
}

/// Exceptions that an administrator explicitly allowed a client beyond the general rules, and rules that are stricter
/// than the general ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each exception is allowed separately")]
pub struct Exceptions {
    /// A secret is accepted only by the registered method, not by header and body alike.
    pub strict_authentication: bool,
    /// Neither PKCE nor a nonce is required; never for a public client.
    pub pkce_without_nonce: bool,
    /// Redirect URIs may be plain http on private hosts; never those of a public client.
    pub allow_http: bool,
    /// Schemes without a dot that redirect URIs may have: lower case, at most 8, each at most 64 bytes.
    pub allowed_schemes: Vec<String>,
    /// Resources of access tokens if a request names none: a subset of [`RequestPolicy::resources`].
    pub default_resources: Vec<String>,
    /// Errors of the authorization endpoint carry no `iss`.
    pub omit_error_issuer: bool,
}

/// Most schemes of one client: one for each platform, and room for more.
const MAX_SCHEMES: usize = 8;
/// Longest scheme.
const MAX_SCHEME_BYTES: usize = 64;
/// Schemes that a browser runs, shows or handles itself: a code sent there would be lost or leaked.
const NEVER_ALLOWED: [&str; 12] = [
    "about",
    "blob",
    "data",
    "file",
    "filesystem",
    "ftp",
    "http",
    "https",
    "javascript",
    "vbscript",
    "ws",
    "wss",
];

impl Exceptions {
    /// Reads the exceptions. Only from the level on at which every member reads the fields: an older member would store
    /// the client without them.
    fn of(command: &pb::CreateClient, level: u32) -> Result<Self, Refusal> {
        if level < EXCEPTIONS {
            return Ok(Self::default());
        }
        Ok(Self {
            strict_authentication: command.strict_authentication,
            pkce_without_nonce: command.pkce_without_nonce,
            allow_http: command.allow_http,
            allowed_schemes: parse_schemes(&command.allowed_schemes)?,
            default_resources: wire::parse_uris("default_resources", &command.default_resources)?,
            omit_error_issuer: command.omit_error_issuer,
        })
    }

    fn of_row(row: &rows::ClientRow) -> Self {
        Self {
            strict_authentication: row.strict_authentication,
            pkce_without_nonce: row.pkce_without_nonce,
            allow_http: row.allow_http,
            allowed_schemes: row.allowed_schemes.clone(),
            default_resources: row.default_resources.clone(),
            omit_error_issuer: row.omit_error_issuer,
        }
    }

    fn change(&mut self, command: &pb::UpdateClient) -> Result<(), Refusal> {
        if let Some(strict) = command.strict_authentication {
            self.strict_authentication = strict;
        }
        if let Some(without) = command.pkce_without_nonce {
            self.pkce_without_nonce = without;
        }
        if let Some(http) = command.allow_http {
            self.allow_http = http;
        }
        if let Some(omit) = command.omit_error_issuer {
            self.omit_error_issuer = omit;
        }
        if let Some(list) = &command.allowed_schemes {
            self.allowed_schemes = parse_schemes(&list.scopes)?;
        }
        if let Some(list) = &command.default_resources {
            self.default_resources = wire::parse_uris("default_resources", &list.uris)?;
        }
        Ok(())
    }
}

fn parse_schemes(schemes: &[String]) -> Result<Vec<String>, Refusal> {
    if schemes.len() > MAX_SCHEMES {
        return Err(Refusal::malformed(format!("at most {MAX_SCHEMES} schemes of its own")));
    }
    schemes.iter().map(|scheme| parse_scheme(scheme)).collect()
}

fn parse_scheme(scheme: &str) -> Result<String, Refusal> {
    let scheme = text::required("scheme", scheme, MAX_SCHEME_BYTES)?;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.');
    if !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.chars().all(fits) {
        return Err(Refusal::malformed(format!(
            "the scheme {scheme:?} must begin with a lower-case letter and hold lower-case letters, digits, '+', '-' and '.' only"
        )));
    }
    if NEVER_ALLOWED.contains(&scheme.as_str()) {
        return Err(Refusal::malformed(format!("the scheme {scheme} cannot be an application's own")));
    }
    Ok(scheme)
}

/// Checks that only a client that can authenticate has the exceptions that need it, and that the fields agree with each
/// other.
pub(super) fn fits(client: &Client) -> Result<(), Refusal> {
    let Exceptions { pkce_without_nonce, allow_http, default_resources, .. } = &client.requests.exceptions;
    if client.is_public() && (*pkce_without_nonce || *allow_http) {
        return Err(Refusal::malformed(
            "a public client cannot do without PKCE, nor with plain http: a code that another program or a neighbour reads would be enough",
        ));
    }
    match default_resources.iter().find(|one| !client.requests.resources.contains(one)) {
        Some(foreign) => Err(Refusal::malformed(format!(
            "the default resource {foreign} is not one of the client's resources; name it there, too"
        ))),
        None => Ok(()),
    }
}

impl RequestPolicy {
    pub(super) fn of(command: &pb::CreateClient, level: u32) -> Result<Self, Refusal> {
        Ok(Self {
            back_channel_logout_session_required: command.back_channel_logout_session_required,
            must_be_pushed: command.require_pushed_authorization_requests,
            pkce_optional: command.pkce_optional,
            resources: wire::parse_uris("resources", &command.resources)?,
            front_channel_logout_uri: parse_front_uri(&command.front_channel_logout_uri)?,
            registration_token_hash: parse_hash(&command.registration_token_hash)?,
            exceptions: Exceptions::of(command, level)?,
        })
    }

    pub(super) fn of_row(row: &rows::ClientRow) -> Result<Self, Refusal> {
        Ok(Self {
            back_channel_logout_session_required: row.back_channel_logout_session_required,
            must_be_pushed: row.require_pushed_authorization_requests,
            pkce_optional: row.pkce_optional,
            resources: row.resources.clone(),
            front_channel_logout_uri: row.front_channel_logout_uri.clone(),
            registration_token_hash: parse_hash(&row.registration_token_hash)?,
            exceptions: Exceptions::of_row(row),
        })
    }
}

fn parse_front_uri(uri: &str) -> Result<String, Refusal> {
    text::line("front_channel_logout_uri", uri, text::MAX_URI_BYTES)
}

fn parse_hash(bytes: &[u8]) -> Result<Option<SecretHash>, Refusal> {
    if bytes.is_empty() { Ok(None) } else { SecretHash::parse(bytes).map(Some) }
}

pub(super) fn parse_logout_uri(uri: &str) -> Result<String, Refusal> {
    text::line("back_channel_logout_uri", uri, text::MAX_URI_BYTES)
}

/// Changes the fields that the command sets; the rest stays.
pub(super) fn change(client: &mut Client, command: &pb::UpdateClient, level: u32) -> Result<(), Refusal> {
    if let Some(uri) = &command.back_channel_logout_uri {
        client.back_channel_logout_uri = parse_logout_uri(uri)?;
    }
    let requests = &mut client.requests;
    if let Some(required) = command.back_channel_logout_session_required {
        requests.back_channel_logout_session_required = required;
    }
    if let Some(required) = command.require_pushed_authorization_requests {
        requests.must_be_pushed = required;
    }
    if let Some(optional) = command.pkce_optional {
        requests.pkce_optional = optional;
    }
    if let Some(uri) = &command.front_channel_logout_uri {
        requests.front_channel_logout_uri = parse_front_uri(uri)?;
    }
    if let Some(resources) = &command.resources {
        requests.resources = wire::parse_uris("resources", &resources.uris)?;
    }
    if level >= EXCEPTIONS {
        requests.exceptions.change(command)?;
    }
    Ok(())
}
