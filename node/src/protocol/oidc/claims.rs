//! Claims about a person, by scope (OIDC Core §5.4). The same in ID token and userinfo, so that neither surprises.

use conclave_state::{State, user::User};
use serde_json::{Map, Value, json};

/// What discovery promises.
pub const CLAIMS_SUPPORTED: [&str; 17] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "auth_time",
    "nonce",
    "amr",
    "sid",
    "at_hash",
    "name",
    "preferred_username",
    "nickname",
    "updated_at",
    "email",
    "email_verified",
    "groups",
];

/// The claims that these scopes give away. What is not known is left out.
pub fn of(user: &User, state: &State, scopes: &[String]) -> Map<String, Value> {
    let has = |scope: &str| scopes.iter().any(|s| s == scope);
    let mut claims = Map::new();
    claims.insert("sub".into(), json!(user.id.to_string()));
    if has("profile") {
        let name = if user.display_name.is_empty() { &*user.username } else { &user.display_name };
        claims.insert("name".into(), json!(name));
        claims.insert("preferred_username".into(), json!(&*user.username));
        claims.insert("nickname".into(), json!(&*user.username));
        claims.insert("updated_at".into(), json!(user.updated_at.0 / 1_000));
    }
    if has("email") && !user.email.is_empty() {
        claims.insert("email".into(), json!(user.email));
        claims.insert("email_verified".into(), json!(user.email_verified));
    }
    if has("groups") {
        let groups: Vec<&str> = state.group_names_of(user).collect();
        claims.insert("groups".into(), json!(groups));
    }
    claims
}
