//! Programs: what they bring in `Authorization`, and how one that brought nothing good is asked for it.
//!
//! Looked at only where the application says so, and only after no session let the request in: anywhere else the header
//! is the application's own business.

use std::{fmt::Write as _, sync::Arc};

use axum::http::{HeaderMap, HeaderValue, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use conclave_state::{
    application::{Application, CheckRules},
    ids::ApplicationId,
};

use crate::auth::{AuthError, session::SignedIn};
use conclave_http::host::canonical_authority;

use super::{ForwardAuth, metadata::Original};

/// What a program brought, of a kind that the application takes.
enum Brought {
    Token(String),
    Password { username: String, password: String },
}

/// What became of it.
pub enum Judged {
    /// There was nothing, or nothing of a kind that is taken here.
    Nothing,
    /// It speaks for this person.
    SignedIn(SignedIn),
    /// It is no good: nobody's business why.
    Refused,
}

/// Whether a request brought something that [`judge`] would look at.
pub fn is_brought(rules: CheckRules, headers: &HeaderMap) -> bool {
    matches!(brought(rules, headers), Ok(Some(_)) | Err(()))
}

/// Whom it speaks for at `application`.
///
/// # Errors
/// When this node cannot tell.
pub async fn judge(
    state: &ForwardAuth,
    original: &Original,
    application: &Application,
    headers: &HeaderMap,
) -> Result<Judged, AuthError> {
    let brought = match brought(application.check, headers) {
        Ok(None) => return Ok(Judged::Nothing),
        Err(()) => return Ok(Judged::Refused),
        Ok(Some(brought)) => brought,
    };
    let known = match &brought {
        Brought::Token(token) => {
            let origin = original.url.origin();
            let for_us = |audience: &String| is_origin(audience, &origin);
            let found = state.tokens.judge(token).await?;
            found.filter(|found| found.audiences.iter().any(for_us)).map(|found| (found.signed_in, None))
        }
        Brought::Password { username, password } => {
            let found = state.auth.app_password(username, password).await?;
            found.map(|found| (found.signed_in, found.only))
        }
    };
    Ok(match known {
        Some((signed_in, only)) if still_taken(&signed_in, &brought, application.id, only) => {
            Judged::SignedIn(signed_in)
        }
        _ => Judged::Refused,
    })
}

/// Whether an audience is this origin, however it is written: with the usual port, a slash at its end, in capitals.
fn is_origin(audience: &str, origin: &str) -> bool {
    let canonical = || {
        let (scheme, rest) = audience.split_once("://")?;
        let authority = canonical_authority(scheme, rest.strip_suffix('/').unwrap_or(rest))?;
        Some(format!("{scheme}://{authority}"))
    };
    audience == origin || canonical().is_some_and(|canonical| canonical == origin)
}

/// In the version that is decided on: the one in which the header was looked at may be older.
fn still_taken(
    signed_in: &SignedIn,
    brought: &Brought,
    application: ApplicationId,
    only: Option<ApplicationId>,
) -> bool {
    let rules = signed_in.state.application(application).map(|found| found.check).unwrap_or_default();
    let kind = match brought {
        Brought::Token(_) => rules.bearer,
        Brought::Password { .. } => rules.basic,
    };
    kind && only.is_none_or(|only| only == application)
}

/// `Err`: something of a kind that is taken, which cannot be read, or two of them.
fn brought(rules: CheckRules, headers: &HeaderMap) -> Result<Option<Brought>, ()> {
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
        return Ok(Some(Brought::Token(rest.trim().to_owned())));
    }
    if rules.basic && scheme.eq_ignore_ascii_case("basic") {
        return basic(rest.trim()).map(Some).ok_or(());
    }
    Ok(None)
}

/// RFC 7617: the name ends at the first colon.
fn basic(text: &str) -> Option<Brought> {
    let plain = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    let (username, password) = plain.split_once(':')?;
    Some(Brought::Password { username: username.to_owned(), password: password.to_owned() })
}

/// What a program is asked for (RFC 6750 §3, RFC 7617 §2): one challenge for each kind that the application takes.
pub fn challenges(application: &Arc<Application>, refused: bool) -> Vec<HeaderValue> {
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
