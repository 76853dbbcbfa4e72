//! Cookies: reading ours strictly, and writing them as safely as the public URL allows.

use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// What every cookie of ours is called, after the browser's prefix and before its own name.
const OURS: &str = "conclave_";

/// Most bytes of cookies read: browsers send at most some 200 cookies of 4 KiB, servers usually take 8 to 16 KiB.
const MAX_LEN: usize = 16 * 1024;

/// Why a request's cookies or a cookie to be set were refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CookieError {
    #[error("the request carries more than {MAX_LEN} bytes of cookies")]
    TooLong,
    #[error("the cookie header is not ASCII text")]
    NotText,
    /// Someone planted a second one, from a sibling host or a longer path; which is ours cannot be told.
    #[error("the cookie {0} was sent twice")]
    Duplicate(String),
    #[error("the value of the cookie {0} holds a character cookies cannot carry")]
    BadValue(String),
}

/// The cookies of a request.
#[derive(Clone, Debug, Default)]
pub struct Cookies<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Cookies<'a> {
    pub fn parse(headers: &'a HeaderMap) -> Result<Self, CookieError> {
        let mut pairs = Vec::new();
        let mut len = 0;
        for line in headers.get_all(COOKIE) {
            len += line.len();
            if len > MAX_LEN {
                return Err(CookieError::TooLong);
            }
            let line = line.to_str().map_err(|_| CookieError::NotText)?;
            // Entries without "=" belong to someone else and are passed over.
            let entries = line.split(';').filter_map(|entry| entry.split_once('='));
            pairs.extend(entries.map(|(name, value)| (name.trim(), value.trim())));
        }
        Ok(Self(pairs))
    }

    /// The value of the cookie of that full name. Two of them are refused, since either may be planted.
    pub fn get(&self, name: &str) -> Result<Option<&'a str>, CookieError> {
        self.only(|found| found == name).map_err(|()| CookieError::Duplicate(name.to_owned()))
    }

    /// The same of our cookie `name`, as this policy calls it.
    pub fn ours(&self, policy: &CookiePolicy, name: &str) -> Result<Option<&'a str>, CookieError> {
        self.only(|found| policy.calls(name, found)).map_err(|()| CookieError::Duplicate(policy.name(name)))
    }

    fn only(&self, is_it: impl Fn(&str) -> bool) -> Result<Option<&'a str>, ()> {
        let mut values = self.0.iter().filter(|(found, _)| is_it(found)).map(|(_, value)| *value);
        let first = values.next();
        if values.next().is_some() { Err(()) } else { Ok(first) }
    }
}

/// A request's cookies without ours.
#[derive(Debug, PartialEq, Eq)]
pub enum Rest {
    /// There are none of ours among them.
    Same,
    /// There are only ours.
    Nothing,
    /// These.
    Other(String),
}

/// What an application behind the check may see: the cookies of others. Ours open more than it.
pub fn without_ours(headers: &HeaderMap) -> Rest {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let entries: Vec<&str> = lines.flat_map(|line| line.split(';')).map(str::trim).collect();
    let is_ours = |entry: &&str| {
        let name = entry.split('=').next().unwrap_or_default().trim();
        let name =
            ["__Host-", "__Secure-"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
        name.starts_with(OURS)
    };
    if !entries.iter().any(is_ours) {
        return Rest::Same;
    }
    let others: Vec<&str> =
        entries.into_iter().filter(|entry| !entry.is_empty() && !is_ours(entry)).collect();
    if others.is_empty() { Rest::Nothing } else { Rest::Other(others.join("; ")) }
}

/// How cookies are named and fenced: decided once, from the public URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookiePolicy {
    secure: bool,
    domain: Option<String>,
}

impl CookiePolicy {
    /// Cookies of this very host: `__Host-` and `Secure` when browsers come by https, so that no sibling host can
    /// set or overwrite them.
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

    /// Whether `full` is what [`Self::name`] makes of `name`.
    fn calls(&self, name: &str, full: &str) -> bool {
        full.strip_prefix(self.prefix()).and_then(|rest| rest.strip_prefix(OURS)) == Some(name)
    }

    const fn prefix(&self) -> &'static str {
        match (self.secure, &self.domain) {
            (true, None) => "__Host-",
            (true, Some(_)) => "__Secure-",
            (false, _) => "",
        }
    }

    /// A `Set-Cookie` value. Without `max_age` the cookie lasts as long as the browser runs.
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

/// RFC 6265 §4.1.1: printable ASCII without space, quote, comma, semicolon and backslash.
fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;
    use http::header::COOKIE;

    use super::{CookieError, CookiePolicy, Cookies, MAX_LEN, Rest, without_ours};

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, line.parse().unwrap());
        }
        headers
    }

    #[test]
    fn our_cookie_is_found_among_those_of_others() {
        let headers = headers(&["junk; theme=dark;conclave_session=abc=; a=1; a=2", "later=x"]);
        let cookies = Cookies::parse(&headers).unwrap();
        assert_eq!(cookies.get("conclave_session"), Ok(Some("abc=")));
        assert_eq!(cookies.get("later"), Ok(Some("x")));
        assert_eq!(cookies.get("absent"), Ok(None));
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
            Rest::Other("a=1; b=conclave_; c".into())
        );
        assert_eq!(of(&[]), Rest::Same);
    }

    #[test]
    fn a_second_cookie_of_our_name_is_refused_in_one_header_or_two() {
        let name = "__Host-conclave_session";
        for lines in [
            vec!["__Host-conclave_session=a; __Host-conclave_session=a"],
            vec!["__Host-conclave_session=a", "__Host-conclave_session=b"],
        ] {
            let headers = headers(&lines);
            let found = Cookies::parse(&headers).unwrap().get(name);
            assert_eq!(found, Err(CookieError::Duplicate(name.into())));
        }
    }

    #[test]
    fn too_much_and_unreadable_are_refused() {
        let long = format!("a={}", "x".repeat(MAX_LEN));
        assert_eq!(Cookies::parse(&headers(&[&long])).unwrap_err(), CookieError::TooLong);
        let mut bytes = HeaderMap::new();
        bytes.insert(COOKIE, http::HeaderValue::from_bytes(b"a=\xff").unwrap());
        assert_eq!(Cookies::parse(&bytes).unwrap_err(), CookieError::NotText);
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
