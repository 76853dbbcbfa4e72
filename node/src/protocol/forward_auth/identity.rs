//! The headers of an admitted request: one of three profiles that applications know, and an assertion of our own.
//!
//! Every name is always written, and the names that the application did not choose are empty. A header that is left out
//! would let a client's own copy through in most proxies (reference: forward-auth.md §2).
//!
//! The answer has a bound, because proxies and applications have one: see [`MAX_HEAD_BYTES`]. The only part that can be
//! long is the list of groups; [`groups_of`] says which groups are left out, and [`GROUPS_OMITTED`] tells the
//! application how many.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use conclave_state::application::{Application, HeaderProfile, HeaderText};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::auth::{Auth, session::SignedIn};

/// Most bytes of the head of an answer to a check, with its status line, the assertion and the policy's extra headers.
/// The shipped proxy configurations take 32 KiB. An answer that would be longer is a refusal.
pub const MAX_HEAD_BYTES: usize = 24 * 1024;

/// Most bytes of a list of groups in one header. Many servers refuse a header line of more than 8 KiB.
const MAX_GROUPS_BYTES: usize = 4 * 1024;
/// The same where the application wants an assertion, which carries the list as well, in base64 and in up to two
/// headers.
const MAX_GROUPS_BYTES_BESIDE_ASSERTION: usize = 2 * 1024;

/// Every name that is written.
pub const NAMES: [&str; 23] = [
    "x-authentik-username",
    "x-authentik-groups",
    "x-authentik-entitlements",
    "x-authentik-email",
    "x-authentik-name",
    "x-authentik-uid",
    AUTHENTIK_JWT,
    "x-authentik-meta-jwks",
    "x-authentik-meta-outpost",
    "x-authentik-meta-provider",
    "x-authentik-meta-app",
    "x-authentik-meta-version",
    "remote-user",
    "remote-groups",
    "remote-name",
    "remote-email",
    "x-auth-request-user",
    "x-auth-request-groups",
    "x-auth-request-email",
    "x-conclave-atproto-did",
    "x-conclave-atproto-handle",
    GROUPS_OMITTED,
    ASSERTION,
];

/// How many of the user's groups did not fit; empty when all did.
pub const GROUPS_OMITTED: &str = "x-conclave-groups-omitted";
/// The signed assertion, where the application wants one.
pub const ASSERTION: &str = "x-conclave-assertion";
/// The assertion under the name of the authentik profile.
pub const AUTHENTIK_JWT: &str = "x-authentik-jwt";

/// Whether some server could read this name as one of ours, or as one of these that the policy adds: `_` or `.` in
/// place of a dash. Not the name itself.
pub fn is_look_alike(name: &str, extra: &[HeaderName]) -> bool {
    name.contains(['_', '.']) && {
        let plain = name.replace(['_', '.'], "-");
        let mut known = NAMES.iter().copied().chain(extra.iter().map(HeaderName::as_str));
        known.any(|known| known.eq_ignore_ascii_case(&plain))
    }
}

/// The full set for a request that nobody was asked about: every name, and nothing in it.
pub fn nobody() -> HeaderMap {
    NAMES.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static(""))).collect()
}

/// The groups that an application is told, and how many are left out because they do not fit.
pub struct Groups<'a> {
    pub names: Vec<&'a str>,
    pub omitted: usize,
}

/// The groups of the user that fit, whole names only. When all fit, they are in the state's order. Otherwise the groups
/// that the application's access rule names come first, then the others by name, up to the first that does not fit.
pub fn groups_of<'a>(signed_in: &'a SignedIn, application: &Application) -> Groups<'a> {
    let limit =
        if application.check.assertion { MAX_GROUPS_BYTES_BESIDE_ASSERTION } else { MAX_GROUPS_BYTES };
    let mut names: Vec<&str> = signed_in.state.group_names_of(&signed_in.user).collect();
    let taken = |names: &[&str]| names.iter().map(|name| name.len() + 1).sum::<usize>();
    if taken(&names) <= limit {
        return Groups { names, omitted: 0 };
    }
    let all = names.len();
    let is_in_rule = |name: &str| {
        let group = signed_in.state.group_by_name(name);
        group.is_some_and(|group| application.access.groups.contains(&group.id))
    };
    names.sort_by_cached_key(|name| (!is_in_rule(name), *name));
    let mut left = limit;
    let fits = |name: &&&str| {
        let rest = left.checked_sub(name.len() + 1);
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    let fitting = names.iter().take_while(fits).count();
    names.truncate(fitting);
    Groups { omitted: all - names.len(), names }
}

