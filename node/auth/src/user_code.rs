//! The code that a user types for a device (RFC 8628 §6.1): eight consonants, so that it does not spell a word and can
//! be read aloud without ambiguity. It has 34 bits and lives ten minutes; attempts are throttled. The state keeps a
//! keyed hash.

use conclave_crypto::{keys::Key, mac};

/// Consonants without `Y`; 20 of them.
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const LENGTH: usize = 8;
/// The greatest multiple of the alphabet's length below 256: higher bytes would favour some letters.
const FAIR_BELOW: u8 = 240;
/// Maximum length of an accepted text, with room for separators between the letters.
pub const MAX_TEXT_BYTES: usize = 32;

/// The code made of these random bytes, as it is displayed: `BCDF-GHJK`. `None` if they hold too few usable bytes,
/// which does not happen in practice for 32 bytes.
pub fn make(random: &[u8]) -> Option<String> {
    let fair = random.iter().filter(|byte| **byte < FAIR_BELOW);
    let letters: String = fair
        .filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()))
        .take(LENGTH)
        .map(|b| char::from(*b))
        .collect();
    (letters.len() == LENGTH).then(|| shown(&letters))
}

/// The letters with a dash in the middle.
fn shown(letters: &str) -> String {
    let (first, second) = letters.split_at_checked(LENGTH / 2).unwrap_or((letters, ""));
    format!("{first}-{second}")
}

/// Normalizes a typed code to its displayed form, ignoring case and separators. `None` if it is not a code.
pub fn parse(typed: &str) -> Option<String> {
    if typed.len() > MAX_TEXT_BYTES {
        return None;
    }
    let letters: String =
        typed.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
    let fits = letters.len() == LENGTH && letters.bytes().all(|byte| ALPHABET.contains(&byte));
    fits.then(|| shown(&letters))
}

/// The keyed hash of a code from [`make`] or [`parse`].
pub fn hash(key: &Key, code: &str) -> [u8; 32] {
    mac::hmac_sha256(key, &[b"user-code", code.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back_however_it_is_typed() {
        let code = make(&[0, 1, 255, 2, 3, 19, 20, 39, 239, 240]).unwrap();
        assert_eq!(code, "BCDF-ZBZZ");
        for typed in ["BCDF-ZBZZ", "bcdfzbzz", " bcdf zbzz ", "B-C-D-F Z.B.Z.Z"] {
            assert_eq!(parse(typed).as_deref(), Some("BCDF-ZBZZ"), "{typed}");
        }
        for odd in ["", "BCDF", "BCDF-ZBZZB", "ABCD-EFGH", "BCDF-ZBZ1", &"B".repeat(64)] {
            assert_eq!(parse(odd), None, "{odd}");
        }
        assert_eq!(make(&[255; 32]), None);
    }
}
