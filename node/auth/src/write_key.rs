//! Ids and secrets of a write, derived from its request id under a key of the cluster.
//!
//! A load balancer may send the same request to another node when the first died before answering. The second node must
//! then make the *same* command and the same cookie, or the retry would be answered with a secret it does not know.
//! Randomness therefore enters once, as the request id; with an `Idempotency-Key` header even that is the same on every
//! node.

use conclave_state::ids::RequestId;

use conclave_base::runtime::Entropy;
use conclave_crypto::{handle::HandleSecret, keys::Key, mac};

/// Maximum length of an accepted `Idempotency-Key`; a longer one is treated as absent.
const MAX_KEY_BYTES: usize = 128;

/// The request id of a write, and the source of all random values in it.
#[derive(Clone)]
pub struct WriteKey {
    key: Key,
    request: RequestId,
}

impl WriteKey {
    /// A write key with a fresh random request id.
    pub fn fresh(key: &Key, entropy: &dyn Entropy) -> Self {
        Self { key: key.clone(), request: RequestId::new(entropy.bytes()) }
    }

    /// The write key that an idempotency key always gives for this purpose and these parameters. Without a usable key
    /// it is fresh. The parameters are part of the write key, so an attacker who sees a key cannot use it for another
    /// request.
    pub fn of_request(
        key: &Key,
        idempotency_key: Option<&str>,
        parts: &[&[u8]],
        entropy: &dyn Entropy,
    ) -> Self {
        let usable = idempotency_key.filter(|k| !k.is_empty() && k.len() <= MAX_KEY_BYTES);
        let Some(idempotency_key) = usable else { return Self::fresh(key, entropy) };
        let mut material: Vec<Vec<u8>> = vec![mac::sha256(idempotency_key.as_bytes()).to_vec()];
        // Hashed one by one, so that bytes cannot move from one part to the next.
        material.extend(parts.iter().map(|part| mac::sha256(part).to_vec()));
        let joined = material.concat();
        let request = first_16(mac::hmac_sha256(key, &[b"request", &joined]));
        Self { key: key.clone(), request: RequestId::new(request) }
    }

    /// The write key that these parts always give, on any node. For a step of a flow that one browser does once: a
    /// repeated request makes the same write and gets the first reply.
    pub fn of_step(key: &Key, parts: &[&[u8]]) -> Self {
        let material: Vec<Vec<u8>> = parts.iter().map(|part| mac::sha256(part).to_vec()).collect();
        let request = first_16(mac::hmac_sha256(key, &[b"step", &material.concat()]));
        Self { key: key.clone(), request: RequestId::new(request) }
    }

    /// The write key of the write that follows this one in the same request. Two writes with one request id would
    /// count as retries of each other.
    #[must_use]
    pub fn then(&self, label: &str) -> Self {
        Self { key: self.key.clone(), request: RequestId::new(first_16(self.bytes(b"then", label))) }
    }

    pub const fn request(&self) -> RequestId {
        self.request
    }

    /// The id of the row called `label` in this write.
    pub fn id(&self, label: &str) -> [u8; 16] {
        first_16(self.bytes(b"id", label))
    }

    /// The secret of the row called `label` in this write.
    pub fn secret(&self, label: &str) -> HandleSecret {
        HandleSecret::new(self.bytes(b"secret", label))
    }

    fn bytes(&self, kind: &[u8], label: &str) -> [u8; 32] {
        mac::hmac_sha256(&self.key, &[kind, self.request.bytes(), label.as_bytes()])
    }
}

fn first_16(bytes: [u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_base::runtime::testing::SeededEntropy;

    fn of(idempotency_key: Option<&str>, parts: &[&[u8]]) -> WriteKey {
        WriteKey::of_request(&Key::new([1; 32]), idempotency_key, parts, &*SeededEntropy::new(1))
    }

    #[test]
    fn the_same_request_makes_the_same_write_on_any_node() {
        let (a, b) = (of(Some("k"), &[b"x", b"y"]), of(Some("k"), &[b"x", b"y"]));
        assert_eq!(a.request(), b.request());
        assert_eq!(a.id("session"), b.id("session"));
        assert_eq!(a.secret("session").expose(), b.secret("session").expose());
    }

    #[test]
    fn another_key_parameter_or_label_makes_another() {
        let base = of(Some("k"), &[b"x", b"y"]);
        for other in [of(Some("l"), &[b"x", b"y"]), of(Some("k"), &[b"xy", b""]), of(Some("k"), &[b"x"])] {
            assert_ne!(base.request(), other.request());
        }
        assert_ne!(base.id("session"), base.id("grant"));
        assert_ne!(base.secret("session").expose()[..16], base.id("session"));
    }

    #[test]
    fn a_step_is_named_by_its_parts_alone() {
        let key = Key::new([1; 32]);
        let step = |parts: &[&[u8]]| WriteKey::of_step(&key, parts);
        assert_eq!(step(&[b"login", b"t"]).request(), step(&[b"login", b"t"]).request());
        assert_ne!(step(&[b"login", b"t"]).request(), step(&[b"logi", b"nt"]).request());
        assert_ne!(step(&[b"login", b"t"]).request(), of(Some("login"), &[b"t"]).request());
    }

    #[test]
    fn without_a_usable_key_every_request_is_its_own() {
        let entropy = SeededEntropy::new(7);
        let long = "k".repeat(MAX_KEY_BYTES + 1);
        for unusable in [None, Some(""), Some(long.as_str())] {
            let make = || WriteKey::of_request(&Key::new([1; 32]), unusable, &[b"x"], &*entropy).request();
            assert_ne!(make(), make());
        }
    }
}
