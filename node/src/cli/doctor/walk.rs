//! A minimal browser: a cookie jar, redirects followed by hand, and a record of every response.

use http::{HeaderMap, header};
use url::Url;

use conclave_http::{
    Outbound,
    outbound::{OutboundError, OutboundResponse},
};

/// The most redirects that are followed. A sign-in has two; Conclave detects a redirect loop after three sign-ins.
const MOST_HOPS: usize = 12;

/// The headers of a navigation.
pub(super) const NAVIGATION: [(&str, &str); 2] = [("accept", "text/html"), ("sec-fetch-mode", "navigate")];

/// A response, and its URL.
#[derive(Clone, Debug)]
pub(super) struct Hop {
    pub url: Url,
    pub answer: OutboundResponse,
    /// The URL of the redirect.
    pub next: Option<Url>,
}

impl Hop {
    pub(super) fn status(&self) -> u16 {
        self.answer.status.as_u16()
    }

    /// The `code` of one of Conclave's error pages.
    pub(super) fn code(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.answer.body);
        let (_, rest) = text.split_once("id=\"error-code\">")?;
        Some(rest.split('<').next()?.trim().to_owned())
    }

    /// The cookies that it sets, as written.
    pub(super) fn cookies(&self) -> impl Iterator<Item = &str> {
        set_cookies(&self.answer.headers)
    }
}

fn set_cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(header::SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok())
}

/// A minimal browser.
pub(super) struct Browser {
    outbound: Outbound,
    /// Host, name, value. The domain of a cookie is checked elsewhere.
    cookies: Vec<(String, String, String)>,
}

impl Browser {
    /// Connects to any address: the operator chose it.
    pub(super) fn new() -> Self {
        let everywhere = ["0.0.0.0/0", "::/0"].iter().filter_map(|network| network.parse().ok()).collect();
        Self { outbound: Outbound::new(everywhere), cookies: Vec::new() }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// An error if there is no response.
    pub(super) async fn get(&mut self, url: &Url, headers: &[(&str, &str)]) -> Result<Hop, OutboundError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let own: Vec<String> = self
            .cookies
            .iter()
            .filter(|(at, ..)| *at == host)
            .map(|(_, name, value)| format!("{name}={value}"))
            .collect();
        let cookie = own.join("; ");
        let mut headers = headers.to_vec();
        if !cookie.is_empty() {
            headers.push(("cookie", &cookie));
        }
        let answer = self.outbound.page(url.as_str(), &headers).await?;
        for set in set_cookies(&answer.headers) {
            let Some((name, value)) = set.split(';').next().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            self.cookies.retain(|(at, known, _)| !(*at == host && known == name));
            self.cookies.push((host.clone(), name.to_owned(), value.to_owned()));
        }
        let location = answer.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
        let next = location.filter(|_| answer.status.is_redirection()).and_then(|text| url.join(text).ok());
        Ok(Hop { url: url.clone(), answer, next })
    }

    /// Follows a navigation to its end, or for [`MOST_HOPS`] redirects.
    ///
    /// # Errors
    /// The error of a hop without a response is returned together with the hops before it.
    pub(super) async fn follow(&mut self, url: &Url) -> (Vec<Hop>, Option<(Url, OutboundError)>) {
        let (mut hops, mut next) = (Vec::new(), Some(url.clone()));
        while let Some(at) = next.take().filter(|_| hops.len() < MOST_HOPS) {
            match self.get(&at, &NAVIGATION).await {
                Ok(hop) => {
                    next.clone_from(&hop.next);
                    hops.push(hop);
                }
                Err(error) => return (hops, Some((at, error))),
            }
        }
        (hops, None)
    }
}
