//! The claims of a provider about a user, read by the configured names.

use conclave_state::upstream::Claims;
use serde_json::{Map, Value};

use super::{UpstreamError, id_token::seconds};

/// Maximum length of a text taken over from a provider, characters.
const MAX_CHARS: usize = 64;
/// Maximum length of an e-mail address (RFC 5321 §4.5.3.1.3).
const MAX_EMAIL_BYTES: usize = 254;

/// A user's identity at a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamIdentity {
    pub subject: String,
    pub username: String,
    pub name: String,
    pub email: String,
    /// As the provider states.
    pub email_verified: bool,
    /// The time of the user's authentication there, as the provider states.
    pub auth_time_secs: Option<u64>,
    /// On the Atmosphere: the handle, verified just now; empty if there is none.
    pub verified_handle: String,
    /// SHA-256 of the token with which the first user is admitted; empty if none was presented.
    pub first_token_hash: Vec<u8>,
}

impl UpstreamIdentity {
    /// Reads the claims. The subject may be a number, as with plain OAuth 2.0 providers.
    pub(super) fn read(claims: &Map<String, Value>, names: &Claims) -> Result<Self, UpstreamError> {
        let find = |name: &str, usual: &str| claims.get(if name.is_empty() { usual } else { name });
        let subject = match find(&names.subject, "sub") {
            Some(Value::String(text)) if !text.is_empty() => text.clone(),
            Some(Value::Number(number)) if number.is_u64() => number.to_string(),
            _ => return Err(UpstreamError::Answer("it names no subject for the user".into())),
        };
        let text = |name: &str, usual: &str| {
            let text = find(name, usual).and_then(Value::as_str).unwrap_or_default();
            text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect::<String>()
        };
        let email = find(&names.email, "email").and_then(Value::as_str).unwrap_or_default();
        let email = if is_address(email) { email.to_owned() } else { String::new() };
        // Some providers send it as a string.
        let verified = find(&names.email_verified, "email_verified");
        let verified = verified.is_some_and(|value| value == &Value::Bool(true) || value == "true");
        Ok(Self {
            subject,
            username: text(&names.username, "preferred_username"),
            name: text(&names.name, "name"),
            email_verified: verified && !email.is_empty(),
            email,
            auth_time_secs: seconds(claims, "auth_time"),
            ..Self::default()
        })
    }

    /// Fills in the values that are missing here from `other`.
    pub(super) fn fill(&mut self, other: Self) {
        if self.username.is_empty() {
            self.username = other.username;
        }
        if self.name.is_empty() {
            self.name = other.name;
        }
        // The address and its verification must come from one source.
        if self.email.is_empty() {
            (self.email, self.email_verified) = (other.email, other.email_verified);
        }
    }

    /// The display name of the identity. A DID without a verified handle is shown as the DID itself: its owner can
    /// claim any name, including another user's handle.
    pub fn label(&self) -> &str {
        let shown = if self.subject.starts_with("did:") { "" } else { self.name.as_str() };
        [self.verified_handle.as_str(), &self.email, &self.username, shown]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or(&self.subject)
    }

    /// A username from the known values: the provider's username, the local part of the e-mail address, or the
    /// provider's name with a suffix.
    pub(super) fn wanted_username(&self, upstream: &str) -> String {
        let local = self.email.split_once('@').map(|(local, _)| local).unwrap_or_default();
        let usable = |text: &str| {
            let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            text.to_ascii_lowercase().chars().filter(fits).take(48).collect::<String>()
        };
        let candidates = [usable(&self.username), usable(local)];
        let fallback = || format!("{upstream}-user");
        candidates.into_iter().find(|text| !text.is_empty()).unwrap_or_else(fallback)
    }
}

fn is_address(text: &str) -> bool {
    let shaped =
        text.split_once('@').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains('@'));
    shaped && text.len() <= MAX_EMAIL_BYTES && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(claims: &Value, names: &Claims) -> Result<UpstreamIdentity, UpstreamError> {
        UpstreamIdentity::read(claims.as_object().unwrap(), names)
    }

    #[test]
    fn claims_are_read_by_their_configured_names() {
        let names = Claims { subject: "id".into(), username: "login".into(), ..Claims::default() };
        let claims = json!({"id": 583_231, "login": "Octo Cat!", "email": "octo@cat.test", "email_verified": "true", "sub": "x"});
        let identity = read(&claims, &names).unwrap();
        assert_eq!(
            (identity.subject.as_str(), identity.wanted_username("hub").as_str()),
            ("583231", "octocat")
        );
        assert!(identity.email_verified);
        assert_eq!(identity.label(), "octo@cat.test");
    }

    #[test]
    fn nobody_is_nobody_and_an_address_that_is_none_is_not_verified() {
        for nobody in
            [json!({}), json!({"sub": ""}), json!({"sub": null}), json!({"sub": 1.5}), json!({"sub": ["x"]})]
        {
            assert!(read(&nobody, &Claims::default()).is_err(), "{nobody}");
        }
        for email in ["", "x", "a@b@c", "a @b.test", "@b.test", "a@"] {
            let identity =
                read(&json!({"sub": "s", "email": email, "email_verified": true}), &Claims::default());
            assert!(!identity.unwrap().email_verified, "{email}");
        }
        let only =
            read(&json!({"sub": "s", "email": "a@b.test", "email_verified": "yes"}), &Claims::default());
        assert!(!only.unwrap().email_verified);
    }
}
