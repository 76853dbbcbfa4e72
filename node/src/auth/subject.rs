//! What a person is called towards a client (OIDC Core §8): everywhere the same, or by a name for its sector alone, so
//! that two applications cannot compare notes. Pairwise names are derived under a key of the cluster: the same from
//! every node, after every restore, and stored nowhere.

use conclave_state::{client::Client, user::User};

use conclave_crypto::{hex, keys::Key, mac};

use super::{Auth, AuthError};

impl Auth {
    /// The `sub` of this person for this client.
    ///
    /// # Errors
    /// When the key that made pairwise names cannot be opened: another name would be another person to its relying
    /// party.
    pub fn subject(&self, client: &Client, user: &User) -> Result<String, AuthError> {
        match client.tokens.pairwise_sector.as_str() {
            "" => Ok(user.id.to_string()),
            sector => Ok(pairwise(&self.pairwise_key()?, sector, user.id.bytes())),
        }
    }
}

fn pairwise(key: &Key, sector: &str, user: &[u8; 16]) -> String {
    hex::encode(&mac::hmac_sha256(key, &[b"pairwise", sector.as_bytes(), user]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_depends_on_the_sector_and_the_person_and_tells_neither() {
        let key = Key::new([1; 32]);
        let name = pairwise(&key, "a.test", &[7; 16]);
        assert_eq!(name, pairwise(&key, "a.test", &[7; 16]));
        assert_eq!(name.len(), 64);
        assert_ne!(name, pairwise(&key, "b.test", &[7; 16]));
        assert_ne!(name, pairwise(&key, "a.test", &[8; 16]));
        assert_ne!(name, pairwise(&Key::new([2; 32]), "a.test", &[7; 16]));
        assert!(!name.contains("0707"));
    }
}
