//! `aud` of an access token (RFC 9068 §2.2, RFC 8707): one audience is text, several are a list.

use serde::{Deserialize, Serialize};

/// The audience of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    /// The requested resources. With `openid` also the provider, whose userinfo endpoint accepts the token. Without a
    /// resource the provider alone.
    pub(crate) fn of(issuer: &str, resources: &[String], is_openid: bool) -> Self {
        match resources {
            [] => Self::One(issuer.to_owned()),
            [one] if !is_openid => Self::One(one.clone()),
            several => {
                let own = is_openid.then(|| issuer.to_owned());
                Self::Several(several.iter().cloned().chain(own).collect())
            }
        }
    }

    /// True if the token is for this audience.
    pub(crate) fn includes(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_for_resources_opens_userinfo_only_with_openid() {
        let api = ["https://api.test".to_owned()];
        let both = Audience::of("https://id.test", &api, true);
        assert!(both.includes("https://id.test") && both.includes("https://api.test"));
        assert_eq!(serde_json::to_string(&both).unwrap(), r#"["https://api.test","https://id.test"]"#);
        let one = Audience::of("https://id.test", &api, false);
        assert!(!one.includes("https://id.test"));
        assert_eq!(serde_json::to_string(&one).unwrap(), r#""https://api.test""#);
        assert!(Audience::of("https://id.test", &[], false).includes("https://id.test"));
    }
}
