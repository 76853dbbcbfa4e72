//! Bounds and formats of the short texts that users and operators type. They are parsed once, here; afterwards the
//! types carry the guarantee.

use std::sync::Arc;

use crate::reply::Refusal;

/// Longest display text (names, descriptions): it fits on a line and bounds a row.
pub(crate) const MAX_TEXT_BYTES: usize = 256;
/// Longest URI kept: one that browsers and proxies carry safely.
pub(crate) const MAX_URI_BYTES: usize = 2048;
/// Longest e-mail address (RFC 5321 §4.5.3.1.3).
pub(crate) const MAX_EMAIL_BYTES: usize = 254;

/// Parses a line of text without control characters, at most `max` bytes.
pub(crate) fn line(field: &str, text: &str, max: usize) -> Result<String, Refusal> {
    if text.len() > max {
        return Err(Refusal::malformed(format!("{field} is longer than {max} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Refusal::malformed(format!("{field} has a control character")));
    }
    Ok(text.to_owned())
}

/// Parses a line of text like [`line`], and refuses an empty one.
pub(crate) fn required(field: &str, text: &str, max: usize) -> Result<String, Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::malformed(format!("{field} is empty")));
    }
    line(field, text, max)
}

/// The form in which names and addresses are compared: ASCII letters in lower case. Other letters are normalised before
/// a command is made, because Unicode tables differ between versions of the program.
pub(crate) fn folded(text: &str) -> Arc<str> {
    text.to_ascii_lowercase().into()
}

/// Parses a name for machines and URLs: lower-case ASCII letters, digits, `-`, `_`, `.`; at most `max` bytes.
pub(crate) fn slug(field: &str, text: &str, max: usize) -> Result<String, Refusal> {
    let text = required(field, text, max)?;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if !text.chars().all(fits) {
        return Err(Refusal::malformed(format!("{field} may hold a-z, 0-9, '-', '_' and '.' only")));
    }
    Ok(text)
}
