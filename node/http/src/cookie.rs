//! Cookies: strict parsing of ours, ignoring all others, and setting ours as safely as the public URL allows.
//!
//! Browsers send cookies that other programs set: applications on the same host, siblings below a shared parent domain,
//! scripts (`document.cookie` accepts any text). Their content and length are not checked here, because another
//! application could otherwise lock a user out. Only a pair with the exact name of one of our cookies is read, and only
//! such a pair can be refused.

use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// The common part of the names of all our cookies, after the browser's prefix and before the cookie's own name.
const OURS: &str = "conclave_";

/// Maximum length of a value of our cookies: browsers keep at most 4 KiB for name and value together (RFC 6265bis
/// §5.6).
const MAX_VALUE_LEN: usize = 4 * 1024;

/// The reason why one of our cookies, or a cookie to be set, was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CookieError {
    #[error("the cookie {0} is longer than {MAX_VALUE_LEN} bytes")]
    TooLong(String),
    #[error("the value of the cookie {0} is not ASCII text")]
    NotText(String),
    /// An attacker planted a second cookie of this name, from a sibling host or a longer path. The two cannot be
    /// distinguished.
    #[error("the cookie {0} was sent twice")]
    Duplicate(String),
    #[error("the value of the cookie {0} holds a character cookies cannot carry")]
    BadValue(String),
}

/// The cookies of a request that have one of our names.
#[derive(Clone, Debug, Default)]
pub struct Cookies<'a>(Vec<Pair<'a>>);

/// A name and a value as the browser sent them, without the blanks around them.
type Pair<'a> = (&'a [u8], &'a [u8]);

impl<'a> Cookies<'a> {
    /// Collects our cookies from the raw bytes of all `Cookie` lines, ignoring all others.
    pub fn of(headers: &'a HeaderMap) -> Self {
        Self(entries(headers).filter_map(pair_of).filter(|(name, _)| is_our_name(name)).collect())
    }

    /// The value of our cookie with this full name.
    ///
    /// # Errors
    /// Fails if the cookie was sent twice, is too long or is not ASCII text.
    pub fn get(&self, name: &str) -> Result<Option<&'a str>, CookieError> {
        self.only(|found| found == name.as_bytes(), || name.to_owned())
    }

    /// The value of our cookie `name`, under the full name that `policy` gives it.
    ///
    /// # Errors
    /// Fails if the cookie was sent twice, is too long or is not ASCII text.
    pub fn ours(&self, policy: &CookiePolicy, name: &str) -> Result<Option<&'a str>, CookieError> {
        self.only(|found| policy.calls(name, found), || policy.name(name))
    }

    fn only(
        &self,
        is_it: impl Fn(&[u8]) -> bool,
        full_name: impl Fn() -> String,
    ) -> Result<Option<&'a str>, CookieError> {
        let mut values = self.0.iter().filter(|(found, _)| is_it(found)).map(|(_, value)| *value);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(CookieError::Duplicate(full_name()));
        }
        if value.len() > MAX_VALUE_LEN {
            return Err(CookieError::TooLong(full_name()));
        }
        match std::str::from_utf8(value) {
            Ok(text) if text.is_ascii() => Ok(Some(text)),
            _ => Err(CookieError::NotText(full_name())),
        }
    }
}

/// Every entry of every `Cookie` line, as raw bytes without the blanks around it.
fn entries(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii)
}

/// Splits an entry at its first `=`. An entry without one is not a cookie of ours.
fn pair_of(entry: &[u8]) -> Option<Pair<'_>> {
    let at = entry.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (entry.get(..at)?, entry.get(at + 1..)?);
    Some((name.trim_ascii_end(), value.trim_ascii_start()))
}

fn is_our_name(name: &[u8]) -> bool {
    let prefixes: [&[u8]; 2] = [b"__Host-", b"__Secure-"];
    let plain = prefixes.iter().find_map(|prefix| name.strip_prefix(*prefix)).unwrap_or(name);
    plain.starts_with(OURS.as_bytes())
}

/// A request's cookies without ours.
#[derive(Debug, PartialEq, Eq)]
pub enum Rest {
    /// None of them are ours.
    Same,
    /// All of them are ours.
    Nothing,
    /// The cookies of other programs, byte for byte; not necessarily text.
    Other(Vec<u8>),
}

