//! Sealing of small values: login tickets that a browser carries, and secrets kept in replicated state.
//!
//! AES-256-GCM-SIV (RFC 8452) with a random 96-bit nonce. If chance or a cloned virtual machine ever repeats a nonce,
//! this reveals only if two plaintexts were equal; with plain GCM it would reveal the authentication key. According to
//! RFC 8452 §6, a key may be used for 2^50 messages of our size.
//!
//! Layout: `version (1) | key id (4) | nonce (12) | ciphertext | tag (16)`.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use zeroize::Zeroizing;

use super::keys::{ClusterKeys, Key};
use super::mac;
use conclave_base::runtime::Entropy;

const VERSION: u8 = 1;
const KEY_ID_LEN: usize = 4;
const HEADER_LEN: usize = 1 + KEY_ID_LEN + NONCE_LEN;
const TAG_LEN: usize = 16;

/// The bytes that sealing adds to a plaintext.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// Largest plaintext sealed in one piece. A private RSA key of 4096 bits has 2.4 KiB; files are sealed in chunks.
pub const MAX_PLAINTEXT: usize = 1 << 20;

/// The reason why a value could not be sealed or opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    #[error("{found} bytes are too many to seal in one piece; at most {MAX_PLAINTEXT}")]
    TooLong { found: usize },
    #[error("the sealed value is cut short or of a format this version does not know")]
    Malformed,
    #[error(
        "the value is sealed under the key {} and this node has no secret that gives it; name the file with the secret that it was sealed under in cluster.accept_secret_files",
        super::hex::encode(key_id)
    )]
    OtherKey { key_id: [u8; KEY_ID_LEN] },
    #[error("the sealed value was altered or belongs to another purpose")]
    Forged,
}

/// Seals under one key. Opens under that key and under the accepted ones.
#[derive(Debug)]
pub struct Sealer {
    key: LessSafeKey,
    key_id: [u8; KEY_ID_LEN],
    accepted: Vec<Sealer>,
}

impl Sealer {
    #[expect(clippy::expect_used, reason = "the only refusal is a key of another length than 32")]
    pub fn new(key: &Key) -> Self {
        let unbound = UnboundKey::new(&AES_256_GCM_SIV, key.expose()).expect("a key of 32 bytes");
        let key_id = mac::take(&mac::hmac_sha256(key, &[b"conclave/key-id"]));
        Self { key: LessSafeKey::new(unbound), key_id, accepted: Vec::new() }
    }

    /// Seals under the current key of the ring, and opens under any key of it.
    pub fn ring(keys: &ClusterKeys, key: impl Fn(&ClusterKeys) -> &Key) -> Self {
        let accepted = keys.accepted().iter().map(|keys| Self::new(key(keys))).collect();
        Self { accepted, ..Self::new(key(keys)) }
    }

    /// The value sealed again under the current key; `None` if it is already.
    ///
    /// # Errors
    /// An error if it does not open.
    pub fn renewed(
        &self,
        purpose: &str,
        sealed: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Option<Vec<u8>>, SealError> {
        if self.is_current(sealed) {
            return Ok(None);
        }
        let plain = Zeroizing::new(self.open(purpose, sealed)?);
        self.seal(purpose, &plain, entropy).map(Some)
    }

    /// True if a value is sealed under the current key. It may still not open.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        sealed.get(1..=KEY_ID_LEN) == Some(self.key_id.as_slice())
    }

