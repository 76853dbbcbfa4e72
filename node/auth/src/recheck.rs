//! Checks again the request behind an old ticket. A form that was open too long is replaced by a fresh one only if its
//! request is still valid.

use conclave_state::{Stamp, State, client::Client, ids::TicketId};
use url::Url;

use conclave_http::host::canonical_authority;

use super::{
    Auth, AuthError,
    authorization::{PushedReference, origin_of},
    dispatch::MissingObject,
    ticket::{AppUrl, LoginTarget, Mount},
};

impl Auth {
    /// Returns the reason why the login's target is not valid any more, or `None` if it is. The rules check everything
    /// again at each write; this guards the page that is shown and the address to which the browser may be redirected.
    ///
    /// # Errors
    /// Fails if this node cannot decide at the moment.
    pub async fn still_stands(&self, target: &LoginTarget) -> Result<Option<MissingObject>, AuthError> {
        let state = self.cluster().serving_view(0).await.map_err(|_| AuthError::Unavailable)?;
        Ok(match target {
            LoginTarget::Authorize(request) => {
                let client = state.client(&request.client_id).filter(|client| !client.disabled);
                let client = client.filter(|client| client.may_be_answered_at(&request.redirect_uri));
                let Some(client) = client else { return Ok(Some(MissingObject::Client)) };
                let is_over = request.pushed.is_some_and(|pushed| self.is_over(&state, pushed));
                is_over
                    .then(|| MissingObject::Pushed { start: start_of(&state, client, &request.redirect_uri) })
            }
            LoginTarget::Open { url, .. } => {
                (!self.is_of_application(&state, url)).then_some(MissingObject::Application)
            }
            LoginTarget::Leave { uri } => {
                let stands = page_at(uri).is_some_and(|url| self.is_of_application(&state, &url));
                (!stands).then_some(MissingObject::Application)
            }
            LoginTarget::Home | LoginTarget::Device { .. } => None,
        })
    }

    /// True if the rules issue no code for this pushed request any more, because it has expired or was used.
    fn is_over(&self, state: &State, pushed: PushedReference) -> bool {
        let is_late = Stamp(pushed.until_ms).is_over_at(self.now(state));
        is_late || state.is_ticket_spent(TicketId::new(pushed.id))
    }

    /// True for an address at the true origin of an application.
    fn is_of_application(&self, state: &State, url: &AppUrl) -> bool {
        let application = state.application_by_host(&url.host());
        application.is_some_and(|application| self.is_true_origin(url, application))
    }
}

/// The address at which a user of this client can begin again: the launch URL of its application, or else the first
/// page of the site that the redirect URI belongs to. `None` for a native app.
fn start_of(state: &State, client: &Client, redirect_uri: &str) -> Option<String> {
    let application = client.application.and_then(|id| state.application(id));
    let launch_url = application.map(|application| application.launch_url.clone());
    let is_web = |origin: &String| origin.starts_with("https://") || origin.starts_with("http://");
    launch_url.filter(|url| !url.is_empty()).or_else(|| origin_of(redirect_uri).filter(is_web))
}

/// The parts of an `http` or `https` address; `None` for any other text. User information before the host is refused.
fn page_at(uri: &str) -> Option<AppUrl> {
    let url = Url::parse(uri).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    if !is_plain || !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    let host = url.host_str()?;
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let authority = canonical_authority(url.scheme(), &authority)?;
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    Some(AppUrl { scheme: url.scheme().to_owned(), authority, path, mount: Mount::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_by_its_host_alone() {
        let read = |uri| page_at(uri).map(|url| (url.origin(), url.path));
        let known = |origin: &str, path: &str| Some((origin.to_owned(), path.to_owned()));
        assert_eq!(read("https://app.test/page?q=1"), known("https://app.test", "/page?q=1"));
        assert_eq!(read("https://app.test:443/"), known("https://app.test", "/"));
        assert_eq!(read("https://app.test:8443/"), known("https://app.test:8443", "/"));
        assert_eq!(read("https://[2001:db8::7]/"), known("https://[2001:db8::7]", "/"));
        assert_eq!(read("https://evil.test/@app.test"), known("https://evil.test", "/@app.test"));
        for other in ["https://app.test@evil.test/", "javascript:app.test", "//app.test/", "app.test", ""] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