/// The cookies that an application behind the check may see: those of other programs. Ours grant more than that
/// application.
pub fn without_ours(headers: &HeaderMap) -> Rest {
    let is_ours = |entry: &[u8]| is_our_name(pair_of(entry).map_or(entry, |(name, _)| name));
    if !entries(headers).any(is_ours) {
        return Rest::Same;
    }
    let others: Vec<&[u8]> = entries(headers).filter(|entry| !entry.is_empty() && !is_ours(entry)).collect();
    if others.is_empty() { Rest::Nothing } else { Rest::Other(others.join(&b"; "[..])) }
}

/// The names and attributes of our cookies, decided once from the public URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookiePolicy {
    secure: bool,
    domain: Option<String>,
}

impl CookiePolicy {
    /// Cookies of this exact host: `__Host-` and `Secure` if browsers use https, so that no sibling host can set or
    /// overwrite them.
    pub fn host_only(secure: bool) -> Self {
        Self { secure, domain: None }
    }

    /// Cookies shared with all hosts below `domain`. They cannot be `__Host-`; `__Secure-` remains.
    pub fn for_domain(secure: bool, domain: &str) -> Self {
        Self { secure, domain: Some(domain.to_owned()) }
    }

    /// The full name of our cookie `name`: `__Host-conclave_session`.
    pub fn name(&self, name: &str) -> String {
        format!("{}{OURS}{name}", self.prefix())
    }

    /// True if `full` equals [`Self::name`] of `name`.
    fn calls(&self, name: &str, full: &[u8]) -> bool {
        let rest = full.strip_prefix(self.prefix().as_bytes());
        rest.and_then(|rest| rest.strip_prefix(OURS.as_bytes())) == Some(name.as_bytes())
    }

    const fn prefix(&self) -> &'static str {
        match (self.secure, &self.domain) {
            (true, None) => "__Host-",
            (true, Some(_)) => "__Secure-",
            (false, _) => "",
        }
    }

    /// A `Set-Cookie` value. Without `max_age` the cookie is a session cookie of the browser.
    pub fn set(
        &self,
        name: &str,
        value: &str,
        max_age: Option<Duration>,
    ) -> Result<HeaderValue, CookieError> {
        let bad = || CookieError::BadValue(name.to_owned());
        if !value.bytes().all(is_cookie_octet) {
            return Err(bad());
        }
        let mut cookie = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax", self.name(name));
        if self.secure {
            cookie.push_str("; Secure");
        }
        if let Some(domain) = &self.domain {
            cookie.push_str("; Domain=");
            cookie.push_str(domain);
        }
        if let Some(max_age) = max_age {
            cookie.push_str("; Max-Age=");
            cookie.push_str(&max_age.as_secs().to_string());
        }
        HeaderValue::from_str(&cookie).map_err(|_| bad())
    }

    /// A `Set-Cookie` value that removes the cookie.
    pub fn clear(&self, name: &str) -> Result<HeaderValue, CookieError> {
        self.set(name, "", Some(Duration::ZERO))
    }
}

