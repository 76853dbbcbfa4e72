//! One log line and one count for each refused request.
//!
//! The handler that refuses attaches a [`Denial`] to its response. The [`Edge`](super::Edge) writes the line when the
//! response leaves, so each event has exactly one line, on the node that answered. A refusal without a `Denial` (an
//! unknown path, a body that is too large) gets its reason from the status. `docs/logs.md` documents the fields, and
//! `deploy/fail2ban` and `deploy/crowdsec` parse them: their order and names do not change.
//!
//! Values that a client chose are truncated and escaped, so that no value can contain text that looks like another
//! field.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use axum::response::Response;
use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode, header};

use super::request_id::RequestId;

/// Maximum length of a user name or client id in a line, characters: longer than any that is registered in practice.
const MAX_SUBJECT_CHARS: usize = 128;
/// Maximum length of the sentence at the end of a line, characters.
const MAX_DETAIL_CHARS: usize = 512;
/// Maximum number of counted pairs of kind and reason. Both come from the code, which has fewer; the bound also holds
/// if that changes.
const MAX_COUNTED: usize = 1_024;
/// Maximum length of a form that is searched for the name of the user or client.
const MAX_FORM_BYTES: usize = 64 * 1024;

/// The reason why a request was refused, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The kind of request; `None` means the kind of the path.
    pub kind: Option<&'static str>,
    /// A stable code, such as `bad_credentials`.
    pub reason: &'static str,
    /// The user or client as presented; `None` means the one that the request names.
    pub subject: Option<String>,
    /// The cause and the remedy.
    pub detail: String,
}

impl Denial {
    /// A denial with this code and this sentence.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { kind: None, reason, subject: None, detail: detail.into() }
    }

    /// The denial of this user or client.
    #[must_use]
    pub fn of(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }

    /// Marks the response as this denial. A later mark replaces an earlier one.
    #[must_use]
    pub fn on<B>(self, mut response: http::Response<B>) -> http::Response<B> {
        response.extensions_mut().insert(Mark::Denied(self));
        response
    }
}

/// Marks the response as not a denial of its own: a normal step of a protocol, or a page about a denial that was
/// already logged.
#[must_use]
pub fn not_denied<B>(mut response: http::Response<B>) -> http::Response<B> {
    response.extensions_mut().insert(Mark::NotDenied);
    response
}

#[derive(Clone, Debug)]
enum Mark {
    Denied(Denial),
    NotDenied,
}

/// The parts of a request that a log line may need. Collected before the handler runs, parsed only if the request is
/// refused.
#[derive(Debug)]
pub(super) struct Presented {
    pub kind: &'static str,
    pub query: Option<String>,
    pub authorization: Option<http::HeaderValue>,
    /// The submitted form.
    pub form: std::sync::OnceLock<axum::body::Bytes>,
}

impl Presented {
    pub(crate) fn of(path: &str, query: Option<&str>, headers: &HeaderMap) -> Self {
        Self {
            kind: kind_of(path),
            query: query.map(str::to_owned),
            authorization: headers.get(header::AUTHORIZATION).cloned(),
            form: std::sync::OnceLock::new(),
        }
    }

    /// The user or client that the request names: the username in a form, or a client id.
    fn subject(&self) -> Option<String> {
        let form = self.form.get().filter(|form| form.len() <= MAX_FORM_BYTES);
        let form = form.map(AsRef::as_ref).unwrap_or_default();
        let query = self.query.as_deref().unwrap_or_default().as_bytes();
        let parameter = |name: &str| {
            let all = url::form_urlencoded::parse(form).chain(url::form_urlencoded::parse(query));
            all.into_iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, v)| v.into_owned())
        };
        parameter("username")
            .or_else(|| parameter("client_id"))
            .or_else(|| self.basic_user())
            .or_else(|| subject_of_assertion(&parameter("client_assertion")?))
    }

    fn basic_user(&self) -> Option<String> {
        let (scheme, credentials) = self.authorization.as_ref()?.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(BASE64_STANDARD.decode(credentials.trim()).ok()?).ok()?;
        text.split_once(':').map(|(user, _)| user.to_owned())
    }
}

/// The subject of a client assertion, unverified.
fn subject_of_assertion(jwt: &str) -> Option<String> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    claims.get("sub")?.as_str().map(str::to_owned)
}

