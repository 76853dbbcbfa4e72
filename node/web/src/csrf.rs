//! Tokens that prove that a form was sent from our own page in one browser.
//!
//! Each browser holds a random id in a cookie of this host. The token in a form is a MAC over that id and the form's
//! name. A foreign site can neither read the cookie nor make the token, and a token of one form or browser is invalid
//! in another. Nothing is stored, so any node can check a token that another one made.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use conclave_base::runtime::Entropy;
use conclave_crypto::keys::Key;
use conclave_crypto::mac;

/// The cookie's own name, after the policy's prefix.
pub const COOKIE: &str = "browser";

/// Length of an id: 16 bytes in base64url.
const ID_LEN: usize = 22;

/// The id of one browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserId(String);

impl BrowserId {
    pub fn new(entropy: &dyn Entropy) -> Self {
        Self(URL_SAFE_NO_PAD.encode(entropy.bytes::<16>()))
    }

    /// Parses a cookie's value; `None` for anything that was not made here.
    pub fn parse(text: &str) -> Option<Self> {
        let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (text.len() == ID_LEN && text.bytes().all(alphabet)).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The token for `form` in this browser. Takes [`ClusterKeys::csrf`](conclave_crypto::keys::ClusterKeys::csrf).
pub fn token(key: &Key, browser: &BrowserId, form: &str) -> String {
    URL_SAFE_NO_PAD.encode(mac::hmac_sha256(key, &[b"csrf", form.as_bytes(), browser.0.as_bytes()]))
}

/// True if `presented` is the token for `form` in this browser.
pub fn is_valid(key: &Key, browser: &BrowserId, form: &str, presented: &str) -> bool {
    mac::equal(token(key, browser, form).as_bytes(), presented.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{BrowserId, is_valid, token};
    use conclave_base::runtime::testing::SeededEntropy;
    use conclave_crypto::keys::Key;

    #[test]
    fn a_token_holds_for_its_browser_form_and_cluster_only() {
        let entropy = SeededEntropy::new(1);
        let (one, other) = (BrowserId::new(entropy.as_ref()), BrowserId::new(entropy.as_ref()));
        let key = Key::new([1; 32]);
        let made = token(&key, &one, "login");
        assert!(is_valid(&key, &one, "login", &made));
        assert!(!is_valid(&key, &other, "login", &made));
        assert!(!is_valid(&key, &one, "logout", &made));
        assert!(!is_valid(&Key::new([2; 32]), &one, "login", &made));
        assert!(!is_valid(&key, &one, "login", ""));
    }

    #[test]
    fn only_ids_of_our_making_are_read() {
        let id = BrowserId::new(SeededEntropy::new(1).as_ref());
        assert_eq!(BrowserId::parse(id.as_str()), Some(id));
        for odd in ["", "short", "a b", &"ä".repeat(11), &"a".repeat(23)] {
            assert_eq!(BrowserId::parse(odd), None, "{odd}");
        }
    }
}
