//! Claims about a user, by scope (OIDC Core §5.4) and by name (§5.5). ID token and userinfo use the same claims.
//! Unknown values are left out.
//!
//! Claims without a field in the directory are taken from the user's attribute with the claim's name.

use conclave_state::{State, user::User};
use serde_json::{Map, Value, json};

use conclave_auth::picture;

/// Claims about the token and the sign-in, besides those about the user.
const OF_TOKENS: [&str; 12] =
    ["iss", "sub", "aud", "exp", "iat", "jti", "nonce", "auth_time", "acr", "amr", "sid", "at_hash"];

const PROFILE: &[&str] = &[
    "name",
    "family_name",
    "given_name",
    "middle_name",
    "nickname",
    "preferred_username",
    "profile",
    "picture",
    "website",
    "gender",
    "birthdate",
    "zoneinfo",
    "locale",
    "updated_at",
    // For users linked on the Atmosphere; not part of a standard.
    "atproto_did",
    "atproto_handle",
];

/// The claims of each scope.
const SCOPES: [(&str, &[&str]); 5] = [
    ("profile", PROFILE),
    ("email", &["email", "email_verified"]),
    ("address", &["address"]),
    ("phone", &["phone_number", "phone_number_verified"]),
    ("groups", &["groups"]),
];

/// The members of the address claim (OIDC Core §5.1.1), and the attributes that they come from.
const ADDRESS: [(&str, &str); 6] = [
    ("formatted", "address"),
    ("street_address", "street_address"),
    ("locality", "locality"),
    ("region", "region"),
    ("postal_code", "postal_code"),
    ("country", "country"),
];

/// All claims about a user that may be disclosed.
fn about_people() -> impl Iterator<Item = &'static str> {
    SCOPES.iter().flat_map(|(_, names)| names.iter().copied())
}

/// The supported claims, for discovery.
pub(crate) fn supported() -> Vec<&'static str> {
    OF_TOKENS.into_iter().chain(about_people()).collect()
}

/// True if the claims parameter may name this claim: all claims about a user, and `acr`.
pub(crate) fn may_be_named(name: &str) -> bool {
    name == "acr" || about_people().any(|known| known == name)
}

/// The subject of claims, in one version of the state.
pub(crate) struct ClaimSubject<'a> {
    pub user: &'a User,
    pub state: &'a State,
    /// The issuer, under which the user's picture is published.
    pub issuer: &'a str,
}

/// The claims that these scopes disclose.
pub(crate) fn of(person: &ClaimSubject<'_>, scopes: &[String]) -> Map<String, Value> {
    let mut claims = Map::new();
    claims.insert("sub".into(), json!(person.user.id.to_string()));
    let granted = SCOPES.iter().filter(|(scope, _)| scopes.iter().any(|s| s == scope));
    put(&mut claims, person, granted.flat_map(|(_, names)| names.iter().copied()));
    claims
}

/// Adds the claims requested by name.
pub(crate) fn add_named(claims: &mut Map<String, Value>, person: &ClaimSubject<'_>, names: &[String]) {
    put(claims, person, names.iter().map(String::as_str));
}

fn put<'a>(claims: &mut Map<String, Value>, person: &ClaimSubject<'_>, names: impl Iterator<Item = &'a str>) {
    for name in names {
        if let Some(value) = value(person, name) {
            claims.insert(name.to_owned(), value);
        }
    }
}

fn value(person: &ClaimSubject<'_>, name: &str) -> Option<Value> {
    let (user, state) = (person.user, person.state);
    match name {
        "name" => {
            let name = if user.display_name.is_empty() { &*user.username } else { &user.display_name };
            Some(json!(name))
        }
        "preferred_username" => Some(json!(&*user.username)),
        "nickname" => Some(json!(attribute(user, name).unwrap_or(&user.username))),
        "updated_at" => Some(json!(user.updated_at.0 / 1_000)),
        "email" => (!user.email.is_empty()).then(|| json!(user.email)),
        "email_verified" => (!user.email.is_empty()).then(|| json!(user.email_verified)),
        "phone_number_verified" => {
            attribute(user, "phone_number")?;
            Some(json!(attribute(user, name) == Some("true")))
        }
        "address" => address(user),
        "atproto_did" => Some(json!(&*state.atmosphere_of(user.id)?.subject)),
        "atproto_handle" => Some(json!(&*state.atmosphere_of(user.id)?.handle.as_ref()?.0)),
        "groups" => Some(json!(state.group_names_of(user).collect::<Vec<&str>>())),
        "picture" => Some(json!(picture_url(person)?)),
        "family_name" | "given_name" | "middle_name" | "profile" | "website" | "gender" | "birthdate"
        | "zoneinfo" | "locale" | "phone_number" => attribute(user, name).map(|text| json!(text)),
        _ => None,
    }
}

/// The picture's address: set by an administrator, or the user's picture from elsewhere that is published here.
fn picture_url(person: &ClaimSubject<'_>) -> Option<String> {
    if let Some(url) = attribute(person.user, "picture") {
        return Some(url.to_owned());
    }
    let shown = person.state.picture_of(person.user.id)?;
    Some(format!("{}{}", person.issuer, picture::path(shown.id())))
}

fn attribute<'a>(user: &'a User, name: &str) -> Option<&'a str> {
    let found = user.attributes.iter().find(|(known, value)| known == name && !value.is_empty());
    found.map(|(_, value)| value.as_str())
}

fn address(user: &User) -> Option<Value> {
    let members: Map<String, Value> = ADDRESS
        .iter()
        .filter_map(|(member, name)| Some(((*member).to_owned(), json!(attribute(user, name)?))))
        .collect();
    (!members.is_empty()).then_some(Value::Object(members))
}
