//! The subject identifier of a user for a client (OIDC Core §8): either one identifier for all clients, or a pairwise
//! one per sector, so that two applications cannot correlate their users. Pairwise identifiers are derived under a key
//! of the cluster. They are equal on every node and after every restore, and are not stored.

use conclave_state::{client::Client, user::User};

use conclave_crypto::{hex, keys::Key, mac};

use super::{Auth, AuthError};

impl Auth {
    /// The `sub` of this user for this client.
    ///
    /// # Errors
    /// Fails if the key of pairwise identifiers cannot be opened. A different identifier would be a different user to
    /// the relying party.
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