/// The full set. None when a value cannot stand in a header: then nobody is let in (design.md P8).
pub fn headers(auth: &Auth, signed_in: &SignedIn, application: &Application) -> Option<HeaderMap> {
    let (user, choice) = (&signed_in.user, application.identity_headers);
    let groups = groups_of(signed_in, application);
    if groups.omitted > 0 {
        tracing::warn!(
            user.name = %user.username,
            application = %application.slug,
            omitted = groups.omitted,
            "{} of the groups of {} do not fit into the headers for {} and were left out",
            groups.omitted, user.username, application.slug
        );
    }
    let name = if user.display_name.is_empty() { &*user.username } else { &user.display_name };
    let name = written(name, choice.text);
    let email = written(signed_in.state.address_of(user), choice.text);
    let mut headers = nobody();
    let mut write = |name: &'static str, value: &str| {
        let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        headers.insert(HeaderName::from_static(name), value);
        Some(())
    };
    let has = |profile| choice.profile == HeaderProfile::All || choice.profile == profile;
    if has(HeaderProfile::Authentik) {
        write("x-authentik-username", &user.username)?;
        write("x-authentik-groups", &groups.names.join("|"))?;
        write("x-authentik-email", &email)?;
        write("x-authentik-name", &name)?;
        write("x-authentik-uid", &user.id.to_string())?;
        write("x-authentik-meta-jwks", &auth.settings().public_url.join("/oidc/jwks"))?;
        write("x-authentik-meta-outpost", "conclave")?;
        write("x-authentik-meta-provider", "conclave")?;
        write("x-authentik-meta-app", &application.slug)?;
        write("x-authentik-meta-version", env!("CARGO_PKG_VERSION"))?;
    }
    if has(HeaderProfile::Remote) {
        write("remote-user", &user.username)?;
        write("remote-groups", &groups.names.join(","))?;
        write("remote-name", &name)?;
        write("remote-email", &email)?;
    }
    if has(HeaderProfile::AuthRequest) {
        write("x-auth-request-user", &user.username)?;
        write("x-auth-request-groups", &groups.names.join(","))?;
        write("x-auth-request-email", &email)?;
    }
    if let Some(identity) = signed_in.state.atmosphere_of(user.id) {
        write("x-conclave-atproto-did", &identity.subject)?;
        // The handle only while it is verified.
        write("x-conclave-atproto-handle", identity.handle.as_ref().map_or("", |(handle, _)| &**handle))?;
    }
    if groups.omitted > 0 {
        write(GROUPS_OMITTED, &groups.omitted.to_string())?;
    }
    Some(headers)
}

/// The names under which an application with this choice gets its assertion.
pub const fn assertion_names(profile: HeaderProfile) -> &'static [&'static str] {
    match profile {
        HeaderProfile::All | HeaderProfile::Authentik => &[ASSERTION, AUTHENTIK_JWT],
        HeaderProfile::Remote | HeaderProfile::AuthRequest => &[ASSERTION],
    }
}

/// Bytes that are not written as they are under [`HeaderText::Percent`]; all bytes outside ASCII are encoded anyway.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Text for people, as the application wants it in a header.
fn written(text: &str, how: HeaderText) -> Cow<'_, str> {
    match how {
        HeaderText::Raw => Cow::Borrowed(text),
        HeaderText::Percent => utf8_percent_encode(text, ENCODED).into(),
        HeaderText::Omit => Cow::Borrowed(if text.is_ascii() { text } else { "" }),
    }
}

/// How many bytes these headers take in the head of an answer, each with its colon, blank and line end.
pub fn bytes_of<'a>(headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> usize {
    headers.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_outside_ascii_is_written_as_the_application_wants_it() {
        for (how, text, value) in [
            (HeaderText::Raw, "Zoë 100%", "Zoë 100%"),
            (HeaderText::Percent, "Zoë 100%", "Zo%C3%AB 100%25"),
            (HeaderText::Percent, "Ada", "Ada"),
            (HeaderText::Omit, "Zoë", ""),
            (HeaderText::Omit, "Ada", "Ada"),
        ] {
            assert_eq!(written(text, how), value, "{how:?}");
        }
    }
}
