//! Every key of the cluster, derived from the cluster secret by HKDF-SHA256 (RFC 5869) with one label each. A leak of
//! one key reveals nothing of another, and no key is used for two purposes.
//!
//! While a cluster changes from one secret to the next, a node holds a ring: the keys that it makes new data with, and
//! the keys whose data it also accepts (`docs/decisions/0017-secret-rotation.md`).

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use super::secret::{ClusterSecret, SECRET_LEN, SecretBytes, SecretRing};

/// A derived 32-byte key.
pub type Key = SecretBytes<SECRET_LEN>;

/// Names a secret without revealing it.
pub type KeyId = [u8; 16];

/// Separates these keys from those of any other use of this secret, and from a later derivation scheme.
const SALT: &[u8] = b"conclave/keys/v1";

/// The keys of one cluster. They are equal on every node with an equal secret.
#[derive(Clone)]
pub struct ClusterKeys {
    /// Seed of the Ed25519 key that signs the nodes' certificates.
    pub ca_seed: Key,
    /// Seals secrets held in replicated state (private signing keys) and snapshot files.
    pub sealing: Key,
    /// Seals multi-step login tickets.
    pub ticket: Key,
    /// Authenticates handles: session cookies, codes, refresh tokens.
    pub cookie_mac: Key,
    /// Derives the successor of a refresh token, so that an honest retry gets it again.
    pub refresh: Key,
    /// Derives the ids and secrets of a write from its request id, so that a retry on another node makes equal ones.
    pub request: Key,
    /// Seals opaque access tokens.
    pub access_token: Key,
    /// Authenticates the nonces that DPoP proofs must carry (RFC 9449 §8).
    pub dpop_nonce: Key,
    /// Makes pairwise subjects (OIDC Core §8.1). A relying party with pairwise subjects identifies users only by them.
    pub pairwise: Key,
    /// Binds CSRF tokens to a browser.
    pub csrf: Key,
    /// Authenticates the marks of browsers that have signed in before.
    pub device: Key,
    /// Authenticates the operator of a node to its own cluster before any token exists.
    pub operator: Key,
    /// Hashes the secrets of app passwords.
    pub app_password: Key,
    /// Authenticates the page tokens of the admin API.
    pub page: Key,
    /// Names the secret without revealing it: kept in the data directory and compared at start.
    pub secret_check: KeyId,
    /// The keys of the other secrets of the ring. Their own `accepted` is empty.
    accepted: Vec<ClusterKeys>,
}

impl ClusterKeys {
    /// The keys of a ring: new data are made with the current secret, and those of every secret are accepted. A secret
    /// that is named twice counts once.
    pub fn ring(ring: &SecretRing) -> Self {
        let mut keys = Self::derive(&ring.current);
        for secret in &ring.accepted {
            let other = Self::derive(secret);
            if keys.named(&other.secret_check).is_none() {
                keys.accepted.push(other);
            }
        }
        keys
    }

    /// The keys for new data, followed by those that are also accepted.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.accepted)
    }

    /// The keys that are accepted but not used for new data.
    pub fn accepted(&self) -> &[Self] {
        &self.accepted
    }

    /// The keys of the secret with this name, if it is in the ring.
    pub fn named(&self, id: &KeyId) -> Option<&Self> {
        self.all().find(|keys| keys.secret_check == *id)
    }

    /// True if `holds` is true for the current keys, or for any accepted ones. The accepted ones are tried only if the
    /// current ones fail.
    pub fn any(&self, holds: impl FnMut(&Self) -> bool) -> bool {
        self.all().any(holds)
    }

    pub fn derive(secret: &ClusterSecret) -> Self {
        let prk = Salt::new(HKDF_SHA256, SALT).extract(secret.expose());
        let key = |label| Key::new(expand(&prk, label));
        Self {
            ca_seed: key("cluster-ca-seed"),
            sealing: key("sealing"),
            ticket: key("login-ticket"),
            cookie_mac: key("handle-mac"),
            refresh: key("refresh-successor"),
            request: key("request-derivation"),
            access_token: key("access-token"),
            dpop_nonce: key("dpop-nonce"),
            pairwise: key("pairwise-subject"),
            csrf: key("csrf"),
            device: key("device-mark"),
            operator: key("operator"),
            app_password: key("app-password"),
            page: key("page-token"),
            secret_check: expand(&prk, "secret-check"),
            accepted: Vec::new(),
        }
    }
}

impl fmt::Debug for ClusterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKeys(secret)")
    }
}

struct OutputLen(usize);

impl KeyType for OutputLen {
    fn len(&self) -> usize {
        self.0
    }
}

#[expect(clippy::expect_used, reason = "HKDF fails only beyond 255 blocks of output; this asks for one")]
fn expand<const N: usize>(prk: &Prk, label: &str) -> [u8; N] {
    let mut out = [0; N];
    let info = [label.as_bytes()];
    prk.expand(&info, OutputLen(N)).and_then(|okm| okm.fill(&mut out)).expect("one block of HKDF");
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ClusterKeys;
    use crate::hex;
    use crate::secret::{ClusterSecret, SecretRing};

    fn keys(text: &str) -> ClusterKeys {
        ClusterKeys::derive(&ClusterSecret::parse(text).unwrap())
    }

    #[test]
    fn each_purpose_has_a_key_of_its_own() {
        let k = keys(&"0123456789abcdef".repeat(4));
        let all = [
            &k.ca_seed,
            &k.sealing,
            &k.ticket,
            &k.cookie_mac,
            &k.refresh,
            &k.access_token,
            &k.dpop_nonce,
            &k.pairwise,
            &k.csrf,
            &k.device,
            &k.operator,
            &k.page,
            &k.app_password,
        ];
        let distinct: BTreeSet<_> = all.iter().map(|key| *key.expose()).collect();
        assert_eq!(distinct.len(), all.len());
        assert!(all.iter().all(|key| key.expose()[..16] != k.secret_check));
    }

    #[test]
    fn keys_depend_on_the_secret_and_on_nothing_else() {
        let one = "0123456789abcdef".repeat(4);
        let other = "0123456789abcdee".repeat(4);
        assert_eq!(keys(&one).sealing.expose(), keys(&one).sealing.expose());
        assert_ne!(keys(&one).sealing.expose(), keys(&other).sealing.expose());
        assert_ne!(keys(&one).secret_check, keys(&other).secret_check);
    }

    #[test]
    fn a_ring_makes_with_one_and_accepts_of_all() {
        let secret = |text: &str| ClusterSecret::parse(&text.repeat(4)).unwrap();
        let (old, new) = (secret("0123456789abcdef"), secret("0123456789abcdee"));
        let ring = SecretRing { current: new.clone(), accepted: vec![old.clone(), new.clone()] };
        let ring = ClusterKeys::ring(&ring);
        let (old, new) = (ClusterKeys::derive(&old), ClusterKeys::derive(&new));
        assert_eq!(ring.secret_check, new.secret_check);
        assert_eq!(ring.all().count(), 2, "named twice, counted once");
        assert_eq!(ring.named(&old.secret_check).unwrap().csrf.expose(), old.csrf.expose());
        assert!(ring.any(|keys| keys.csrf.expose() == old.csrf.expose()));
        assert!(new.named(&old.secret_check).is_none());
    }

    #[test]
    fn the_derivation_is_frozen() {
        // A changed label or salt would lock every existing cluster out of its own data.
        let check = keys(&"0123456789abcdef".repeat(4)).secret_check;
        assert_eq!(hex::encode(&check), "498bf21c48bcb11968806fbb057a79f0");
    }
}