/// True for characters that RFC 6265 §4.1.1 allows: printable ASCII without space, quote, comma, semicolon and
/// backslash.
fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;
    use http::header::COOKIE;

    use super::{CookieError, CookiePolicy, Cookies, MAX_VALUE_LEN, Rest, without_ours};

    fn headers(lines: &[&str]) -> HeaderMap {
        raw(&lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>())
    }

    fn raw(lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, http::HeaderValue::from_bytes(line).unwrap());
        }
        headers
    }

    #[test]
    fn our_cookie_is_found_among_those_of_others() {
        let headers = headers(&["junk; theme=dark;conclave_session=abc=; a=1; a=2", "conclave_later = x"]);
        let cookies = Cookies::of(&headers);
        assert_eq!(cookies.get("conclave_session"), Ok(Some("abc=")));
        assert_eq!(cookies.get("conclave_later"), Ok(Some("x")));
        assert_eq!(cookies.get("conclave_absent"), Ok(None));
        assert_eq!(cookies.ours(&CookiePolicy::host_only(false), "session"), Ok(Some("abc=")));
        assert_eq!(cookies.ours(&CookiePolicy::host_only(true), "session"), Ok(None));
    }

    #[test]
    fn an_application_sees_the_cookies_of_others_only() {
        let of = |lines: &[&str]| without_ours(&headers(lines));
        assert_eq!(of(&["a=1; b=2"]), Rest::Same);
        assert_eq!(
            of(&["__Host-conclave_app=x; conclave_session=y", "__Secure-conclave_app_domain=z"]),
            Rest::Nothing
        );
        assert_eq!(
            of(&["a=1; __Host-conclave_app=x;  b=conclave_", "c"]),
            Rest::Other(b"a=1; b=conclave_; c".to_vec())
        );
        assert_eq!(of(&[]), Rest::Same);
        // A line that is not text does not hide our cookies, and is passed on byte for byte.
        let mixed = raw(&[b"nick=J\xfcrgen; __Host-conclave_app=x; lang=fran\xc3\xa7ais"]);
        assert_eq!(without_ours(&mixed), Rest::Other(b"nick=J\xfcrgen; lang=fran\xc3\xa7ais".to_vec()));
    }

    #[test]
    fn a_second_cookie_of_our_name_is_refused_in_one_header_or_two() {
        let name = "__Host-conclave_session";
        for lines in [
            vec!["__Host-conclave_session=a; __Host-conclave_session=a"],
            vec!["__Host-conclave_session=a", "__Host-conclave_session=b"],
        ] {
            let headers = headers(&lines);
            let found = Cookies::of(&headers).get(name);
            assert_eq!(found, Err(CookieError::Duplicate(name.into())));
        }
    }

    #[test]
    fn cookies_of_others_are_passed_over_whatever_they_hold() {
        let long = format!("a={}", "x".repeat(60 * 1024));
        let lines: [&[u8]; 4] = [
            b"theme=\xe7a",
            long.as_bytes(),
            b"; =; \xff; conclave_session=v; nick=J\xc3\xbcrgen",
            b"conclav\xe9_x=1",
        ];
        for turned in 0..lines.len() {
            let mut turn = lines;
            turn.rotate_left(turned);
            let headers = raw(&turn);
            assert_eq!(Cookies::of(&headers).get("conclave_session"), Ok(Some("v")));
        }
    }

    #[test]
    fn only_a_cookie_of_ours_is_refused_for_its_bytes_and_its_length() {
        let long = format!("conclave_other={0}; conclave_session={0}", "x".repeat(MAX_VALUE_LEN + 1));
        let headers = headers(&[&long]);
        let found = Cookies::of(&headers);
        assert_eq!(found.get("conclave_session"), Err(CookieError::TooLong("conclave_session".into())));
        assert_eq!(found.get("conclave_app"), Ok(None));
        let strange = raw(&[b"conclave_session=\xff; conclave_app=v"]);
        let found = Cookies::of(&strange);
        assert_eq!(found.get("conclave_session"), Err(CookieError::NotText("conclave_session".into())));
        assert_eq!(found.get("conclave_app"), Ok(Some("v")));
    }

    #[test]
    fn cookies_are_fenced_as_far_as_the_scheme_allows() {
        let set = |policy: CookiePolicy| {
            policy.set("session", "v", Some(Duration::from_secs(9))).unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(
            set(CookiePolicy::host_only(true)),
            "__Host-conclave_session=v; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=9"
        );
        assert_eq!(
            set(CookiePolicy::host_only(false)),
            "conclave_session=v; Path=/; HttpOnly; SameSite=Lax; Max-Age=9"
        );
        assert_eq!(
            set(CookiePolicy::for_domain(true, "example.org")),
            "__Secure-conclave_session=v; Path=/; HttpOnly; SameSite=Lax; Secure; Domain=example.org; Max-Age=9"
        );
        let cleared = CookiePolicy::host_only(false).clear("session").unwrap();
        assert_eq!(cleared, "conclave_session=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0");
    }

    #[test]
    fn a_value_cannot_smuggle_attributes() {
        for value in ["a; Domain=evil", "a b", "a\r\nSet-Cookie: x", "\"", "ä"] {
            let refused = CookiePolicy::host_only(true).set("session", value, None);
            assert_eq!(refused, Err(CookieError::BadValue("session".into())), "{value:?}");
        }
    }
}
