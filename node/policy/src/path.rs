//! Unambiguous paths, and patterns over them.
//!
//! A rule that opens a path is only as safe as its reading of the path: proxies and the applications behind them have
//! read `/public/../admin`, `%2e%2e`, `//` and `;` differently (decision 0041). So a path is decoded once, and a path
//! that could still be read in another way is rejected as ambiguous: no rule that opens a path matches it, and a row
//! that reads the path is a fault, which denies.

use crate::limits::MAX_PATTERN_BYTES;

/// A path, decoded, without query and fragment, that every server reads in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath(String);

impl CanonicalPath {
    /// Parses the path of a request target (RFC 3986 §3.3), without the part after `?`. Returns `None` if it has a
    /// fragment, a broken escape, an escaped separator or percent sign, a dot segment, an empty segment, a path
    /// parameter (`;`), a backslash, or a control character.
    pub fn parse(target: &str) -> Option<Self> {
        if target.contains('#') {
            return None;
        }
        let path = target.split('?').next()?;
        let decoded = decoded(path)?;
        let odd = |c: char| c.is_control() || matches!(c, '\\' | ';' | '%' | '?' | '#');
        let bad = |segment: &str| matches!(segment, "." | "..");
        let slashes = |text: &str| text.matches('/').count();
        if !decoded.starts_with('/')
            || decoded.contains("//")
            || decoded.contains(odd)
            || decoded.split('/').any(bad)
            || slashes(&decoded) != slashes(path)
        {
            return None;
        }
        Some(Self(decoded))
    }

    /// The decoded text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Percent-decodes once; none if an escape is broken or the result is not UTF-8.
fn decoded(path: &str) -> Option<String> {
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

/// `/exact`, or `/below/*`: everything below, but not `/below` itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// This path.
    Exact(String),
    /// Every path with this prefix, which ends with a slash.
    Below(String),
}

impl PathPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// The reason why it is invalid, for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a path; write /exact or /below/*, decoded, without query");
        if text.len() > MAX_PATTERN_BYTES {
            return Err(format!("a path has at most {MAX_PATTERN_BYTES} bytes"));
        }
        let plain = text.strip_suffix('*').unwrap_or(text);
        // A pattern that no canonical path can match would be a rule without effect.
        let canonical =
            CanonicalPath::parse(plain).filter(|path| path.as_str() == plain).ok_or_else(wrong)?;
        if plain.contains('*') || (plain.len() < text.len() && !plain.ends_with('/')) {
            return Err(wrong());
        }
        Ok(if plain.len() < text.len() { Self::Below(canonical.0) } else { Self::Exact(canonical.0) })
    }

    /// True if the path matches. Case is significant.
    pub fn matches(&self, path: &CanonicalPath) -> bool {
        match self {
            Self::Exact(exact) => path.0 == *exact,
            Self::Below(prefix) => path.0.starts_with(prefix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_two_readings_has_none() {
        for odd in [
            "/public/../admin",
            "/public/%2e%2e/admin",
            "/public/%2E./admin",
            "/public//admin",
            "//public/",
            "/public/..;/admin",
            "/public;x/",
            "/public%2fadmin",
            "/public%5cadmin",
            "/public\\admin",
            "/public/#/admin",
            "/public/%23",
            "/public%252f",
            "/public/%00",
            "/public/%zz",
            "/public/%2",
            "public/",
            "",
            "/public/%ff",
            "/public/%3fx",
            "/public/.",
        ] {
            assert_eq!(CanonicalPath::parse(odd), None, "{odd:?}");
        }
        let read = |target: &str| CanonicalPath::parse(target).unwrap().0;
        assert_eq!(read("/public/a?next=/../admin"), "/public/a");
        assert_eq!(read("/%70ublic/%C3%A4"), "/public/ä");
        assert_eq!(read("/"), "/");
    }

    #[test]
    fn patterns_mean_exactly_what_they_say() {
        let matches = |pattern: &str, path: &str| {
            PathPattern::parse(pattern).unwrap().matches(&CanonicalPath::parse(path).unwrap())
        };
        assert!(matches("/public/*", "/public/a") && matches("/public/*", "/public/"));
        assert!(!matches("/public/*", "/public") && !matches("/public/*", "/publicity/x"));
        assert!(
            matches("/health", "/health")
                && !matches("/health", "/health/")
                && !matches("/health", "/Health")
        );
        assert!(matches("/*", "/anything"));
        for odd in ["public/*", "/a*", "/a/*/b", "/a/../*", "/a//*", "/a%20b", "/a?b", "", "*", "/a;b"] {
            assert!(PathPattern::parse(odd).is_err(), "{odd:?}");
        }
    }
}
