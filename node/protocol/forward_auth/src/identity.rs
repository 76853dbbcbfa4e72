//! The headers of an admitted request: one of three profiles that applications know, and Conclave's own assertion.
//!
//! Every name is always written; the names that the application did not choose are empty. A missing header would let a
//! client's own copy through in most proxies (docs/forward-auth.md).
//!
//! The size of the response is bounded, because proxies and applications have limits: see [`MAX_HEAD_BYTES`]. The only
//! part that can be long is the list of groups: [`groups_of`] decides which groups are omitted, and [`GROUPS_OMITTED`]
//! tells the application how many.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use conclave_state::application::{Application, HeaderProfile, HeaderText};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use conclave_auth::{Auth, session::SignedIn};

/// Maximum length of the head of a check's response, in bytes, with its status line, the assertion and the policy's
/// extra headers. The shipped proxy configurations accept 32 KiB. If the response would be longer, the request is
/// refused.
pub const MAX_HEAD_BYTES: usize = 24 * 1024;

/// Maximum length of a list of groups in one header, in bytes. Many servers refuse a header line of more than 8 KiB.
const MAX_GROUPS_BYTES: usize = 4 * 1024;
/// Maximum length of the list of groups if the application requires an assertion, in bytes. The assertion carries the
/// list as well, in base64 and in up to two headers.
const MAX_GROUPS_BYTES_BESIDE_ASSERTION: usize = 2 * 1024;

/// All header names that are written.
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

/// The number of the user's groups that did not fit; empty if all did.
pub(crate) const GROUPS_OMITTED: &str = "x-conclave-groups-omitted";
/// The signed assertion, if the application requires one.
pub(crate) const ASSERTION: &str = "x-conclave-assertion";
/// The assertion under the name of the authentik profile.
pub(crate) const AUTHENTIK_JWT: &str = "x-authentik-jwt";

/// True if a server could read this name as one of ours, or as one of the policy's extra headers: with `_` or `.` in
/// place of a dash. False for the name itself.
pub(crate) fn is_look_alike(name: &str, extra: &[HeaderName]) -> bool {
    name.contains(['_', '.']) && {
        let plain = name.replace(['_', '.'], "-");
        let mut known = NAMES.iter().copied().chain(extra.iter().map(HeaderName::as_str));
        known.any(|known| known.eq_ignore_ascii_case(&plain))
    }
}

/// All headers, empty, for a request whose user was not identified.
pub(crate) fn nobody() -> HeaderMap {
    NAMES.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static(""))).collect()
}

/// The groups sent to an application, and the number of those omitted because they do not fit.
pub(crate) struct Groups<'a> {
    pub names: Vec<&'a str>,
    pub omitted: usize,
}

/// The groups of the user that fit, whole names only. If all fit, they are in the state's order. Otherwise the groups
/// that the application's access rule names come first, then the others by name, up to the first that does not fit.
pub(crate) fn groups_of<'a>(signed_in: &'a SignedIn, application: &Application) -> Groups<'a> {
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

/// All headers for this user. `None` if a value cannot be written in a header; the request is then refused
/// (docs/design/README.md, P8).
pub(crate) fn headers(auth: &Auth, signed_in: &SignedIn, application: &Application) -> Option<HeaderMap> {
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

/// The header names that carry the assertion in this profile.
pub(crate) const fn assertion_names(profile: HeaderProfile) -> &'static [&'static str] {
    match profile {
        HeaderProfile::All | HeaderProfile::Authentik => &[ASSERTION, AUTHENTIK_JWT],
        HeaderProfile::Remote | HeaderProfile::AuthRequest => &[ASSERTION],
    }
}

/// Bytes that are encoded under [`HeaderText::Percent`]; bytes outside ASCII always are.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// A user's text in the encoding that the application requires.
fn written(text: &str, how: HeaderText) -> Cow<'_, str> {
    match how {
        HeaderText::Raw => Cow::Borrowed(text),
        HeaderText::Percent => utf8_percent_encode(text, ENCODED).into(),
        HeaderText::Omit => Cow::Borrowed(if text.is_ascii() { text } else { "" }),
    }
}

/// The bytes of these headers in the head of a response, each with its colon, blank and line end.
pub(crate) fn bytes_of<'a>(headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> usize {
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
