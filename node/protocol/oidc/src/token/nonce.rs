//! Nonces for DPoP proofs (RFC 9449 §8): a time under a MAC. Nodes store no nonces, and each accepts those of every
//! other.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use conclave_crypto::{keys::Key, mac};

/// Lifetime of a nonce: long enough that a client seldom needs a new one, short enough that a proof made in advance
/// soon becomes worthless.
const LIFETIME_MS: u64 = 300_000;
/// Maximum lead of the clock of the node that made it.
const MAX_AHEAD_MS: u64 = 60_000;
const MAC_LEN: usize = 16;

/// A nonce for the current time.
pub(crate) fn make(key: &Key, now_ms: u64) -> String {
    let time = now_ms.to_be_bytes();
    URL_SAFE_NO_PAD.encode([time.as_slice(), &tag(key, time)].concat())
}

/// True if a node of this cluster made it, not too long ago.
pub(crate) fn is_good(key: &Key, now_ms: u64, nonce: &str) -> bool {
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else { return false };
    let Some((time, presented)) = bytes.split_first_chunk::<8>() else { return false };
    if !mac::equal(presented, &tag(key, *time)) {
        return false;
    }
    let made_ms = u64::from_be_bytes(*time);
    made_ms <= now_ms.saturating_add(MAX_AHEAD_MS) && now_ms < made_ms.saturating_add(LIFETIME_MS)
}

fn tag(key: &Key, time: [u8; 8]) -> [u8; MAC_LEN] {
    let full = mac::hmac_sha256(key, &[b"dpop-nonce", &time]);
    full.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_for_its_time_and_under_its_key_alone() {
        let key = Key::new([1; 32]);
        let nonce = make(&key, 1_000_000);
        assert!(is_good(&key, 1_000_000, &nonce) && is_good(&key, 1_000_000 + LIFETIME_MS - 1, &nonce));
        assert!(is_good(&key, 1_000_000 - MAX_AHEAD_MS, &nonce), "another node's clock");
        assert!(!is_good(&key, 1_000_000 + LIFETIME_MS, &nonce));
        assert!(!is_good(&key, 1_000_000 - MAX_AHEAD_MS - 1, &nonce));
        assert!(!is_good(&Key::new([2; 32]), 1_000_000, &nonce));
        for at in 0..nonce.len() {
            let other = if &nonce[at..=at] == "A" { "B" } else { "A" };
            let altered = format!("{}{other}{}", &nonce[..at], &nonce[at + 1..]);
            assert!(!is_good(&key, 1_000_000, &altered), "character {at}");
            assert!(!is_good(&key, 1_000_000, &nonce[..at]));
        }
    }
}