/// The kind of request of a path, for the log.
fn kind_of(path: &str) -> &'static str {
    const KINDS: &[(&str, &str)] = &[
        ("/login", "sign_in"),
        ("/consent", "consent"),
        ("/device", "device"),
        ("/recover", "recovery"),
        ("/logout", "logout"),
        ("/upstream/", "provider"),
        ("/atproto/", "atmosphere"),
        ("/atmosphere", "atmosphere"),
        ("/oidc/authorize", "authorize"),
        ("/oidc/token", "token"),
        ("/oidc/par", "par"),
        ("/oidc/device_authorization", "device_authorization"),
        ("/oidc/register", "registration"),
        ("/oidc/userinfo", "userinfo"),
        ("/oidc/introspect", "introspection"),
        ("/oidc/revoke", "revocation"),
        ("/oidc/logout", "logout"),
        ("/auth/", "check"),
        ("/outpost.goauthentik.io/auth/", "check"),
    ];
    KINDS.iter().find(|(start, _)| path.starts_with(start)).map_or("page", |(_, kind)| kind)
}

/// Writes the line and counts the event, if this response is a denial.
pub(super) fn tell(response: &Response, presented: &Presented, address: IpAddr, id: &RequestId) {
    let denial = match response.extensions().get::<Mark>() {
        Some(Mark::NotDenied) => return,
        Some(Mark::Denied(denial)) => denial.clone(),
        None => match reason_of(response.status()) {
            Some(reason) => Denial::new(reason, "see the response to this request"),
            None => return,
        },
    };
    let kind = denial.kind.unwrap_or(presented.kind);
    let subject = denial.subject.clone().or_else(|| presented.subject());
    log(kind, denial.reason, &address.to_string(), subject.as_deref(), id.as_str(), &denial.detail);
}

/// The reason code of a status. A 503 without a mark (such as readiness) is not a denial of a client, but an error page
/// has a request id that the user may report.
fn reason_of(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::NOT_FOUND => Some("not_found"),
        StatusCode::METHOD_NOT_ALLOWED => Some("method_not_allowed"),
        StatusCode::PAYLOAD_TOO_LARGE => Some("body_too_large"),
        StatusCode::UNAUTHORIZED => Some("unauthorized"),
        StatusCode::FORBIDDEN => Some("forbidden"),
        StatusCode::TOO_MANY_REQUESTS => Some("too_many_attempts"),
        status if status.is_client_error() => Some("bad_request"),
        status if status.is_server_error() => Some("unavailable"),
        _ => None,
    }
}

/// Writes and counts one line, for callers other than HTTP handlers. `kind` and `reason` are constants of the code.
pub fn log(
    kind: &'static str,
    reason: &'static str,
    address: &str,
    subject: Option<&str>,
    id: &str,
    detail: &str,
) {
    count(kind, reason);
    let subject =
        subject.map_or_else(|| "-".to_owned(), |subject| escaped(subject, MAX_SUBJECT_CHARS, false));
    let detail = escaped(detail, MAX_DETAIL_CHARS, true);
    let id = if id.is_empty() { "-" } else { id };
    tracing::info!(
        target: "conclave::refusal",
        { kind = %kind, reason = %reason, client.address = %address, subject = %subject, request.id = %id, detail = %detail },
        "refused"
    );
}

/// Escapes text that a client chose for a log line: at most `most` characters. Characters that could end a value or a
/// line, or look like another field, are escaped. Spaces stay if `spaces` is true.
pub fn escaped(text: &str, most: usize, spaces: bool) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == most {
            out.push('…');
            break;
        }
        match c {
            ' ' if spaces => out.push(c),
            '"' | '\\' | '=' | '\'' => out.extend(c.escape_unicode()),
            c if c.is_whitespace() || c.is_control() => out.extend(c.escape_unicode()),
            // Direction marks and similar: `escape_debug` escapes what is not printable.
            c => out.extend(c.escape_debug()),
        }
    }
    if out.is_empty() { "-".to_owned() } else { out }
}

type Counts = BTreeMap<(&'static str, &'static str), u64>;

/// The counts of this process, which is one node.
static COUNTS: Mutex<Counts> = Mutex::new(BTreeMap::new());

fn count(kind: &'static str, reason: &'static str) {
    // A poisoned lock leaves no partial entry.
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    if counts.len() < MAX_COUNTED || counts.contains_key(&(kind, reason)) {
        let counted = counts.entry((kind, reason)).or_default();
        *counted = counted.saturating_add(1);
    }
}

/// The number of denials of this process, by kind and reason.
pub fn counts() -> Counts {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
#[path = "denial_tests.rs"]
mod tests;
