//! The security headers of every response: what a browser may load, show and remember.

use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue};
use url::Url;

/// The default policy: no script, nothing from other origins, no framing.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";

/// An extension of a response whose page has a form that ends in a redirect to another origin. Browsers apply
/// `form-action` to the redirects after a post as well, so the relying party's origin must be named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormAction(Vec<String>);

impl FormAction {
    /// Allows forms to end at the origin of `target`, or at the scheme of a native app (`com.example.app:`).
    pub fn to(target: &Url) -> Self {
        let source = match target.scheme() {
            "http" | "https" => target.origin().ascii_serialization(),
            scheme => format!("{scheme}:"),
        };
        Self(vec![source])
    }

    /// Allows forms to end at any origin of this scheme, for an origin that is known only after the post.
    pub fn to_scheme(scheme: &str) -> Self {
        Self(vec![format!("{scheme}:")])
    }

    /// Also allows the sources of `other`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

/// An extension of a response whose page may be shown in a frame of another origin. Such a page must contain nothing
/// that a click could do harm with: it only links to the top level.
#[derive(Clone, Copy, Debug)]
pub struct Framable;

/// [`POLICY`] without its `frame-ancestors`, and without forms.
const FRAMABLE_POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'";

/// Adds the headers that the response does not have.
pub(super) fn fence(response: &mut Response) {
    if let Some(allowed) = response.extensions_mut().remove::<FormAction>() {
        response.headers_mut().entry(CONTENT_SECURITY_POLICY).or_insert_with(|| policy(&allowed));
    }
    let framable = response.extensions_mut().remove::<Framable>().is_some();
    if framable {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(FRAMABLE_POLICY));
    }
    fence_headers(response.headers_mut());
    if framable {
        response.headers_mut().remove(X_FRAME_OPTIONS);
    }
}

/// Adds the headers to a map that is built once and sent often; it allows no other origin.
pub fn fence_headers(headers: &mut HeaderMap) {
    let fixed = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        // Not "no-referrer": with it browsers send `Origin: null` from our own forms.
        (REFERRER_POLICY, "same-origin"),
        // Responses of an identity provider are for one user at one moment; assets set their own value.
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    for (name, value) in fixed {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

fn policy(FormAction(sources): &FormAction) -> HeaderValue {
    let policy = sources.iter().fold(POLICY.to_owned(), |policy, source| policy + " " + source);
    // Origins and schemes of parsed URLs are ASCII without separators; if one is not, nothing extra is allowed.
    let is_plain = sources.iter().all(|source| !source.contains([' ', ';', ',', '\'']));
    HeaderValue::from_str(&policy)
        .ok()
        .filter(|_| is_plain)
        .unwrap_or_else(|| HeaderValue::from_static(POLICY))
}

#[cfg(test)]
mod tests {
    use axum::response::{IntoResponse, Response};
    use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
    use url::Url;

    use super::{FormAction, POLICY, fence};

    fn fenced(mut response: Response) -> Response {
        fence(&mut response);
        response
    }

    #[test]
    fn every_response_is_fenced_and_allows_no_script() {
        let response = fenced("page".into_response());
        assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], POLICY);
        assert!(POLICY.starts_with("default-src 'none'") && !POLICY.contains("script"));
        for header in ["x-content-type-options", "x-frame-options", "referrer-policy"] {
            assert!(response.headers().contains_key(header), "{header}");
        }
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    }

    #[test]
    fn what_a_response_says_itself_stays() {
        let response = fenced(([(CACHE_CONTROL, "public, max-age=5")], "asset").into_response());
        assert_eq!(response.headers()[CACHE_CONTROL], "public, max-age=5");
    }

    #[test]
    fn a_form_may_end_where_the_page_says_and_nowhere_else() {
        let policy = |target: &str| {
            let mut response = "login".into_response();
            response.extensions_mut().insert(FormAction::to(&Url::parse(target).unwrap()));
            fenced(response).headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned()
        };
        let ends = |policy: &str| policy.rsplit_once("form-action ").unwrap().1.to_owned();
        assert_eq!(ends(&policy("https://app.example.org/cb?x=1;y")), "'self' https://app.example.org");
        assert_eq!(ends(&policy("http://127.0.0.1:8080/cb")), "'self' http://127.0.0.1:8080");
        assert_eq!(ends(&policy("com.example.app:/cb")), "'self' com.example.app:");
    }
}
