//! HMAC-SHA256, SHA-256 and equality in constant time.

use aws_lc_rs::{constant_time, digest, hmac};

use super::keys::Key;

/// The SHA-256 of `bytes`. Replicated state stores this for a secret that a browser or client holds.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    take(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// SHA-256 of the parts one after another, without their lengths.
pub fn sha256_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finish()
}

/// A SHA-256 that is fed piece by piece.
#[derive(Clone)]
pub struct Sha256(digest::Context);

impl Sha256 {
    /// The hash of nothing yet.
    #[expect(clippy::new_without_default, reason = "a hash is begun on purpose")]
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Adds the bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes that were added.
    pub fn finish(self) -> [u8; 32] {
        take(self.0.finish().as_ref())
    }
}

/// HMAC-SHA256 over `parts`. Each part is preceded by its length, so that ("ab", "c") and ("a", "bc") differ.
pub fn hmac_sha256(key: &Key, parts: &[&[u8]]) -> [u8; 32] {
    MacKey::new(key).hmac_sha256(parts)
}

/// A key that is used repeatedly: setting up the key is half the work of a short MAC.
#[derive(Clone, Debug)]
pub struct MacKey(hmac::Key);

impl MacKey {
    pub fn new(key: &Key) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// [`hmac_sha256`] under this key.
    pub fn hmac_sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        take(context.sign().as_ref())
    }
}

/// True if both have equal bytes; the time depends only on their lengths.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// The first `N` bytes of `from`; every caller passes at least that many.
pub fn take<const N: usize>(from: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, byte) in out.iter_mut().zip(from) {
        *to = *byte;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{equal, hmac_sha256, sha256};
    use crate::keys::Key;

    #[test]
    fn sha256_is_the_standard_one() {
        // FIPS 180-4, "abc".
        assert_eq!(sha256(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn parts_of_a_mac_do_not_run_into_each_other() {
        let key = Key::new([3; 32]);
        assert_ne!(hmac_sha256(&key, &[b"ab", b"c"]), hmac_sha256(&key, &[b"a", b"bc"]));
        assert_ne!(hmac_sha256(&key, &[b"ab"]), hmac_sha256(&Key::new([4; 32]), &[b"ab"]));
    }

    #[test]
    fn equality_looks_at_all_bytes_and_at_the_length() {
        assert!(equal(b"same", b"same"));
        assert!(!equal(b"same", b"samf"));
        assert!(!equal(b"same", b"samesame"));
    }
}
