//! The operator assertion: a bearer text for the admin API, made from the cluster secret itself. It serves before any
//! token exists, and for tools on a node's own machine. The holder of the cluster secret controls the cluster anyway
//! (docs/design/consensus.md).
//!
//! `op1.<expiry, Unix ms>.<nonce, hex>.<HMAC-SHA256 of all before it, hex>`. It is short-lived, so a text that leaks
//! from a terminal or a log is soon worthless. It may be used more than once before it expires, like any bearer token.

use std::time::Duration;

use conclave_base::runtime::Entropy;
use conclave_crypto::{hex, keys::Key, mac};

/// Maximum time from now to an accepted expiry. It bounds the use of a stolen text, and the effect of a wrong clock on
/// the machine that made it.
const MAX_AHEAD: Duration = Duration::from_mins(5);
/// Lifetime of an assertion from [`make`]: long enough for one command, with clocks up to a minute apart.
const LIFETIME: Duration = Duration::from_mins(2);
/// Distinguishes an assertion from a token.
const PREFIX: &str = "op1.";
/// Maximum length of an accepted text: a u64, 32 and 64 digits, and the dots.
const MAX_BYTES: usize = 128;

/// True if the text has the form of an operator assertion, valid or not.
pub fn is_assertion(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Makes an assertion that is valid for two minutes from `now_ms`. Takes
/// [`ClusterKeys::operator`](conclave_crypto::keys::ClusterKeys::operator).
pub fn make(key: &Key, now_ms: u64, entropy: &dyn Entropy) -> String {
    let expiry = now_ms.saturating_add(ms(LIFETIME));
    sign(key, expiry, &hex::encode(&entropy.bytes::<16>()))
}

/// True if the text is an assertion under this key that has not expired and whose expiry is not too far ahead.
pub fn verify(key: &Key, now_ms: u64, text: &str) -> bool {
    if text.len() > MAX_BYTES {
        return false;
    }
    // The MAC is checked first: nothing else is parsed before it matches.
    let Some((body, presented)) = text.rsplit_once('.') else { return false };
    if !mac::equal(presented.as_bytes(), hex::encode(&mac::hmac_sha256(key, &[body.as_bytes()])).as_bytes()) {
        return false;
    }
    let expiry =
        body.strip_prefix(PREFIX).and_then(|rest| rest.split('.').next()).and_then(|text| text.parse().ok());
    expiry.is_some_and(|expiry: u64| now_ms < expiry && expiry - now_ms <= ms(MAX_AHEAD))
}

fn sign(key: &Key, expiry: u64, nonce: &str) -> String {
    let body = format!("{PREFIX}{expiry}.{nonce}");
    let mac = hex::encode(&mac::hmac_sha256(key, &[body.as_bytes()]));
    format!("{body}.{mac}")
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_base::runtime::testing::SeededEntropy;

    const NOW: u64 = 1_800_000_000_000;

    fn key(byte: u8) -> Key {
        Key::new([byte; 32])
    }

    #[test]
    fn an_assertion_is_good_for_its_time_and_under_its_key_alone() {
        let text = make(&key(1), NOW, &*SeededEntropy::new(1));
        assert!(is_assertion(&text));
        assert!(verify(&key(1), NOW, &text) && verify(&key(1), NOW + 119_999, &text));
        assert!(!verify(&key(1), NOW + 120_000, &text), "over");
        assert!(!verify(&key(2), NOW, &text), "another cluster");
    }

    #[test]
    fn an_expiry_too_far_ahead_is_refused_though_the_mac_holds() {
        assert!(verify(&key(1), NOW, &sign(&key(1), NOW + 300_000, "00")));
        assert!(!verify(&key(1), NOW, &sign(&key(1), NOW + 300_001, "00")));
        assert!(!verify(&key(1), NOW, &sign(&key(1), u64::MAX, "00")));
    }

    #[test]
    fn no_character_can_be_changed_added_or_left_out() {
        let text = make(&key(1), NOW, &*SeededEntropy::new(1));
        for at in 0..text.len() {
            let other = if &text[at..=at] == "1" { "2" } else { "1" };
            let altered = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert!(!verify(&key(1), NOW, &altered), "character {at}");
            assert!(!verify(&key(1), NOW, &text[..at]));
        }
        assert!(!verify(&key(1), NOW, &text.to_uppercase()));
        for odd in ["", ".", "op1.", "op1...", "op1.1.2.3", &"op1.".repeat(100)] {
            assert!(!verify(&key(1), NOW, odd), "{odd}");
        }
    }
}
