//! Normalizes typed text (Unicode), at the place where it enters the node.
//!
//! A word can arrive in different bytes: some keyboards send `ä` as one character, others as `a` and a combining mark.
//! Text is brought to one form here, before it becomes part of a command. The rules compare bytes and fold ASCII only:
//! the tables of Unicode differ between versions of this program, and all members must agree on every entry (decision
//! 0060).

use icu_normalizer::ComposingNormalizerBorrowed;

/// Returns the text in normalization form C.
pub fn nfc(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(text).into_owned()
}

/// Returns a password in the form in which passwords are compared: every space is U+0020, and the whole is in
/// normalization form C (RFC 8265 §4.2, OpaqueString). Case is preserved, and no character is refused.
pub fn opaque(text: &str) -> String {
    nfc(&text.chars().map(|c| if is_space(c) { ' ' } else { c }).collect::<String>())
}

/// Returns an e-mail address in the form in which it is stored: without surrounding spaces, in normalization form C,
/// and with letters beyond ASCII in lower case. ASCII letters stay as typed; the rules ignore their case.
pub fn address(text: &str) -> String {
    let mut lower = String::with_capacity(text.len());
    for c in nfc(text.trim()).chars() {
        if c.is_ascii() {
            lower.push(c);
        } else {
            lower.extend(c.to_lowercase());
        }
    }
    nfc(&lower)
}

/// True for the spaces of Unicode (general category Zs) beyond ASCII. The category has not changed since Unicode 6.3.
const fn is_space(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_word_has_one_form() {
        assert_eq!(nfc("Ka\u{308}se"), "K\u{e4}se");
        assert_eq!(nfc("\u{212b}"), "\u{c5}", "the sign for angstrom is a letter with a ring");
        assert_eq!(nfc("\u{ff21}"), "\u{ff21}", "a wide letter is another letter");
        assert_eq!(opaque("a\u{a0}b\u{3000}c\td"), "a b c\td");
        assert_eq!(address(" JOS\u{c9}@Example.org "), "JOS\u{e9}@Example.org");
        assert_eq!(
            address("jose\u{301}@example.org"),
            address("JOS\u{c9}@example.org").replace("JOS", "jos")
        );
    }

    proptest! {
        #[test]
        fn a_form_is_its_own_form(text in any::<String>()) {
            for form in [nfc as fn(&str) -> String, opaque, address] {
                let once = form(&text);
                prop_assert_eq!(form(&once), once);
            }
        }

        #[test]
        fn ascii_stays_as_it_is(text in "[ -~]{0,40}") {
            prop_assert_eq!(&nfc(&text), &text);
            prop_assert_eq!(&opaque(&text), &text);
            prop_assert_eq!(&address(&text), text.trim());
        }
    }
}
