//! Machine clients: their credentials in `Authorization`, and the challenge for requests without valid ones.
//!
//! The header is read only if the application's settings say so, and only after no session admitted the request. In all
//! other cases the header is for the application itself.

use std::{fmt::Write as _, sync::Arc};

use axum::http::{HeaderMap, HeaderValue, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use conclave_state::{
    application::{Application, CheckRules},
    ids::ApplicationId,
};

use conclave_auth::{AuthError, session::SignedIn};
use conclave_http::host::canonical_authority;

use super::{ForwardAuth, metadata::Original};

/// Credentials of a kind that the application accepts.
enum Credentials {
    Token(String),
    Password { username: String, password: String },
}

/// The result of checking the credentials.
pub(crate) enum MachineAuthentication {
    /// There were none, or none of a kind that is accepted here.
    Nothing,
    /// They authenticate this user.
    SignedIn(SignedIn),
    /// They are invalid; the reason is deliberately not reported.
    Refused,
}

/// True if a request has credentials that [`authenticate`] would check.
pub(crate) fn has_credentials(rules: CheckRules, headers: &HeaderMap) -> bool {
    matches!(read_credentials(rules, headers), Ok(Some(_)) | Err(()))
}

/// Checks the credentials of a request to `application`.
///
/// # Errors
/// Fails if this node cannot decide.
pub(crate) async fn authenticate(
    state: &ForwardAuth,
    original: &Original,
    application: &Application,
    headers: &HeaderMap,
) -> Result<MachineAuthentication, AuthError> {
    let credentials = match read_credentials(application.check, headers) {
        Ok(None) => return Ok(MachineAuthentication::Nothing),
        Err(()) => return Ok(MachineAuthentication::Refused),
        Ok(Some(credentials)) => credentials,
    };
    let known = match &credentials {
        Credentials::Token(token) => {
            let origin = original.url.origin();
            let for_us = |audience: &String| is_origin(audience, &origin);
            let found = state.tokens.authenticate(token).await?;
            found.filter(|found| found.audiences.iter().any(for_us)).map(|found| (found.signed_in, None))
        }
        Credentials::Password { username, password } => {
            let found = state.auth.app_password(username, password).await?;
            found.map(|found| (found.signed_in, found.only))
        }
    };
    Ok(match known {
        Some((signed_in, only)) if still_taken(&signed_in, &credentials, application.id, only) => {
            MachineAuthentication::SignedIn(signed_in)
        }
        _ => MachineAuthentication::Refused,
    })
}

/// True if an audience is this origin in any spelling: with the default port, a trailing slash, or in capitals.
fn is_origin(audience: &str, origin: &str) -> bool {
    let canonical = || {
        let (scheme, rest) = audience.split_once("://")?;
        let authority = canonical_authority(scheme, rest.strip_suffix('/').unwrap_or(rest))?;
        Some(format!("{scheme}://{authority}"))
    };
    audience == origin || canonical().is_some_and(|canonical| canonical == origin)
}

/// Repeats the checks in the version that is decided on: the one in which the header was parsed may be older.
fn still_taken(
    signed_in: &SignedIn,
    credentials: &Credentials,
    application: ApplicationId,
    only: Option<ApplicationId>,
) -> bool {
    let rules = signed_in.state.application(application).map(|found| found.check).unwrap_or_default();
    let kind = match credentials {
        Credentials::Token(_) => rules.bearer,
        Credentials::Password { .. } => rules.basic,
    };
    kind && only.is_none_or(|only| only == application)
}

/// Reads the credentials. `Err` means credentials of an accepted kind that are malformed, or two of them.
fn read_credentials(rules: CheckRules, headers: &HeaderMap) -> Result<Option<Credentials>, ()> {
    if !rules.bearer && !rules.basic {
        return Ok(None);
    }
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    let text = value.to_str().map_err(|_| ())?;
    let Some((scheme, rest)) = text.split_once(' ') else { return Ok(None) };
    if rules.bearer && scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Credentials::Token(rest.trim().to_owned())));
    }
    if rules.basic && scheme.eq_ignore_ascii_case("basic") {
        return basic(rest.trim()).map(Some).ok_or(());
    }
    Ok(None)
}

/// RFC 7617: the name ends at the first colon.
fn basic(text: &str) -> Option<Credentials> {
    let plain = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    let (username, password) = plain.split_once(':')?;
    Some(Credentials::Password { username: username.to_owned(), password: password.to_owned() })
}

/// The challenges for a program (RFC 6750 §3, RFC 7617 §2): one for each kind that the application accepts.
pub(crate) fn challenges(application: &Arc<Application>, refused: bool) -> Vec<HeaderValue> {
    let rules = application.check;
    let realm = format!("realm=\"{}\"", application.slug);
    let mut bearer = format!("Bearer {realm}");
    if refused {
        // Writing to a String does not fail.
        write!(bearer, ", error=\"invalid_token\"").ok();
    }
    let basic = format!("Basic {realm}, charset=\"UTF-8\"");
    let taken = [(rules.bearer, bearer), (rules.basic, basic)];
    let texts = taken.into_iter().filter_map(|(is_taken, text)| is_taken.then_some(text));
    texts.filter_map(|text| HeaderValue::from_str(&text).ok()).collect()
}