    /// Seals `plaintext` for `purpose`, which names the kind of value and, if there is one, its row
    /// (`"signing-key/<kid>"`). A value that is moved elsewhere does not open there.
    pub fn seal(&self, purpose: &str, plaintext: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, SealError> {
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(SealError::TooLong { found: plaintext.len() });
        }
        let nonce: [u8; NONCE_LEN] = entropy.bytes();
        let mut body = plaintext.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), self.aad(purpose), &mut body)
            .map_err(|_| SealError::TooLong { found: plaintext.len() })?;
        let mut sealed = Vec::with_capacity(HEADER_LEN + body.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.key_id);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Opens a value that [`seal`](Self::seal) made for this purpose.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        if sealed.len() > MAX_PLAINTEXT + OVERHEAD {
            return Err(SealError::TooLong { found: sealed.len() });
        }
        let (version, rest) = sealed.split_first().ok_or(SealError::Malformed)?;
        let (key_id, rest) = rest.split_first_chunk::<KEY_ID_LEN>().ok_or(SealError::Malformed)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Malformed)?;
        if *version != VERSION || body.len() < TAG_LEN {
            return Err(SealError::Malformed);
        }
        if *key_id != self.key_id {
            let other = self.accepted.iter().find(|other| other.key_id == *key_id);
            return other.ok_or(SealError::OtherKey { key_id: *key_id })?.open(purpose, sealed);
        }
        let mut body = body.to_vec();
        let plaintext_len = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), self.aad(purpose), &mut body)
            .map_err(|_| SealError::Forged)?
            .len();
        body.truncate(plaintext_len);
        Ok(body)
    }

    fn aad(&self, purpose: &str) -> Aad<Vec<u8>> {
        Aad::from([&[VERSION], self.key_id.as_slice(), purpose.as_bytes()].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_PLAINTEXT, OVERHEAD, SealError, Sealer};
    use crate::keys::{ClusterKeys, Key};
    use crate::secret::{ClusterSecret, SecretRing};
    use conclave_base::runtime::testing::SeededEntropy;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&Key::new([byte; 32]))
    }

    #[test]
    fn a_sealed_value_opens_for_its_purpose_only() {
        let entropy = SeededEntropy::new(1);
        let sealed = sealer(1).seal("ticket", b"plain words", entropy.as_ref()).unwrap();
        assert_eq!(sealed.len(), b"plain words".len() + OVERHEAD);
        assert!(!sealed.windows(5).any(|w| w == b"plain"));
        assert_eq!(sealer(1).open("ticket", &sealed).unwrap(), b"plain words");
        assert_eq!(sealer(1).open("signing-key/a", &sealed), Err(SealError::Forged));
        assert!(matches!(sealer(2).open("ticket", &sealed), Err(SealError::OtherKey { .. })));
    }

    #[test]
    fn a_ring_opens_what_any_of_its_keys_sealed_and_seals_under_the_first() {
        let secret = |n| ClusterSecret::generate(SeededEntropy::new(n).as_ref());
        let ring = |current, accepted: &[u64]| {
            let accepted = accepted.iter().map(|n| secret(*n)).collect();
            let keys = ClusterKeys::ring(&SecretRing { current: secret(current), accepted });
            Sealer::ring(&keys, |keys| &keys.ticket)
        };
        let entropy = SeededEntropy::new(1);
        let (before, during, after) = (ring(1, &[]), ring(2, &[1]), ring(2, &[]));
        let old = before.seal("t", b"value", entropy.as_ref()).unwrap();
        assert_eq!(during.open("t", &old).unwrap(), b"value");
        assert!(!during.is_current(&old));
        assert_eq!(during.open("u", &old), Err(SealError::Forged), "for its purpose alone, as ever");
        let new = during.seal("t", b"value", entropy.as_ref()).unwrap();
        assert!(during.is_current(&new));
        assert_eq!(ring(1, &[2]).open("t", &new).unwrap(), b"value", "a node of the phase before");
        assert_eq!(after.open("t", &new).unwrap(), b"value");
        assert!(matches!(after.open("t", &old), Err(SealError::OtherKey { .. })));
    }

    #[test]
    fn each_sealing_differs() {
        let entropy = SeededEntropy::new(1);
        let seal = || sealer(1).seal("t", b"same", entropy.as_ref()).unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let sealed = sealer(1).seal("t", b"value", SeededEntropy::new(1).as_ref()).unwrap();
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(sealer(1).open("t", &altered).is_err(), "byte {at} altered");
            assert!(sealer(1).open("t", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_value_beyond_the_bound_is_refused() {
        let long = vec![0; MAX_PLAINTEXT + 1];
        let refused = sealer(1).seal("t", &long, SeededEntropy::new(1).as_ref());
        assert_eq!(refused, Err(SealError::TooLong { found: long.len() }));
    }
}
