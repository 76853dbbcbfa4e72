//! The headers of an admitted request: three profiles that applications know and an assertion of our own, always all of them, empty when there is nothing
//! to say. A header that is left out would let a client's own copy through in most proxies (reference: forward-auth.md §2).

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::{Auth, session::SignedIn};

/// Every name that is written.
pub const NAMES: [&str; 22] = [
    "x-authentik-username",
    "x-authentik-groups",
    "x-authentik-entitlements",
    "x-authentik-email",
    "x-authentik-name",
    "x-authentik-uid",
    "x-authentik-jwt",
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
    ASSERTION,
];

/// The signed assertion, where the application wants one.
pub const ASSERTION: &str = "x-conclave-assertion";
/// The same in the profile of authentik.
pub const AUTHENTIK_JWT: &str = "x-authentik-jwt";

/// Whether some server could read this name as one of ours, or as one of these that the policy adds: `_` or `.` in place of a dash.
/// Not the name itself.
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

/// The full set. None when a value cannot stand in a header: then nobody is let in (design.md P8).
pub fn headers(auth: &Auth, signed_in: &SignedIn, application: &str) -> Option<HeaderMap> {
    let user = &signed_in.user;
    let groups: Vec<&str> = signed_in.state.group_names_of(user).collect();
    let (piped, listed) = (groups.join("|"), groups.join(","));
    let name = if user.display_name.is_empty() { &*user.username } else { &user.display_name };
    let (uid, email) = (user.id.to_string(), signed_in.state.address_of(user));
    let jwks = auth.settings().public_url.join("/oidc/jwks");
    // The handle only while it is verified.
    let atmosphere = signed_in.state.atmosphere_of(user.id);
    let did = atmosphere.map_or("", |identity| &*identity.subject);
    let handle = atmosphere.and_then(|identity| identity.handle.as_ref()).map_or("", |(handle, _)| &**handle);
    let values = [
        &*user.username,
        &piped,
        "",
        email,
        name,
        &uid,
        "",
        &jwks,
        "conclave",
        "conclave",
        application,
        env!("CARGO_PKG_VERSION"),
        &user.username,
        &listed,
        name,
        email,
        &user.username,
        &listed,
        email,
        did,
        handle,
        "",
    ];
    let mut headers = HeaderMap::with_capacity(NAMES.len());
    for (name, value) in NAMES.iter().zip(values) {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    Some(headers)
}
